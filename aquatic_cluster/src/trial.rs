//! A trial of each NATS server, for `aquatic doctor`: whether this node can connect, and may do what it
//! needs.

use std::time::Duration;

use aquatic_common::config::ClusterConfig;
use async_nats::Event;
use tokio::sync::mpsc;

use crate::access::{Access, Unusable};
use crate::nats::{prefix, subscribed, with_causes};

/// Longest time for the trial of one server.
const LIMIT: Duration = Duration::from_secs(8);

/// Time in which a server objects to what was asked. It may be far away or busy, and nothing tells that it
/// has read that.
const OBJECTIONS: Duration = Duration::from_secs(2);

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTrial {
    /// URL of the server.
    pub url: String,
    /// Version of the server, or why it cannot be used.
    pub outcome: Result<String, String>,
}

/// Connects to each server and tries all that a node does there. Other nodes see an empty message, which they
/// ignore.
///
/// # Errors
/// Files that cannot be used.
pub fn try_servers(config: &ClusterConfig) -> Result<Vec<ServerTrial>, Unusable> {
    let access = Access::read(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Unusable {
        key: ClusterConfig::servers,
        text: format!("the servers cannot be tried: {error}"),
    })?;
    // Where the time limits are made.
    let _entered = runtime.enter();
    let node = config.node_name(&crate::host_name());
    let trials = access.servers().iter().map(|url| {
        let trial = tokio::time::timeout(LIMIT, try_server(&access, url, &config.name, &node));
        let outcome = runtime.block_on(trial);
        let outcome = outcome.unwrap_or_else(|_| Err("it does not answer in time".to_owned()));
        ServerTrial { url: url.clone(), outcome }
    });
    Ok(trials.collect())
}

async fn try_server(access: &Access, url: &str, name: &str, node: &str) -> Result<String, String> {
    let (sender, mut events) = mpsc::unbounded_channel();
    let options = access.options(node).map_err(|error| with_causes(&error))?;
    let options = options.event_callback(move |event| {
        let _ = sender.send(event);
        std::future::ready(())
    });
    let client = options.connect(url).await.map_err(|error| with_causes(&error))?;
    let prefix = prefix(name);
    let mut subscriptions = Vec::new();
    for subject in subscribed(&prefix, node) {
        subscriptions.push(client.subscribe(subject).await.map_err(|error| with_causes(&error))?);
    }
    for subject in [
        format!("{prefix}.changes.{node}.0"),
        format!("{prefix}.webtorrent.{node}.0"),
        format!("{prefix}.hello.{node}"),
        format!("{prefix}.control"),
        format!("{prefix}.pull.{node}"),
        format!("{prefix}.ws.{node}"),
        format!("{prefix}.parts.{node}"),
    ] {
        client.publish(subject, bytes::Bytes::new()).await.map_err(|error| with_causes(&error))?;
    }
    client.flush().await.map_err(|error| with_causes(&error))?;
    let version = client.server_info().version;
    let objection = tokio::time::timeout(OBJECTIONS, async {
        loop {
            match events.recv().await {
                Some(Event::ServerError(error)) => return error.to_string(),
                Some(_) => {}
                None => std::future::pending::<()>().await,
            }
        }
    });
    match objection.await {
        Ok(error) => Err(format!("it refuses what a node does: {error}")),
        Err(_) => Ok(version),
    }
}
