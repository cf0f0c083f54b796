//! What list sites, clients and browsers think of a tracker. Pure: observations in, rows out.

use std::net::{IpAddr, SocketAddr};

use aquatic_cli_helpers::report::Verdict;

use crate::Rows;
use crate::facts::{Counts, Facts};
use crate::target::{Scheme, Target};

/// Intervals that newTrackon accepts, in seconds.
const LISTED_INTERVALS: std::ops::RangeInclusive<u32> = 300..=10_800;

/// Shortest interval that libtorrent keeps to, in seconds.
const LIBTORRENT_FLOOR: u32 = 300;

/// Intervals of WebTorrent trackers that make sense, in seconds: browsers come and go.
const BROWSER_INTERVALS: std::ops::RangeInclusive<u32> = 30..=1800;

/// Length of the connect reply that Transmission and aria2 require, in bytes.
const CONNECT_LENGTH: usize = 16;

/// What the second peer was told.
pub(crate) fn second_peer(found: Option<SocketAddr>, tracker: SocketAddr, counts: Counts, rows: &mut Rows) {
    const CHECK: &str = "second_peer";
    match found {
        None => {
            let text = format!(
                "the second peer is not told of the first, although the tracker counts {counts}. Some trackers leave out \
                 peers of the same address"
            );
            rows.fault(CHECK, text);
        }
        Some(found) if found.is_ipv4() != tracker.is_ipv4() => {
            rows.fault(
                CHECK,
                format!("the first peer is handed out as {found}, an address of the other family"),
            );
        }
        Some(found) if counts == (Counts { complete: 1, incomplete: 1 }) => {
            rows.ok(CHECK, format!("is told of the first, {found}; {counts}"));
        }
        Some(found) => rows.advice(CHECK, format!("is told of the first, {found}, but it counts {counts}")),
    }
}

/// What a scrape returned, compared with the counts of an announce.
pub(crate) fn scraped(found: Option<Counts>, announced: Counts, rows: &mut Rows) {
    const CHECK: &str = "scrape";
    match found {
        Some(found) if found == announced => rows.ok(CHECK, found.to_string()),
        Some(found) => rows.advice(CHECK, format!("{found}; an announce said {announced}")),
        None => rows.advice(CHECK, "the torrent is missing in the reply"),
    }
}

/// Whether a peer that has stopped is gone.
pub(crate) fn stopped(is_gone: bool, rows: &mut Rows) {
    const CHECK: &str = "stopped";
    if is_gone {
        rows.ok(CHECK, "a peer that has stopped is gone");
    } else {
        rows.advice(CHECK, "a peer that has stopped is still handed out or counted");
    }
}

/// Objections of a program to a tracker: those for which it would not use it, and lesser ones.
#[derive(Default)]
struct Objections {
    faults: Vec<String>,
    advice: Vec<String>,
}

impl Objections {
    fn fault(&mut self, applies: bool, text: impl Into<String>) {
        if applies {
            self.faults.push(text.into());
        }
    }

    fn advise(&mut self, applies: bool, text: impl Into<String>) {
        if applies {
            self.advice.push(text.into());
        }
    }

    /// Verdict and text; `good` if there are no objections.
    fn conclude(self, good: &str) -> (Verdict, String) {
        let verdict = match (self.faults.is_empty(), self.advice.is_empty()) {
            (false, _) => Verdict::Fault,
            (true, false) => Verdict::Advice,
            (true, true) => return (Verdict::Ok, good.to_owned()),
        };
        (verdict, [self.faults, self.advice].concat().join("; "))
    }
}

