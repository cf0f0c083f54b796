//! Every metric the tracker has: name, help, unit and kind. Labels are protocol, family, action and reason; their
//! values are few and fixed, never taken from a client.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Only grows, and an operator should hear of it: something was refused, lost or dropped. The first increase is
    /// logged, further ones at most once a minute.
    Loss,
    /// Goes up and down; the sum over all cores is shown.
    Gauge,
    /// Goes up and down; the largest of all cores is shown.
    Peak,
}

/// A metric: all its series share these.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name without the suffixes that the exposition format adds.
    pub name: &'static str,
    /// What it counts, as a sentence without a full stop.
    pub help: &'static str,
    /// Unit, where the numbers are not plain counts.
    pub unit: Option<&'static str>,
    /// Counter or gauge.
    pub kind: Kind,
}

const fn metric(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric { name, help, unit: None, kind }
}

/// Requests answered, by protocol, family and action.
pub const REQUESTS: Metric = metric("aquatic_requests", Kind::Counter, "Requests answered");
/// Requests refused with an error the client sees, by protocol, family and reason.
pub const REFUSED: Metric = metric("aquatic_refused", Kind::Counter, "Requests refused with an error reply");
/// Packets and connections dropped without a reply, by protocol, family and reason.
pub const DROPPED: Metric = metric("aquatic_dropped", Kind::Loss, "Requests dropped without a reply");
/// Bytes received, by protocol and family.
pub const RECEIVED_BYTES: Metric = metric("aquatic_received", Kind::Counter, "Bytes of payload received");
/// Bytes sent, by protocol and family.
pub const SENT_BYTES: Metric = metric("aquatic_sent", Kind::Counter, "Bytes of payload sent");
/// Replies the kernel did not take, by protocol, family and reason.
pub const SEND_ERRORS: Metric = metric("aquatic_send_errors", Kind::Loss, "Replies that could not be sent");
/// Requests dropped by the kernel because a receive buffer was full, by protocol and family.
pub const KERNEL_DROPS: Metric =
    metric("aquatic_kernel_drops", Kind::Loss, "Packets the kernel dropped because a receive buffer was full");
