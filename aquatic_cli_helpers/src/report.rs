//! Report of a diagnosis: rows with a verdict each, grouped, for a terminal or as JSON.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::exit::ExitStatus;
use crate::run::print_to_stdout;

/// Width that reports are wrapped at, in columns.
const WIDTH: usize = 80;

/// Columns of the verdict, and of the verdict and the name together, each with the space behind it.
const VERDICT: usize = 9;
const INDENT: usize = VERDICT + 19;

/// Version of the JSON form. It rises when a member is renamed, removed or changes its meaning.
const JSON_VERSION: u32 = 1;

/// Exit code of a program whose report has faults.
pub const EXIT_FAULTS: u8 = 1;

/// What a check has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// It works, and would work better with a change.
    Advice,
    /// It does not work, or will not for some of the clients.
    Fault,
}

impl Verdict {
    /// Name in both forms of the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advice => "advice",
            Self::Fault => "fault",
        }
    }

    /// Escape sequence of its colour on terminals.
    const fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Advice => "\x1b[33m",
            Self::Fault => "\x1b[1;31m",
        }
    }
}

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Heading that the row stands below.
    pub group: String,
    /// Stable name of the check, in lower case with underscores.
    pub check: &'static str,
    /// Verdict of the check.
    pub verdict: Verdict,
    /// What was found, and what it means.
    pub text: String,
    /// What mends it, in order.
    pub remedy: Remedies,
}

/// What mends the condition of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A command for a shell.
    Command(String),
    /// A line of the configuration.
    Setting(String),
}

/// Remedies of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remedies(pub Vec<Remedy>);

impl Remedies {
    /// Adds a command.
    pub fn run(&mut self, command: impl Into<String>) {
        self.0.push(Remedy::Command(command.into()));
    }

    /// Adds a line of the configuration.
    pub fn set(&mut self, setting: impl Into<String>) {
        self.0.push(Remedy::Setting(setting.into()));
    }
}

impl Row {
    /// Row without a remedy.
    pub fn new(
        group: impl Into<String>,
        check: &'static str,
        verdict: Verdict,
        text: impl Into<String>,
    ) -> Self {
        Self { group: group.into(), check, verdict, text: text.into(), remedy: Remedies::default() }
    }

    /// The row with a command that mends what it says.
    #[must_use]
    pub fn with(mut self, command: impl Into<String>) -> Self {
        self.remedy.run(command);
        self
    }
}

/// Rows of a diagnosis, in the order in which they are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// First line of the text.
    pub title: String,
    /// Rows; those of a group follow one another.
    pub rows: Vec<Row>,
    /// Further members of the JSON form.
    pub figures: serde_json::Map<String, Value>,
}

impl Report {
    /// Prints the report, in colour on terminals unless the environment variable `NO_COLOR` is set, and
    /// returns 0, or [`EXIT_FAULTS`] if there are faults.
    #[must_use]
    pub fn print(&self, as_json: bool) -> ExitCode {
        let colours =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let text = if as_json { self.to_json() } else { self.to_text(colours) };
        let status = print_to_stdout(text.as_bytes());
        if status == ExitStatus::Success && self.count(Verdict::Fault) > 0 {
            return ExitCode::from(EXIT_FAULTS);
        }
        status.into()
    }

    /// Number of rows with a verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }

