//! Metrics endpoint: `/metrics` and `/health` over HTTP, on an address and a thread of its own.

use std::sync::Arc;

use anyhow::Context;
use aquatic_common::config::MetricsConfig;
use aquatic_http_protocol::{Framing, PlainReply, Status};
use aquatic_metrics::exposition::Format;
use aquatic_metrics::{ProcessFigures, Registry, names};
use aquatic_net::listen::BindError;
use aquatic_runtime::{Engine, Health};

use crate::pages::PageRequest;
use crate::side_listener::{Responder, SideListener, SideReply, encode};

/// What the endpoint shows.
#[derive(Debug)]
pub struct MetricsSources {
    registry: Registry,
    process: ProcessFigures,
    health: Health,
}

/// Binds the endpoint, if it is configured, and has the engine run it.
///
/// # Errors
/// The address cannot be bound.
pub fn open(config: &MetricsConfig, engine: &mut Engine) -> anyhow::Result<()> {
    if !config.enable {
        return Ok(());
    }
    let listener = SideListener::bind(config.address, engine.listeners())
        .map_err(BindError::classified)
        .context("metrics endpoint")?;
    log::info!("metrics: http://{}/metrics", listener.address());
    listener.serve(engine, ("metrics", &names::METRICS_UNSERVED), Arc::new(MetricsSources::new(engine)));
    Ok(())
}

impl MetricsSources {
    /// The metrics and the health of an engine.
    #[must_use]
    pub fn new(engine: &Engine) -> Self {
        Self {
            registry: engine.registry().clone(),
            process: engine.process_figures(),
            health: engine.health(),
        }
    }

    /// The metrics, in the format that the client prefers.
    #[must_use]
    pub fn metrics(&self, request: &PageRequest<'_>) -> Vec<u8> {
        let format = Format::negotiate(request.head.headers.get("Accept"));
        let mut samples = self.registry.samples();
        samples.extend(self.process.samples());
        let body = format.render(&samples, &self.registry.histograms());
        let reply = PlainReply {
            status: Status::Ok,
            content_type: format.content_type(),
            headers: &[("Vary", "Accept")],
            body: body.as_bytes(),
        };
        encode(&reply, request.framing)
    }

    /// Whether the cores respond.
    #[must_use]
    pub fn health(&self, framing: Framing) -> Vec<u8> {
        match self.health.fault() {
            None => encode(&PlainReply::HEALTHY, framing),
            Some(text) => encode(&PlainReply::text(Status::Unavailable, &text), framing),
        }
    }
}

impl Responder for MetricsSources {
    fn respond(&self, request: &PageRequest<'_>) -> SideReply {
        let not_found = PlainReply::text(Status::NotFound, "not found; try /metrics or /health\n");
        SideReply::whole(match request.head.path {
            b"/metrics" => self.metrics(request),
            b"/health" => self.health(request.framing),
            _ => encode(&not_found, request.framing),
        })
    }
}

#[cfg(test)]
mod tests {
    use aquatic_runtime::clock::Epoch;

    use super::*;
    use crate::side_listener::{MAX_HEAD, reply_to};

    fn sources() -> MetricsSources {
        let epoch = Epoch::start();
        let registry = Registry::default();
        registry.core(0).counter(&names::REQUESTS, &[]).add(5);
        MetricsSources { registry, process: ProcessFigures::new(1, 0), health: Health::new(1, epoch) }
    }

    fn response(request: &str) -> Option<String> {
        let reply = reply_to(request.as_bytes(), None, &sources())?;
        Some(String::from_utf8(reply.bytes).unwrap())
    }

    #[test]
    fn requests_are_parsed_in_pieces() {
        let request = "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..request.len() {
            assert_eq!(response(&request[..cut]), None);
        }
        let reply = response(request).unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
        assert!(reply.starts_with(head) && reply.contains("\r\nConnection: close\r\n"), "{reply}");
        assert!(reply.contains("\naquatic_requests_total 5\n"), "{reply}");
    }

    #[test]
    fn openmetrics_is_served_on_request_and_head_without_body() {
        let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n\r\n";
        let reply = response(&format!("GET /metrics HTTP/1.1\r\n{accept}")).unwrap();
        assert!(reply.contains("\r\nContent-Type: application/openmetrics-text;"), "{reply}");
        assert!(reply.ends_with("\n# EOF\n"), "{reply}");
        let reply = response("HEAD /metrics HTTP/1.1\r\n\r\n").unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("\r\n\r\n"), "{reply}");
    }

    #[test]
    fn other_requests_are_refused() {
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD));
        for (request, status) in [
            ("POST / HTTP/1.1\r\n\r\n", "405 "),
            ("GET /else HTTP/1.1\r\n\r\n", "404 "),
            ("\x16\x03\x01\r\n", "400 "),
            (&endless, "431 "),
        ] {
            let reply = response(request).unwrap();
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{reply}");
        }
    }
}