/// Tells `row` the verdicts of all programs that use a tracker of this scheme.
pub fn verdicts(target: &Target, facts: &Facts, row: &mut impl FnMut(&'static str, Verdict, String)) {
    // The step that failed has a row of its own, and nothing was seen of what comes after it.
    if facts.failed && facts.interval.is_none() {
        return;
    }
    let mut tell = |check, (verdict, text)| row(check, verdict, text);
    tell("list_site", list_site(target, facts));
    tell("libtorrent", libtorrent(target, facts));
    if target.scheme.is_webtorrent() {
        tell("browser", browser(target, facts));
    } else {
        tell("transmission", transmission(facts));
    }
}

fn list_site(target: &Target, facts: &Facts) -> (Verdict, String) {
    let mut objections = Objections::default();
    objections.fault(!facts.works(), "it does not work");
    objections.advise(target.host.parse::<IpAddr>().is_ok(), "lists want a host name instead of an address");
    if target.scheme.is_webtorrent() {
        objections.advise(target.scheme == Scheme::Ws, "lists want wss://");
        return objections.conclude("trackerslist would list it; newTrackon does not check WebSocket");
    }
    let interval = facts.interval.unwrap_or(0);
    let (shortest, longest) = (LISTED_INTERVALS.start(), LISTED_INTERVALS.end());
    objections.fault(
        !LISTED_INTERVALS.contains(&interval),
        format!("newTrackon refuses the interval of {interval} s: it must be {shortest} to {longest} s"),
    );
    let status = facts.status.filter(|&status| status != 200);
    objections.fault(status.is_some(), format!("newTrackon refuses the status {}", status.unwrap_or(0)));
    objections.fault(facts.trusted == Some(false), "newTrackon refuses the certificate");
    objections.conclude("newTrackon and trackerslist would list it")
}

fn libtorrent(target: &Target, facts: &Facts) -> (Verdict, String) {
    let mut objections = Objections::default();
    objections.fault(!facts.works(), "it does not work");
    objections.fault(facts.takes_options == Some(false), "announces with options (BEP 41) are not answered");
    objections.fault(
        facts.id_of_other_port == Some(false),
        "connection ids are bound to a port, but it uses one for all of its ports",
    );
    objections.fault(facts.trusted == Some(false), "it refuses the certificate unless told not to verify");
    objections.fault(facts.answers_all == Some(false), "an announce was not answered");
    refuse_status(facts, &mut objections);
    let status = facts.failure_status.filter(|&status| status != 200);
    objections.advise(
        status.is_some(),
        format!("it does not show the reason of failures with the status {}", status.unwrap_or(0)),
    );
    let interval = facts.interval.unwrap_or(0);
    objections.advise(
        interval < LIBTORRENT_FLOOR && !target.scheme.is_webtorrent(),
        format!("it announces every {LIBTORRENT_FLOOR} s at most, not after {interval} s"),
    );
    objections.conclude("libtorrent (qBittorrent, Deluge) uses it")
}

/// Clients read replies with status 200 only.
fn refuse_status(facts: &Facts, objections: &mut Objections) {
    let status = facts.status.filter(|&status| status != 200);
    let text = format!("an announce was answered with the status {}", status.unwrap_or(0));
    objections.fault(status.is_some(), text);
}

fn transmission(facts: &Facts) -> (Verdict, String) {
    let mut objections = Objections::default();
    objections.fault(!facts.works(), "it does not work");
    refuse_status(facts, &mut objections);
    let length = facts.connect_length.filter(|&length| length != CONNECT_LENGTH);
    objections.fault(
        length.is_some(),
        format!("it takes connect replies of {CONNECT_LENGTH} bytes only, not of {}", length.unwrap_or(0)),
    );
    objections.fault(facts.trusted == Some(false), "it refuses the certificate");
    objections.advise(
        facts.canonical == Some(false),
        "replies are not bencode in its only form: keys are sorted, and nothing follows the dictionary",
    );
    objections.advise(facts.scrapes == Some(false), "it shows no counts, as scrapes fail");
    objections.conclude("Transmission and aria2 use it")
}

fn browser(target: &Target, facts: &Facts) -> (Verdict, String) {
    let mut objections = Objections::default();
    objections.fault(!facts.works(), "it does not work");
    objections.fault(facts.trusted == Some(false), "browsers refuse the certificate");
    let is_relayed = facts.offer_relayed == Some(true) && facts.answer_relayed == Some(true);
    objections.fault(!is_relayed, "offer or answer do not arrive unchanged");
    objections.advise(target.scheme == Scheme::Ws, "pages on https:// may not use ws://");
    let interval = facts.interval.unwrap_or(0);
    objections.advise(
        !BROWSER_INTERVALS.contains(&interval),
        format!("an interval of {interval} s is unusual for WebTorrent; 120 s is common"),
    );
    objections.conclude("WebTorrent in a browser uses it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            interval: Some(1800),
            handed_out: Some(true),
            gone: Some(true),
            scrapes: Some(true),
            ..Facts::default()
        }
    }

    fn of(url: &str, change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Verdict)> {
        let mut facts = good();
        if url.starts_with("ws") {
            (facts.offer_relayed, facts.answer_relayed, facts.interval) = (Some(true), Some(true), Some(120));
        }
        change(&mut facts);
        let mut rows = Vec::new();
        verdicts(&url.parse().unwrap(), &facts, &mut |check, verdict, _| rows.push((check, verdict)));
        rows.into_iter().filter(|(_, verdict)| *verdict != Verdict::Ok).collect()
    }

    const UDP: &str = "udp://tracker.example:6969/announce";
    const HTTPS: &str = "https://tracker.example/announce";
    const WSS: &str = "wss://tracker.example/announce";

    #[test]
    fn a_good_tracker_is_used_by_all() {
        for url in [UDP, HTTPS, WSS] {
            assert_eq!(of(url, |_| ()), [], "{url}");
        }
    }

    #[test]
    fn each_program_has_objections_of_its_own() {
        use Verdict::{Advice, Fault};
        assert_eq!(
            of(UDP, |facts| facts.interval = Some(120)),
            [("list_site", Fault), ("libtorrent", Advice)]
        );
        assert_eq!(of(UDP, |facts| facts.interval = Some(20_000)), [("list_site", Fault)]);
        assert_eq!(of(UDP, |facts| facts.connect_length = Some(20)), [("transmission", Fault)]);
        assert_eq!(of(UDP, |facts| facts.takes_options = Some(false)), [("libtorrent", Fault)]);
        assert_eq!(of(UDP, |facts| facts.id_of_other_port = Some(false)), [("libtorrent", Fault)]);
        assert_eq!(of("udp://192.0.2.1:6969", |_| ()), [("list_site", Advice)]);
        assert_eq!(
            of(HTTPS, |facts| facts.status = Some(404)),
            [("list_site", Fault), ("libtorrent", Fault), ("transmission", Fault)]
        );
        assert_eq!(of(HTTPS, |facts| facts.failure_status = Some(400)), [("libtorrent", Advice)]);
        assert_eq!(of(HTTPS, |facts| facts.canonical = Some(false)), [("transmission", Advice)]);
        assert_eq!(of(HTTPS, |facts| facts.scrapes = Some(false)), [("transmission", Advice)]);
        let untrusted = of(HTTPS, |facts| facts.trusted = Some(false));
        assert_eq!(untrusted, [("list_site", Fault), ("libtorrent", Fault), ("transmission", Fault)]);
        assert_eq!(of(WSS, |facts| facts.answer_relayed = Some(false)), [("browser", Fault)]);
        assert_eq!(of(WSS, |facts| facts.interval = Some(7200)), [("browser", Advice)]);
        assert_eq!(of("ws://tracker.example/", |_| ()), [("list_site", Advice), ("browser", Advice)]);
        assert_eq!(of(UDP, |facts| facts.handed_out = Some(false)).len(), 3);
    }

    #[test]
    fn nothing_is_concluded_from_nothing() {
        let nothing = |facts: &mut Facts| *facts = Facts { failed: true, ..Facts::default() };
        assert_eq!(of(UDP, nothing), []);
    }
}
