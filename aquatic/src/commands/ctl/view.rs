//! What `aquatic ctl watch` shows: two replies to `status` become the lines of a screen. Pure.

use std::collections::{BTreeMap, VecDeque};

use aquatic_status::duration;
use serde_json::Value;

use super::show::{bytes, grouped, labels, number, rows, text};

/// Seconds that the curve of requests covers.
const HISTORY: usize = 60;

/// How a screen is to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) colors: bool,
    /// Whether the terminal shows more than ASCII.
    pub(super) unicode: bool,
}

/// What a piece of a line is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Title,
    Good,
    Bad,
}

/// The state behind the screens: the last reply, and requests per second so far.
#[derive(Debug, Default)]
pub(super) struct View {
    last: Option<Value>,
    history: VecDeque<f64>,
    screen: Vec<(Tone, String)>,
}

/// A counter by its labels.
type Totals = BTreeMap<String, u64>;

/// The counters of some lists, with their labels as names.
fn totals(reply: &Value, keys: &[&str], label: impl Fn(&Value) -> String) -> Totals {
    let mut totals = Totals::new();
    for key in keys {
        for row in rows(reply, key) {
            *totals.entry(label(row)).or_default() += number(row, "count");
        }
    }
    totals
}

/// A rate in a few characters.
fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { grouped(rate.round() as u64) }
}

/// A bar of `width` characters for a share from 0 to 1.
fn bar(share: f64, width: usize) -> String {
    let full = ((share.clamp(0.0, 1.0) * width as f64).round() as usize).min(width);
    format!("{}{}", "|".repeat(full), " ".repeat(width - full))
}

/// A curve with one character for each value, up to the highest.
fn curve(values: impl Iterator<Item = f64>, highest: f64, unicode: bool) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];
    let marks = if unicode { BLOCKS } else { ASCII };
    let mark = |value: f64| {
        let at = if highest > 0.0 { (value / highest * 7.0).round() as usize } else { 0 };
        marks.get(at.min(7)).copied().unwrap_or(' ')
    };
    values.map(mark).collect()
}

/// Share of the time since the last reply in which each core was busy; before there is one, of the last
/// minute.
fn busy_shares(reply: &Value, last: &Value, passed: f64) -> Vec<f64> {
    let figure = |core: &Value, key: &str| core[key].as_f64().unwrap_or_default();
    let pairs = rows(reply, "cores").zip(rows(last, "cores"));
    let share = |(now, before): (&Value, &Value)| {
        let busy = figure(now, "busy_seconds") - figure(before, "busy_seconds");
        if passed > 0.0 { (busy / passed).clamp(0.0, 1.0) } else { figure(now, "busy_percent") / 100.0 }
    };
    pairs.map(share).collect()
}

