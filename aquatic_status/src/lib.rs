//! Status page: what the tracker does, as a page, as JSON and as a stream of events.
//!
//! A thread beside the cores, the sampler, reads the metrics of all cores once a second. From them it makes
//! the documents that viewers get, so that a second costs the same whatever the number of viewers and of
//! torrents. Cores and the page's own listener only choose a document.
//!
//! - [`StatusConfig`]: section `[status]`.
//! - `figures`, `latency`: the numbers of one moment, from the metrics. `history`: aggregates of the last
//!   minute, hour, day and month, and totals. `file`: how they are kept for the next process.
//! - `report`: the JSON. `page`, `chart`, `text`: the page. `opentracker`: the shape of another tracker.
//! - `documents`: what is ready to be sent. `site`: which request gets what, and who is an operator.
//! - `streams`: events on a core, and beside the cores. `sampler`: the thread.
//!
//! What belongs here: what an operator or a visitor sees in a browser. What does not: counting (each
//! service), heads and connections (`aquatic_web`). Neither addresses nor info hashes are shown to anybody.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod chart;
mod config;
mod documents;
mod figures;
mod file;
mod history;
mod latency;
mod opentracker;
mod page;
mod report;
mod sampler;
mod site;
mod streams;
mod text;

pub use config::StatusConfig;
pub use report::{CertificateReport, ClusterReport, NodeReport};
pub use sampler::{CertificateSource, Changes, ClusterSource, CoreStatus, Limits, Settings, open};
pub use site::Proxies;
pub use streams::CorePages;
pub use text::duration;
