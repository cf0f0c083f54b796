//! Charts as paths of SVG. `assets/status.js` draws them again as figures come in.

use std::fmt::Write;

/// Width and height of a chart in units of its own.
pub(crate) const WIDTH: f64 = 600.0;
pub(crate) const HEIGHT: f64 = 100.0;

/// Room above the largest value.
const TOP: f64 = 4.0;

/// The line of a chart and the area below it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) line: String,
    pub(crate) area: String,
}

/// Smallest, largest and last value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) last: f64,
}

impl Extent {
    /// The extent of the values that are there.
    pub(crate) fn of(values: &[Option<f64>]) -> Option<Self> {
        let mut present = values.iter().flatten().copied();
        let first = present.next()?;
        let extent = Self { min: first, max: first, last: first };
        Some(present.fold(extent, |extent, value| Self {
            min: extent.min.min(value),
            max: extent.max.max(value),
            last: value,
        }))
    }
}

/// Paths of values at equal distances, from zero to `max`. The line is interrupted where a value is missing.
pub(crate) fn paths(values: &[Option<f64>], max: f64) -> Paths {
    let mut paths = Paths { line: String::new(), area: String::new() };
    let step = WIDTH / (values.len().max(2) - 1) as f64;
    let mut run = Vec::new();
    for (index, value) in values.iter().chain([&None]).enumerate() {
        match value {
            Some(value) => {
                let share = if max > 0.0 { (value / max).clamp(0.0, 1.0) } else { 0.0 };
                run.push((index as f64 * step, HEIGHT - share * (HEIGHT - TOP)));
            }
            None => draw(&mut paths, &std::mem::take(&mut run)),
        }
    }
    paths
}

/// Adds values that follow each other. A single one becomes a short line.
fn draw(paths: &mut Paths, run: &[(f64, f64)]) {
    let (Some(&(first, y)), Some(&(last, _))) = (run.first(), run.last()) else { return };
    // Writing to a string does not fail.
    let _ = write!(paths.area, "M{first:.0} {HEIGHT:.0}");
    for (index, (x, y)) in run.iter().enumerate() {
        let _ = write!(paths.line, "{}{x:.0} {y:.1}", if index == 0 { 'M' } else { 'L' });
        let _ = write!(paths.area, "L{x:.0} {y:.1}");
    }
    if run.len() == 1 {
        let _ = write!(paths.line, "L{:.0} {y:.1}", first + 2.0);
    }
    let _ = write!(paths.area, "L{last:.0} {HEIGHT:.0}Z");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_interrupted_where_values_are_missing() {
        let values = [Some(0.0), Some(10.0), None, Some(5.0)];
        let Paths { line, area } = paths(&values, 10.0);
        assert_eq!(line, "M0 100.0L200 4.0M600 52.0L602 52.0");
        assert_eq!(area, "M0 100L0 100.0L200 4.0L200 100ZM600 100L600 52.0L600 100Z");
        assert_eq!(Extent::of(&values), Some(Extent { min: 0.0, max: 10.0, last: 5.0 }));
        assert_eq!((Extent::of(&[None]), paths(&[None, None], 0.0).line), (None, String::new()));
        assert_eq!(paths(&[Some(3.0)], 0.0).line, "M0 100.0L2 100.0");
    }
}