impl View {
    /// Takes in a reply to `status`.
    pub(super) fn update(&mut self, reply: Value, look: Look) {
        let last = self.last.take().unwrap_or_else(|| reply.clone());
        let since =
            |key: &str| reply[key].as_f64().unwrap_or_default() - last[key].as_f64().unwrap_or_default();
        let passed = since("time_seconds");
        let per_second = |now: u64, before: u64| {
            if passed > 0.0 { now.saturating_sub(before) as f64 / passed } else { 0.0 }
        };
        let all = |reply| totals(reply, &["requests"], |_| String::new()).into_values().sum::<u64>();
        let requests = per_second(all(&reply), all(&last));
        if passed > 0.0 {
            self.history.push_back(requests);
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        self.screen.clear();
        let cpu = if passed > 0.0 { since("cpu_seconds") / passed * 100.0 } else { 0.0 };
        let busy = busy_shares(&reply, &last, passed);
        self.head(&reply, cpu, &busy, look);
        self.requests(&reply, &last, requests, &per_second, look);
        self.swarms(&reply);
        self.losses(&reply, &last, &per_second);
        self.last = Some(reply);
    }

    fn line(&mut self, tone: Tone, text: impl Into<String>) {
        self.screen.push((tone, text.into()));
    }

    fn head(&mut self, reply: &Value, cpu: f64, cores: &[f64], look: Look) {
        let state = text(reply, "state");
        let tone = if state == "serving" { Tone::Good } else { Tone::Bad };
        self.line(
            tone,
            format!(
                "aquatic {} {}   {state} for {}   process {}",
                text(reply, "version"),
                text(reply, "mode"),
                duration(number(reply, "uptime_seconds")),
                reply["pid"]
            ),
        );
        let per_line = (look.width / 38).max(1);
        for (at, line) in cores.chunks(per_line).take(8).enumerate() {
            let gauges: Vec<String> = line
                .iter()
                .enumerate()
                .map(|(nth, busy)| {
                    format!("core {:<2}[{}] {:>3.0} %", at * per_line + nth, bar(*busy, 20), busy * 100.0)
                })
                .collect();
            self.line(Tone::Plain, gauges.join("   "));
        }
        let connections: Vec<String> = rows(reply, "connections")
            .map(|row| format!("{} {}", text(row, "protocol"), grouped(number(row, "open"))))
            .collect();
        let connections = if connections.is_empty() { "none".to_owned() } else { connections.join(", ") };
        self.line(
            Tone::Plain,
            format!(
                "memory {}   processor {cpu:.0} %   connections: {connections}",
                bytes(number(reply, "memory_bytes"))
            ),
        );
        self.line(Tone::Plain, "");
    }

    fn requests(
        &mut self,
        reply: &Value,
        last: &Value,
        requests: f64,
        per_second: &impl Fn(u64, u64) -> f64,
        look: Look,
    ) {
        let highest = self.history.iter().copied().fold(0.0, f64::max);
        let curve = curve(self.history.iter().copied(), highest, look.unicode);
        self.line(
            Tone::Title,
            format!("{:<26}{:>14}{:>14}{:>14}", "REQUESTS", "IPv4/s", "IPv6/s", "total/s"),
        );
        let of = |family: &'static str| {
            move |reply: &Value| {
                let mut found = Totals::new();
                for row in rows(reply, "requests").filter(|row| row["family"].as_str() == Some(family)) {
                    let name = format!("{} {}", text(row, "protocol"), text(row, "action"));
                    *found.entry(name).or_default() += number(row, "count");
                }
                found
            }
        };
        let rates = |family: &'static str| -> BTreeMap<String, f64> {
            let (now, before) = (of(family)(reply), of(family)(last));
            let rate = |(name, count): (String, u64)| {
                let rate = per_second(count, before.get(&name).copied().unwrap_or_default());
                (name, rate)
            };
            now.into_iter().map(rate).collect()
        };
        let (v4, v6) = (rates("ipv4"), rates("ipv6"));
        let names: std::collections::BTreeSet<&String> = v4.keys().chain(v6.keys()).collect();
        for name in names {
            let (v4, v6) = (v4.get(name).copied().unwrap_or(0.0), v6.get(name).copied().unwrap_or(0.0));
            self.line(
                Tone::Plain,
                format!("{name:<26}{:>14}{:>14}{:>14}", rate(v4), rate(v6), rate(v4 + v6)),
            );
        }
        self.line(Tone::Plain, format!("{:<54}{:>14}", "all", rate(requests)));
        self.line(Tone::Plain, format!("last minute {curve} up to {}/s", rate(highest)));
        self.line(Tone::Plain, "");
    }

    fn swarms(&mut self, reply: &Value) {
        self.line(
            Tone::Title,
            format!("{:<26}{:>14}{:>14}{:>14}", "SWARMS", "torrents", "seeders", "leechers"),
        );
        for row in rows(reply, "swarms") {
            let [torrents, seeders, leechers] =
                ["torrents", "seeders", "leechers"].map(|key| grouped(number(row, key)));
            self.line(Tone::Plain, format!("{:<26}{torrents:>14}{seeders:>14}{leechers:>14}", labels(row)));
        }
        self.line(Tone::Plain, "");
    }

    fn losses(&mut self, reply: &Value, last: &Value, per_second: &impl Fn(u64, u64) -> f64) {
        let all = |reply: &Value| {
            let mut all: BTreeMap<String, u64> = BTreeMap::new();
            for (key, word) in [("refused", "refused"), ("dropped", "dropped")] {
                let found = totals(reply, &[key], |row| format!("{} {word}", labels(row)));
                all.extend(found);
            }
            let kernel = number(reply, "kernel_drops");
            if kernel > 0 {
                all.insert("udp dropped by the kernel".to_owned(), kernel);
            }
            all
        };
        let (now, before) = (all(reply), all(last));
        if now.is_empty() {
            return self.line(Tone::Good, "nothing refused or dropped");
        }
        self.line(Tone::Title, format!("{:<44}{:>10}{:>14}", "REFUSED AND DROPPED", "per second", "in all"));
        let mut found: Vec<(String, u64, f64)> = now
            .into_iter()
            .map(|(name, count)| {
                let rate = per_second(count, before.get(&name).copied().unwrap_or_default());
                (name, count, rate)
            })
            .collect();
        found.sort_by(|left, right| right.2.total_cmp(&left.2).then(right.1.cmp(&left.1)));
        for (name, count, per_second) in found {
            let tone = if per_second >= 1.0 { Tone::Bad } else { Tone::Plain };
            self.line(tone, format!("{name:<44}{:>10}{:>14}", rate(per_second), grouped(count)));
        }
    }

    /// The lines of the screen, each within its width, at most as many as its height allows.
    pub(super) fn lines(&self, look: Look) -> Vec<String> {
        let cut = |text: &str| text.chars().take(look.width).collect::<String>();
        let rows = look.height.saturating_sub(1);
        let mut lines: Vec<String> = self
            .screen
            .iter()
            .take(rows)
            .map(|(tone, text)| colored(*tone, &cut(text), look.colors))
            .collect();
        if look.height > 0 {
            let left = self.screen.len().saturating_sub(rows);
            let more =
                if left > 0 { format!("   {left} more lines: enlarge the window") } else { String::new() };
            lines.push(colored(Tone::Title, &cut(&format!("q quits{more}")), look.colors));
        }
        lines
    }
}

