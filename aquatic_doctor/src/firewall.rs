//! Rules of the firewall, as text. There is no file to read them from; the programs that manage them print
//! them, for root only.

use std::io::Read;
use std::process::{Command, Stdio};

/// Maximum size of the rules that are read, in bytes. Lists of blocked addresses can be long.
const MAX_RULES: u64 = 8 << 20;

/// Programs that print rules, each with its arguments.
const PRINTERS: [(&str, &[&str]); 3] = [
    ("nft", &["-s", "list", "ruleset"]),
    ("iptables-save", &["-t", "raw"]),
    ("ip6tables-save", &["-t", "raw"]),
];

/// The rules that the programs of this machine print; `None` if none of them does.
#[must_use]
pub fn read_rules() -> Option<String> {
    let printed: Vec<String> =
        PRINTERS.into_iter().filter_map(|(program, arguments)| print(program, arguments)).collect();
    (!printed.is_empty()).then(|| printed.join("\n"))
}

fn print(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut text = Vec::new();
    let read = child.stdout.take()?.take(MAX_RULES).read_to_end(&mut text);
    // It may still want to write what is beyond the maximum.
    let _ = child.kill();
    let status = child.wait().ok()?;
    let was_complete = read.is_ok() && (status.success() || text.len() as u64 == MAX_RULES);
    was_complete.then(|| String::from_utf8_lossy(&text).into_owned())
}

/// Whether rules exempt a port from connection tracking.
pub(crate) fn exempts(rules: &str, transport: &str, port: u16) -> bool {
    let port = port.to_string();
    rules.lines().any(|line| {
        let lower = line.to_lowercase();
        let words: Vec<&str> =
            lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        // An address range or a rule for other transports is not looked at: "th" stands for any transport.
        let names = words.contains(&transport) || words.contains(&"th");
        lower.contains("notrack") && names && mentions(&words, &port, &lower)
    })
}

/// Whether a rule names a port, alone, in a set, or in a range.
fn mentions(words: &[&str], port: &str, rule: &str) -> bool {
    if words.contains(&port) {
        return true;
    }
    let Ok(number) = port.parse::<u32>() else { return false };
    let ranges = rule.split(|c: char| !(c.is_ascii_digit() || c == '-' || c == ':'));
    ranges.filter_map(|range| range.split_once(['-', ':'])).any(|(first, last)| {
        let bounds = first.parse::<u32>().ok().zip(last.parse::<u32>().ok());
        bounds.is_some_and(|(first, last)| (first..=last).contains(&number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_both_kinds_are_understood() {
        let nft = "table inet raw {\n\tchain prerouting {\n\t\tudp dport 6969 notrack\n\t\ttcp dport { 80, 8000-8010 } notrack\n\t}\n}";
        assert!(exempts(nft, "udp", 6969));
        assert!(!exempts(nft, "tcp", 6969));
        assert!(exempts(nft, "tcp", 8005) && exempts(nft, "tcp", 80) && !exempts(nft, "tcp", 81));
        let iptables = "-A PREROUTING -p udp -m udp --dport 6969 -j CT --notrack\n-A OUTPUT -p udp --sport 7000:7010 -j NOTRACK";
        assert!(exempts(iptables, "udp", 6969) && exempts(iptables, "udp", 7001));
        assert!(!exempts(iptables, "udp", 696));
        assert!(!exempts("udp dport 6969 accept", "udp", 6969));
        assert!(exempts("th dport 6969 notrack", "udp", 6969));
    }
}
