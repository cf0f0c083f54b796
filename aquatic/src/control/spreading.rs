//! Commands that all nodes of a cluster carry out.

use aquatic_cluster::thread::CommandHook;

use super::controller::{Answer, Controlled, Controller};
use super::reply::{ErrorCode, Failure};
use super::request::Request;

/// Why other commands are not for all nodes.
pub(crate) const NOT_SPREADABLE: &str = "this command is about one tracker; ban, unban, allow, deny, reset, reload and \
                                         breaker are for all nodes";

/// Whether a command makes sense on every node: it decides about clients or torrents, or reads files again.
pub(crate) fn is_spreadable(request: &Request) -> bool {
    match request {
        Request::Ban { .. }
        | Request::Unban { .. }
        | Request::Allow { .. }
        | Request::Deny { .. }
        | Request::Reset { .. }
        | Request::Reload {}
        | Request::Breaker { mode: Some(_), .. } => true,
        Request::Status {}
        | Request::Top { .. }
        | Request::Torrent { .. }
        | Request::Bans {}
        | Request::Log { .. }
        | Request::Snapshot {}
        | Request::Connections {}
        | Request::Breaker { mode: None, .. }
        | Request::Drain { .. }
        | Request::Cluster { .. } => false,
    }
}

impl Controller {
    /// Carries a command out, and sends it to all other nodes. What is refused here is not sent.
    pub(super) fn spread(&self, request: Request) -> Result<Answer, Failure> {
        if !is_spreadable(&request) {
            return Err(Failure::new(ErrorCode::BadArgument, NOT_SPREADABLE));
        }
        let Some((report, commands)) = self.cluster() else {
            let text = "this tracker is no node of a cluster; set cluster.servers and restart";
            return Err(Failure::new(ErrorCode::Unavailable, text));
        };
        if !report.get().connected {
            let text = "there is no connection to NATS, so no other node would hear of it and nothing has been done; \
                        without --cluster the command is carried out here alone";
            return Err(Failure::new(ErrorCode::Unavailable, text));
        }
        // What has been read from JSON can be written as JSON.
        let line = serde_json::to_vec(&request).unwrap_or_default();
        let answer = self.execute(request);
        if !matches!(answer, Answer::Now(Err(_))) {
            commands.send(line);
        }
        Ok(answer)
    }
}

/// What carries out the commands of other nodes, given the name of the node and the command.
pub(crate) fn receiver(parts: Controlled) -> CommandHook {
    let controller = Controller::new(parts, Vec::new());
    Box::new(move |node, command| match serde_json::from_slice::<Request>(command) {
        Ok(request) if is_spreadable(&request) => match controller.execute(request) {
            Answer::Now(Err(failure)) => {
                log::warn!("cluster: a command of node {node} is not carried out: {}", failure.message);
            }
            Answer::Now(Ok(_)) | Answer::Later(_) => {
                log::info!("cluster: a command of node {node} is carried out");
            }
        },
        Ok(_) | Err(_) => {
            log::warn!(
                "cluster: a command of node {node} is not understood; run the same version on all nodes"
            );
        }
    })
}
