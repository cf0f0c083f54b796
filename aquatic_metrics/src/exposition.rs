//! Samples as text in the OpenMetrics format, which Prometheus reads.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry;

use crate::names::{Metric, Unit};
use crate::registry::Sample;

/// What the text is, for the `Content-Type` header.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The samples as text.
///
/// # Errors
/// None in practice: writing to a string does not fail.
pub fn render(samples: Vec<Sample>) -> Result<String, fmt::Error> {
    let mut registry = registry::Registry::default();
    registry.register_collector(Box::new(Samples(samples)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Samples(Vec<Sample>);

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for series in self.0.chunk_by(|a, b| a.metric == b.metric) {
            let Some(Sample { metric, .. }) = series.first() else { continue };
            let kind = if metric.kind.only_grows() { MetricType::Counter } else { MetricType::Gauge };
            let unit = unit(metric);
            let mut family = encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), kind)?;
            // A metric without labels has one series.
            if let [only] = series
                && only.labels.is_empty()
                && only.core.is_none()
            {
                value(only, family)?;
                continue;
            }
            for sample in series {
                let core = sample.core.map(|core| core.to_string());
                let labels = sample.labels.iter().copied();
                let labels: Vec<_> = labels.chain(core.as_deref().map(|core| ("core", core))).collect();
                value(sample, family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn value(sample: &Sample, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match sample.metric.unit {
        Some(Unit::Microseconds) => ConstGauge::new(sample.value as f64 / 1e6).encode(encoder),
        _ if sample.metric.kind.only_grows() => ConstCounter::new(sample.value).encode(encoder),
        _ => ConstGauge::new(sample.value as f64).encode(encoder),
    }
}

fn unit(metric: &Metric) -> Option<registry::Unit> {
    Some(match metric.unit? {
        Unit::Bytes => registry::Unit::Bytes,
        Unit::Seconds | Unit::Microseconds => registry::Unit::Seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    #[test]
    fn text_carries_names_units_labels_and_values() {
        let sample = |metric, labels: &[(&'static str, &'static str)], core, value| Sample {
            metric,
            labels: labels.to_vec(),
            core,
            value,
        };
        let text = render(vec![
            sample(&names::REQUESTS, &[("protocol", "udp"), ("action", "announce")], None, 7),
            sample(&names::REQUESTS, &[("protocol", "udp"), ("action", "scrape")], None, 8),
            sample(&names::RECEIVED_BYTES, &[], None, 9),
            sample(&names::TICK_LAG, &[], Some(1), 1500),
            sample(&names::TORRENTS, &[("family", "ipv4")], None, 10),
        ])
        .unwrap();
        for line in [
            "# TYPE aquatic_requests counter",
            "aquatic_requests_total{protocol=\"udp\",action=\"announce\"} 7",
            "aquatic_requests_total{protocol=\"udp\",action=\"scrape\"} 8",
            "aquatic_received_bytes_total 9",
            "# UNIT aquatic_received_bytes bytes",
            "aquatic_tick_lag_seconds{core=\"1\"} 0.0015",
            "aquatic_torrents{family=\"ipv4\"} 10.0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
        assert_eq!(text.matches("# TYPE aquatic_requests ").count(), 1, "{text}");
    }
}