fn colored(tone: Tone, text: &str, colors: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Title => "1",
        Tone::Good => "32",
        Tone::Bad => "31",
    };
    if colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LOOK: Look = Look { width: 80, height: 24, colors: false, unicode: true };

    fn reply(time: f64, announces: u64) -> Value {
        json!({
            "version": "0.1.0", "mode": "all", "state": "serving", "uptime_seconds": 275_000, "pid": 4711,
            "time_seconds": time, "cpu_seconds": time / 2.0, "memory_bytes": 661_000_000,
            "cores": [{"core": 0, "busy_percent": 3.0, "busy_seconds": time * 0.43},
                {"core": 1, "busy_percent": 7.0, "busy_seconds": time * 1.01}],
            "connections": [{"protocol": "http", "open": 1234}, {"protocol": "ws", "open": 56}],
            "swarms": [{"swarms": "bittorrent", "family": "ipv4", "torrents": 10_000_000,
                "seeders": 15_000_000, "leechers": 10_000_000}],
            "requests": [
                {"protocol": "udp", "family": "ipv4", "action": "announce", "count": announces},
                {"protocol": "udp", "family": "ipv6", "action": "announce", "count": announces / 2},
            ],
            "dropped": [{"protocol": "udp", "family": "ipv4", "reason": "bad_connection_id", "count": announces}],
        })
    }

    #[test]
    fn rates_come_from_two_replies() {
        let mut view = View::default();
        view.update(reply(100.0, 1_000_000), LOOK);
        view.update(reply(102.0, 1_200_000), LOOK);
        let lines = view.lines(LOOK);
        let expected = "\
aquatic 0.1.0 all   serving for 3 d 4 h   process 4711
core 0 [|||||||||           ]  43 %   core 1 [||||||||||||||||||||] 100 %
memory 630.4 MiB   processor 50 %   connections: http 1,234, ws 56

REQUESTS                          IPv4/s        IPv6/s       total/s
udp announce                     100,000        50,000       150,000
all                                                          150,000
last minute █ up to 150,000/s

SWARMS                          torrents       seeders      leechers
bittorrent ipv4               10,000,000    15,000,000    10,000,000

REFUSED AND DROPPED                         per second        in all
udp ipv4 bad connection id dropped             100,000     1,200,000
q quits";
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn any_window_is_kept_within() {
        let mut view = View::default();
        for second in 0..100 {
            view.update(reply(f64::from(second), 1 << second.min(40)), LOOK);
            for (width, height) in [(0, 0), (1, 1), (20, 5), (80, 24), (300, 100)] {
                for colors in [false, true] {
                    let lines = view.lines(Look { width, height, colors, unicode: false });
                    assert!(lines.len() <= height);
                    let shown = |line: &String| {
                        line.replace("\x1b[1m", "")
                            .replace("\x1b[0m", "")
                            .replace("\x1b[32m", "")
                            .replace("\x1b[31m", "")
                            .chars()
                            .count()
                    };
                    assert!(lines.iter().all(|line| shown(line) <= width));
                }
            }
        }
        assert_eq!(view.history.len(), HISTORY);
        let all = view.lines(Look { height: 100, ..LOOK });
        assert!(all.iter().all(|line| line.chars().count() <= 100), "{all:#?}");
    }
}
