//! Exposition of samples in the text format of Prometheus (version 0.0.4) and in OpenMetrics (version 1.0.0).
//! They differ in the metadata of counters, the unit and the end.

use std::fmt::{self, Write};

use crate::names::{Kind, Metric, Unit};
use crate::registry::{HistogramSample, Label, Sample};

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
    pub fn render(self, samples: &[Sample], histograms: &[HistogramSample]) -> String {
        let mut text = String::with_capacity(samples.len() * 100 + histograms.len() * 2500);
        for series in samples.chunk_by(|a, b| a.metric == b.metric) {
            // Writing to a string does not fail.
            let _ = self.family(&mut text, series);
        }
        for series in histograms.chunk_by(|a, b| a.metric == b.metric) {
            let _ = self.histograms(&mut text, series);
        }
        if self == Self::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }

    /// Writes a metric with all its series.
    fn family(self, text: &mut String, series: &[Sample]) -> fmt::Result {
        let Some(Sample { metric, .. }) = series.first() else { return Ok(()) };
        self.describe(text, metric)?;
        let (unit, total) = suffixes(metric);
        for sample in series {
            write!(text, "{}{unit}{total}", metric.name)?;
            labels(text, sample)?;
            value(text, sample)?;
        }
        Ok(())
    }

    /// Writes the metadata of a metric.
    fn describe(self, text: &mut String, metric: &Metric) -> fmt::Result {
        let (unit, total) = suffixes(metric);
        let name = metric.name;
        let described = match self {
            Self::Text => total,
            Self::OpenMetrics => "",
        };
        writeln!(text, "# HELP {name}{unit}{described} {}.", metric.help)?;
        writeln!(text, "# TYPE {name}{unit}{described} {}", type_of(metric.kind))?;
        if self == Self::OpenMetrics && !unit.is_empty() {
            writeln!(text, "# UNIT {name}{unit} {}", unit.trim_start_matches('_'))?;
        }
        Ok(())
    }

    /// Writes a histogram with all its series.
    fn histograms(self, text: &mut String, series: &[HistogramSample]) -> fmt::Result {
        let Some(HistogramSample { metric, .. }) = series.first() else { return Ok(()) };
        self.describe(text, metric)?;
        let (name, (unit, _)) = (metric.name, suffixes(metric));
        for HistogramSample { labels, distribution, .. } in series {
            let mut bucket = |bound: &str, count: u64| {
                write!(text, "{name}{unit}_bucket")?;
                labels_and(text, labels, Some(("le", bound)))?;
                writeln!(text, " {count}")
            };
            for (bound, count) in distribution.cumulative() {
                bucket(&self.bound(bound), count)?;
            }
            let count = distribution.count();
            bucket("+Inf", count)?;
            for (suffix, value) in [("sum", distribution.sum()), ("count", count as f64)] {
                write!(text, "{name}{unit}_{suffix}")?;
                labels_and(text, labels, None)?;
                writeln!(text, " {value}")?;
            }
        }
        Ok(())
    }

    /// A bound of a bucket, as the formats want it: OpenMetrics has no integers there.
    fn bound(self, bound: f64) -> String {
        if bound < 1e-4 {
            // As Go and Python write it: at least two digits of exponent.
            return format!("{bound:e}").replace("e-", "e-0");
        }
        match self {
            Self::Text => format!("{bound}"),
            Self::OpenMetrics => format!("{bound:?}"),
        }
    }
}

/// Name of a metric as it is scraped, with unit and `_total`. Series of a histogram have further suffixes.
#[must_use]
pub fn exposed_name(metric: &Metric) -> String {
    let (unit, total) = suffixes(metric);
    format!("{}{unit}{total}", metric.name)
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

/// Type of a metric, in the words of both formats.
#[must_use]
pub fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter | Kind::CounterPerCore | Kind::Loss => "counter",
        Kind::Gauge | Kind::GaugePerCore => "gauge",
        Kind::Histogram { .. } => "histogram",
    }
}

/// Suffixes of a metric's name: unit, and `_total` for a counter.
fn suffixes(metric: &Metric) -> (&'static str, &'static str) {
    let unit = match metric.unit {
        None => "",
        Some(Unit::Thousandths) => "_ratio",
        Some(Unit::Bytes) => "_bytes",
        Some(Unit::Seconds | Unit::Microseconds | Unit::Nanoseconds) => "_seconds",
    };
    (unit, if metric.kind.only_grows() { "_total" } else { "" })
}

/// Labels of a sample in braces.
fn labels(text: &mut String, sample: &Sample) -> fmt::Result {
    match sample.core {
        Some(core) => labels_and(text, &sample.labels, Some(("core", &core.to_string()))),
        None => labels_and(text, &sample.labels, None),
    }
}

/// Labels in braces, with one that is not the same for all of the series. No value needs escaping: all are
/// names in the source or numbers.
fn labels_and(text: &mut String, labels: &[Label], another: Option<(&str, &str)>) -> fmt::Result {
    let mut before = '{';
    for (name, value) in labels.iter().copied().chain(another) {
        write!(text, "{before}{name}=\"{value}\"")?;
        before = ',';
    }
    if before == ',' { text.write_char('}') } else { Ok(()) }
}

fn value(text: &mut String, sample: &Sample) -> fmt::Result {
    match sample.metric.unit {
        Some(Unit::Microseconds) => writeln!(text, " {}", sample.value as f64 / 1e6),
        Some(Unit::Thousandths) => writeln!(text, " {}", sample.value as f64 / 1e3),
        Some(Unit::Nanoseconds) => writeln!(text, " {}", sample.value as f64 / 1e9),
        Some(Unit::Bytes | Unit::Seconds) | None => writeln!(text, " {}", sample.value),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::names;
    use crate::registry::Registry;

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
        let text = Format::Text.render(&samples(), &[]);
        let expected = "\
# HELP aquatic_requests_total Requests received.
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
        let text = Format::OpenMetrics.render(&samples(), &[]);
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
    fn histograms_are_cumulative_and_end_with_sum_and_count() {
        let registry = Registry::default();
        let duration =
            registry.core(0).histogram(&names::REQUEST_DURATION, &[("protocol", "udp"), ("core", "all")]);
        let sizes = registry.core(0).histogram(&names::BATCH_SIZE, &[]);
        for (microseconds, times) in [(1, 3), (16, 2), (1000, 1), (60_000_000, 1)] {
            duration.add_time(Duration::from_micros(microseconds), times);
        }
        sizes.add(3, 5);
        let text = Format::Text.render(&[], &registry.histograms());
        let name = "aquatic_request_duration_seconds";
        let with = |bound: &str| format!("{name}_bucket{{protocol=\"udp\",core=\"all\",le=\"{bound}\"}}");
        for line in [
            format!("# TYPE {name} histogram"),
            with("1e-06") + " 3",
            with("8e-06") + " 3",
            with("1.6e-05") + " 5",
            with("0.000512") + " 5",
            with("0.001024") + " 6",
            with("8.388608") + " 6",
            with("+Inf") + " 7",
            format!("{name}_sum{{protocol=\"udp\",core=\"all\"}} 60.001035"),
            format!("{name}_count{{protocol=\"udp\",core=\"all\"}} 7"),
            "aquatic_batch_size_bucket{le=\"2\"} 0".to_owned(),
            "aquatic_batch_size_bucket{le=\"4\"} 5".to_owned(),
            "aquatic_batch_size_sum 15".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
        let text = Format::OpenMetrics.render(&[], &registry.histograms());
        for line in [&format!("# UNIT {name} seconds"), "aquatic_batch_size_bucket{le=\"4.0\"} 5"] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
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