    /// Text of at most 80 columns; only words and commands that are longer exceed them. Control characters
    /// are replaced: texts can come from the network.
    #[must_use]
    pub fn to_text(&self, colours: bool) -> String {
        let mut out = String::new();
        if !self.title.is_empty() {
            wrap(&mut out, &printable(&self.title), 0);
        }
        let mut group = None;
        for row in &self.rows {
            if group != Some(&row.group) {
                group = Some(&row.group);
                let _ = writeln!(out, "\n{}", printable(&row.group));
            }
            let (on, off) = if colours { (row.verdict.colour(), "\x1b[0m") } else { ("", "") };
            let name = row.check.replace('_', " ");
            let _ = write!(
                out,
                "  {on}{:<width$}{off}{name:<rest$} ",
                row.verdict.name(),
                width = VERDICT - 2,
                rest = INDENT - VERDICT - 1
            );
            wrap(&mut out, &printable(&row.text), INDENT.max(VERDICT + name.len() + 1));
            for remedy in &row.remedy.0 {
                let (sign, text) = match remedy {
                    Remedy::Command(text) => ("$", text),
                    Remedy::Setting(text) => ("set", text),
                };
                let _ = writeln!(out, "{:VERDICT$}{sign} {}", "", printable(text));
            }
        }
        let [ok, advice, faults] = self.counts();
        let plural = if faults == 1 { "" } else { "s" };
        let _ = writeln!(out, "\n{faults} fault{plural}, {advice} advice, {ok} ok");
        out
    }

    /// JSON form: one object with `version`, the counts, `rows` and the further members.
    #[must_use]
    pub fn to_json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(json_row).collect();
        let [ok, advice, faults] = self.counts();
        let mut members = json!({
            "version": JSON_VERSION, "faults": faults, "advice": advice, "ok": ok, "rows": rows,
        });
        if let Some(members) = members.as_object_mut() {
            members.extend(self.figures.clone());
        }
        format!("{members:#}\n")
    }

    fn counts(&self) -> [usize; 3] {
        [Verdict::Ok, Verdict::Advice, Verdict::Fault].map(|verdict| self.count(verdict))
    }
}

fn json_row(row: &Row) -> Value {
    let remedy = |remedy: &Remedy| match remedy {
        Remedy::Command(text) => json!({ "command": text }),
        Remedy::Setting(text) => json!({ "setting": text }),
    };
    let remedy: Vec<Value> = row.remedy.0.iter().map(remedy).collect();
    json!({
        "group": row.group, "check": row.check, "verdict": row.verdict.name(), "text": row.text,
        "remedy": remedy,
    })
}

/// A text without control characters, which could change what a terminal shows.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that change the order or the place of others without being seen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Writes a text and the end of its line, wrapped, to where `indent` columns are taken. Further lines are
/// indented as far as the rows are.
fn wrap(out: &mut String, text: &str, indent: usize) {
    let mut column = indent;
    let further = indent.min(INDENT);
    let mut is_first = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if is_first {
            is_first = false;
        } else if column + 1 + length > WIDTH {
            let _ = write!(out, "\n{:further$}", "");
            column = further;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let long =
            "the receive buffer of 2000000 bytes is limited to 212992 bytes by the sysctl net.core.rmem_max";
        let rows = vec![
            Row::new("limits", "open_files", Verdict::Ok, "1048576"),
            Row::new("network", "receive_buffer", Verdict::Fault, long)
                .with("sysctl -w net.core.rmem_max=2000000"),
            Row::new("network", "ipv6", Verdict::Advice, "evil \x1b[2Jtext"),
        ];
        Report { title: "title".to_owned(), rows, figures: serde_json::Map::new() }
    }

    #[test]
    fn text_is_aligned_and_wrapped() {
        let expected = "\
title

limits
  ok     open files         1048576

network
  fault  receive buffer     the receive buffer of 2000000 bytes is limited to
                            212992 bytes by the sysctl net.core.rmem_max
         $ sysctl -w net.core.rmem_max=2000000
  advice ipv6               evil \u{fffd}[2Jtext

1 fault, 1 advice, 1 ok
";
        assert_eq!(report().to_text(false), expected);
        assert!(report().to_text(true).contains("\x1b[1;31mfault"));
    }

    #[test]
    fn json_has_counts_and_rows() {
        let mut report = report();
        report.figures.insert("aquatic".to_owned(), json!("0.1.0"));
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((&json["faults"], &json["advice"], &json["ok"]), (&json!(1), &json!(1), &json!(1)));
        assert_eq!(json["rows"][1]["remedy"][0]["command"], "sysctl -w net.core.rmem_max=2000000");
        assert_eq!((&json["version"], &json["aquatic"]), (&json!(1), &json!("0.1.0")));
    }
}
