//! The NATS servers of the cluster: whether they can be used, and their version.

use aquatic_cli_helpers::report::Row;

use super::Rows;
use crate::asked::{Asked, NatsServerAsked};

/// First versions without the weaknesses that were published in 2026, by the branch that they are of.
const REPAIRED: [(u32, u32, u32); 3] = [(2, 11, 16), (2, 12, 7), (2, 14, 0)];

pub(crate) fn check(asked: &Asked) -> Vec<Row> {
    const CHECK: &str = "nats_server";
    let mut rows = Rows::new("cluster");
    for NatsServerAsked { url, outcome } in &asked.nats_servers {
        match outcome {
            Err(why) => rows.fault(CHECK, format!("{url} cannot be used by this node: {why}")),
            Ok(version) if is_weak(version) => rows.advice(
                CHECK,
                format!("{url} works, but NATS {version} has weaknesses that are known; use 2.14 or later"),
            ),
            Ok(version) => {
                rows.ok(
                    CHECK,
                    format!("{url} works: NATS {version}, with the permissions that a node needs"),
                );
                continue;
            }
        };
    }
    match asked.replicas {
        None => {}
        Some(..2) => {
            let text = "each torrent is kept by one node, so peers are lost with it until they announce again; \
                        with two nodes, on all nodes, they are not";
            rows.advice("replicas", text).set("cluster.replicas = 2");
        }
        Some(replicas) => {
            rows.ok("replicas", format!("each torrent is kept by {replicas} nodes, others forward requests"));
        }
    }
    rows.rows
}

/// Whether a server has weaknesses that are repaired in later versions.
fn is_weak(version: &str) -> bool {
    let numbers: Vec<u32> = version.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    let [major, minor, patch] = numbers[..] else { return false };
    let repaired = REPAIRED.into_iter().find(|(_, branch, _)| *branch >= minor && major == 2);
    repaired.is_some_and(|repaired| (major, minor, patch) < repaired)
}

#[cfg(test)]
mod tests {
    use aquatic_cli_helpers::report::Verdict;

    use super::*;

    #[test]
    fn a_single_copy_is_advised_against() {
        let verdicts = |replicas| {
            let rows = check(&Asked { replicas, ..Asked::default() });
            rows.into_iter().map(|row| row.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(None), []);
        assert_eq!(verdicts(Some(1)), [Verdict::Advice]);
        assert_eq!(verdicts(Some(2)), [Verdict::Ok]);
    }

    #[test]
    fn old_servers_are_told() {
        for (version, weak) in [
            ("2.9.10", true),
            ("2.11.15", true),
            ("2.11.16", false),
            ("2.12.6", true),
            ("2.12.7", false),
            ("2.13.9", true),
            ("2.14.0", false),
            ("2.15.1-beta", false),
            ("3.0.0", false),
            ("", false),
        ] {
            assert_eq!(is_weak(version), weak, "{version}");
        }
    }
}
