//! The cluster that this tracker is a node of.

use aquatic_cluster::cores::CoreCluster;
use aquatic_cluster::thread::{self, Hooks, Prepared};
use aquatic_common::Steering;
use aquatic_common::config::ClusterConfig;
use aquatic_runtime::Engine;

use crate::control::{self, Controlled};

/// What divides messages that nothing here receives: none.
fn none(messages: &[u8], _steering: &Steering, _to: &mut dyn FnMut(usize, &[u8])) -> usize {
    usize::from(!messages.is_empty())
}

/// Has the engine run the thread of the cluster. `None` if none is configured.
///
/// # Errors
/// Files that cannot be used.
pub(crate) fn open(
    config: &ClusterConfig,
    steering: &Steering,
    engine: &mut Engine,
    parts: Controlled,
) -> anyhow::Result<Option<Prepared>> {
    let hooks = Hooks { relay: none, parts: none, command: control::receiver(parts) };
    thread::prepare(engine, (config, steering), hooks)
}

/// Each core's part; none without a cluster.
pub(crate) fn parts(prepared: Option<&mut Prepared>) -> Vec<CoreCluster> {
    prepared.map(|prepared| std::mem::take(&mut prepared.cores)).unwrap_or_default()
}
