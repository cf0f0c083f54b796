//! Exposition of samples in the text format of Prometheus (version 0.0.4) and in OpenMetrics (version 1.0.0).
//! They differ in the metadata of counters, the unit and the end.

use std::fmt::{self, Write};

use crate::names::{Metric, Unit};
use crate::registry::Sample;

/// Format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4, which everything reads.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Format for a request with this `Accept` field: OpenMetrics if the client names it and does not prefer
    /// plain text.
    #[must_use]
    pub fn negotiate(accept: Option<&[u8]>) -> Self {
        let accept = accept.and_then(|value| str::from_utf8(value).ok()).unwrap_or_default();
        let preference = |wanted: &str| {
            let ranges = accept.split(',').filter_map(|range| preference(range, wanted));
            ranges.fold(0.0, f32::max)
        };
        let open_metrics = preference("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= preference("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Value of the `Content-Type` field.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Samples as text. Samples of one metric are adjacent.
    #[must_use]
    pub fn render(self, samples: &[Sample]) -> String {
        let mut text = String::with_capacity(samples.len() * 100);
        for series in samples.chunk_by(|a, b| a.metric == b.metric) {
            // Writing to a string does not fail.
            let _ = self.family(&mut text, series);
        }
        if self == Self::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }

    /// Writes a metric with all its series.
    fn family(self, text: &mut String, series: &[Sample]) -> fmt::Result {
        let Some(Sample { metric, .. }) = series.first() else { return Ok(()) };
        let (unit, total) = suffixes(metric);
        let name = metric.name;
        let kind = if metric.kind.only_grows() { "counter" } else { "gauge" };
        let described = match self {
            Self::Text => total,
            Self::OpenMetrics => "",
        };
        writeln!(text, "# HELP {name}{unit}{described} {}.", metric.help)?;
        writeln!(text, "# TYPE {name}{unit}{described} {kind}")?;
        if self == Self::OpenMetrics && !unit.is_empty() {
            writeln!(text, "# UNIT {name}{unit} {}", unit.trim_start_matches('_'))?;
        }
        for sample in series {
            write!(text, "{name}{unit}{total}")?;
            labels(text, sample)?;
            value(text, sample)?;
        }
        Ok(())
    }
}

/// Quality of the first media range in one element of an `Accept` field, if its type is the wanted one.
fn preference(range: &str, wanted: &str) -> Option<f32> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(wanted) {
        return None;
    }
    let quality =
        parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")));
    Some(quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
}

/// Suffixes of a metric's name: unit, and `_total` for a counter.
fn suffixes(metric: &Metric) -> (&'static str, &'static str) {
    let unit = match metric.unit {
        None => "",
        Some(Unit::Bytes) => "_bytes",
        Some(Unit::Seconds | Unit::Microseconds) => "_seconds",
    };
    (unit, if metric.kind.only_grows() { "_total" } else { "" })
}

/// Labels in braces. No value needs escaping: all are names in the source.
fn labels(text: &mut String, sample: &Sample) -> fmt::Result {
    let mut before = '{';
    for (name, value) in &*sample.labels {
        write!(text, "{before}{name}=\"{value}\"")?;
        before = ',';
    }
    if let Some(core) = sample.core {
        write!(text, "{before}core=\"{core}\"")?;
        before = ',';
    }
    if before == ',' { text.write_char('}') } else { Ok(()) }
}

fn value(text: &mut String, sample: &Sample) -> fmt::Result {
    match sample.metric.unit {
        Some(Unit::Microseconds) => writeln!(text, " {}", sample.value as f64 / 1e6),
        Some(Unit::Bytes | Unit::Seconds) | None => writeln!(text, " {}", sample.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    fn samples() -> Vec<Sample> {
        let sample = |metric, labels: &[(&'static str, &'static str)], core, value| Sample {
            metric,
            labels: labels.into(),
            core,
            value,
        };
        vec![
            sample(&names::REQUESTS, &[("protocol", "udp"), ("action", "announce")], None, 7),
            sample(&names::REQUESTS, &[("protocol", "udp"), ("action", "scrape")], None, 8),
            sample(&names::RECEIVED_BYTES, &[], None, 9),
            sample(&names::TICK_LAG, &[], Some(1), 1500),
            sample(&names::TORRENTS, &[("family", "ipv4")], None, 10),
        ]
    }

    #[test]
    fn the_text_format_describes_counters_by_their_full_name() {
        let text = Format::Text.render(&samples());
        let expected = "\
# HELP aquatic_requests_total Requests received and understood.
# TYPE aquatic_requests_total counter
aquatic_requests_total{protocol=\"udp\",action=\"announce\"} 7
aquatic_requests_total{protocol=\"udp\",action=\"scrape\"} 8
# HELP aquatic_received_bytes_total Payload received.
# TYPE aquatic_received_bytes_total counter
aquatic_received_bytes_total 9
";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("# TYPE aquatic_tick_lag_seconds gauge\n"), "{text}");
        assert!(text.contains("\naquatic_tick_lag_seconds{core=\"1\"} 0.0015\n"), "{text}");
        assert!(text.ends_with("\naquatic_torrents{family=\"ipv4\"} 10\n"), "{text}");
    }

    #[test]
    fn openmetrics_describes_counters_without_suffix_and_names_units() {
        let text = Format::OpenMetrics.render(&samples());
        for line in [
            "# TYPE aquatic_requests counter",
            "aquatic_requests_total{protocol=\"udp\",action=\"announce\"} 7",
            "# UNIT aquatic_received_bytes bytes",
            "aquatic_received_bytes_total 9",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }

    #[test]
    fn openmetrics_is_for_those_who_prefer_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
                          version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, expected) in [
            (None, Format::Text),
            (Some(""), Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain;version=0.0.4"), Format::Text),
            (Some("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics),
            (Some(prometheus), Format::OpenMetrics),
            (Some("application/openmetrics-text;q=0.2, text/plain;q=0.9"), Format::Text),
            (Some("application/openmetrics-text;q=0"), Format::Text),
        ] {
            assert_eq!(Format::negotiate(accept.map(str::as_bytes)), expected, "{accept:?}");
        }
    }
}
