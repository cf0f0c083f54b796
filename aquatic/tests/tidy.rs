//! House rules that no compiler knows: sizes, where unsafe code may be, and which member may use which.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Longest source file in lines. A longer one holds more than one thing.
const MAX_LINES: usize = 700;

/// Maximum width of a line with nothing but a comment, in characters. rustfmt keeps code within it, not
/// comments.
const MAX_COMMENT_WIDTH: usize = 110;

/// Shortest description at the top of a crate, in lines: what belongs in it and what does not.
const MIN_CRATE_DOC_LINES: usize = 2;

/// Which members each member may use: those below it. Protocol codecs and the store know nothing of the
/// tracker around them, and nothing knows the services but the program.
const ARROWS: [(&str, &[&str]); 24] = [
    (
        "aquatic",
        &[
            "aquatic_acme",
            "aquatic_cli_helpers",
            "aquatic_cluster",
            "aquatic_common",
            "aquatic_doctor",
            "aquatic_http",
            "aquatic_metrics",
            "aquatic_net",
            "aquatic_probe",
            "aquatic_runtime",
            "aquatic_status",
            "aquatic_tracker",
            "aquatic_udp",
            "aquatic_web",
            "aquatic_ws",
            // For the tests, which speak to the program as clients do, and simulate its cores.
            "aquatic_http_protocol",
            "aquatic_metrics",
            "aquatic_swarm",
            "aquatic_udp_protocol",
            "aquatic_ws_protocol",
        ],
    ),
    (
        "aquatic_udp",
        &[
            "aquatic_common",
            "aquatic_metrics",
            "aquatic_net",
            "aquatic_runtime",
            "aquatic_swarm",
            "aquatic_tracker",
            "aquatic_udp_protocol",
        ],
    ),
    (
        "aquatic_http",
        &[
            "aquatic_common",
            "aquatic_http_protocol",
            "aquatic_metrics",
            "aquatic_net",
            "aquatic_swarm",
            "aquatic_tracker",
            "aquatic_web",
        ],
    ),
    (
        "aquatic_ws",
        &[
            "aquatic_common",
            // A WebSocket begins as a request of HTTP.
            "aquatic_http_protocol",
            "aquatic_metrics",
            "aquatic_net",
            "aquatic_runtime",
            "aquatic_tracker",
            "aquatic_web",
            "aquatic_ws_protocol",
        ],
    ),
    (
        "aquatic_status",
        &[
            "aquatic_common",
            "aquatic_http_protocol",
            "aquatic_metrics",
            "aquatic_net",
            "aquatic_runtime",
            "aquatic_web",
        ],
    ),
    (
        "aquatic_acme",
        &[
            "aquatic_common",
            "aquatic_metrics",
            "aquatic_net",
            // Its blocking client of HTTPS.
            "aquatic_probe",
            "aquatic_runtime",
            "aquatic_web",
        ],
    ),
    (
        "aquatic_web",
        &["aquatic_common", "aquatic_http_protocol", "aquatic_metrics", "aquatic_net", "aquatic_runtime"],
    ),
    (
        "aquatic_cluster",
        &[
            "aquatic_common",
            "aquatic_metrics",
            "aquatic_runtime",
            "aquatic_tracker",
            // For the simulation of a whole cluster.
            "aquatic_swarm",
        ],
    ),
    ("aquatic_net", &["aquatic_common", "aquatic_metrics", "aquatic_runtime"]),
    ("aquatic_tracker", &["aquatic_common", "aquatic_metrics", "aquatic_runtime", "aquatic_swarm"]),
    ("aquatic_runtime", &["aquatic_common", "aquatic_metrics"]),
    ("aquatic_metrics", &["aquatic_common"]),
    ("aquatic_swarm", &["aquatic_common"]),
    ("aquatic_udp_protocol", &["aquatic_common"]),
    ("aquatic_http_protocol", &["aquatic_common"]),
    ("aquatic_ws_protocol", &["aquatic_common"]),
    ("aquatic_cli_helpers", &["aquatic_common"]),
    ("aquatic_doctor", &["aquatic_cli_helpers", "aquatic_common", "aquatic_net", "aquatic_runtime"]),
    (
        "aquatic_probe",
        &[
            "aquatic_cli_helpers",
            "aquatic_common",
            "aquatic_http_protocol",
            "aquatic_udp_protocol",
            "aquatic_ws_protocol",
        ],
    ),
    ("aquatic_load_engine", &["aquatic_common"]),
    (
        "aquatic_udp_load_test",
        &[
            "aquatic_cli_helpers",
            "aquatic_common",
            "aquatic_load_engine",
            "aquatic_net",
            "aquatic_udp_protocol",
        ],
    ),
    (
        "aquatic_http_load_test",
        &["aquatic_cli_helpers", "aquatic_common", "aquatic_http_protocol", "aquatic_load_engine"],
    ),
    (
        "aquatic_ws_load_test",
        &["aquatic_cli_helpers", "aquatic_common", "aquatic_load_engine", "aquatic_ws_protocol"],
    ),
    ("aquatic_common", &[]),
];

/// Crates that only one member may depend on.
const CONFINED: [(&str, &str); 1] = [("glommio", "aquatic_runtime")];

/// Words that a member's code may not contain, because what they name belongs to other members.
const FOREIGN_WORDS: [(&str, &[&str]); 3] = [
    ("aquatic_runtime", &["torrent", "info_hash", "InfoHash", "swarm", "announce", "Udp"]),
    ("aquatic_net", &["torrent", "info_hash", "InfoHash", "swarm", "scrape"]),
    ("aquatic_tracker", &["udp_protocol", "http_protocol", "ws_protocol", "aquatic_net", "aquatic_web"]),
];

/// What the pure members may not reach for: sockets, clocks, executors, the log.
const IMPURE: [&str; 7] = ["glommio", "libc", "log", "mio", "polling", "socket2", "tokio"];
const PURE: [&str; 5] = [
    "aquatic_common",
    "aquatic_swarm",
    "aquatic_udp_protocol",
    "aquatic_http_protocol",
    "aquatic_ws_protocol",
];

/// Private metaphors that the glossary has replaced; see `docs/glossary.md`. Whole words, in code and
/// comments.
const RETIRED: [&str; 11] = [
    "vigil",
    "seat",
    "seats",
    "parcel",
    "parcels",
    "bell",
    "stranger",
    "strangers",
    "whom",
    "workplace",
    "exhibits",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn members() -> Vec<String> {
    let manifest: Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
}

/// Everything a member's manifest names as a dependency, of whatever kind and for whatever target.
fn dependencies(member: &str) -> BTreeSet<String> {
    let manifest: Table =
        fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap().parse().unwrap();
    let targets = manifest.get("target").and_then(|targets| targets.as_table()).into_iter().flatten();
    let tables = targets.filter_map(|(_, target)| target.as_table()).chain([&manifest]);
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let lists = tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    lists.flat_map(|list| list.keys().cloned()).collect()
}

/// The text of all Rust files of the members, by path below the root.
fn sources() -> BTreeMap<PathBuf, String> {
    let mut sources = BTreeMap::new();
    let mut directories: Vec<PathBuf> = members().iter().map(|member| root().join(member)).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.insert(path.strip_prefix(root()).unwrap().to_owned(), text);
            }
        }
    }
    assert!(sources.len() > members().len(), "the sources of all members are found");
    sources
}

fn assert_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn files_are_short() {
    let long = sources().into_iter().map(|(path, text)| (path.display().to_string(), text.lines().count()));
    let offenders: Vec<String> = long
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{path}: {lines}"))
        .collect();
    assert_none(&format!("files have at most {MAX_LINES} lines"), &offenders);
}

#[test]
fn comments_are_wrapped() {
    let mut offenders = Vec::new();
    for (path, text) in sources() {
        let mut in_code = false;
        for (index, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let comment = comment.trim_start_matches(['/', '!']).trim();
            in_code ^= comment.starts_with("```");
            // Code, tables and words as long as a line are not wrapped.
            let breakable = !in_code && !comment.starts_with('|') && comment.contains(' ');
            if breakable && line.chars().count() > MAX_COMMENT_WIDTH {
                offenders.push(format!("{}:{}", path.display(), index + 1));
            }
        }
    }
    let rule =
        format!("comments are wrapped at {MAX_COMMENT_WIDTH} columns, for example by scripts/wrap_comments");
    assert_none(&rule, &offenders);
}

#[test]
fn nothing_waits_to_be_fixed() {
    // Assembled, so that this line is not found.
    let marker = ["FIX", "ME"].concat();
    let offenders = lines_where(|_, line| line.contains(&marker));
    assert_none("what is known to be broken is mended or listed in TODO.md", &offenders);
}

#[test]
fn crates_say_what_belongs_in_them() {
    let mut offenders = Vec::new();
    for member in members() {
        let source = root().join(&member).join("src");
        let path =
            [source.join("lib.rs"), source.join("main.rs")].into_iter().find(|path| path.exists()).unwrap();
        let text = fs::read_to_string(path).unwrap();
        if text.lines().take_while(|line| line.starts_with("//!")).count() < MIN_CRATE_DOC_LINES {
            offenders.push(member);
        }
    }
    assert_none("each crate begins with a paragraph about what belongs in it and what does not", &offenders);
}

#[test]
fn unsafe_code_is_in_modules_called_sys() {
    // Assembled, so that these lines are not found.
    let word = ["un", "safe"].concat();
    let code = ["{", "fn", "impl", "extern", "trait"].map(|after| format!("{word} {after}"));
    let lint = format!("allow({word}_code");
    let offenders = lines_where(|path, line| {
        let code_line = line.split("//").next().unwrap_or_default();
        let found = code.iter().any(|code| code_line.contains(code)) || code_line.contains(&lint);
        found && !in_module_sys(path)
    });
    assert_none("unsafe code lives in sys.rs or below sys/", &offenders);
}

fn in_module_sys(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "sys")
        || path.components().any(|part| part.as_os_str() == "sys")
}

#[test]
fn own_crates_are_not_imported_wholesale() {
    let offenders = lines_where(|_, line| {
        let line = line.trim_start().trim_start_matches("pub ");
        (line.starts_with("use aquatic") || line.starts_with("use crate")) && line.contains("::*")
    });
    assert_none("imports of own crates name what they import", &offenders);
}

#[test]
fn retired_words_stay_retired() {
    let offenders = lines_where(|path, line| {
        let is_source = path.components().any(|part| part.as_os_str() == "src");
        let words = line.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
        is_source && words.into_iter().any(|word| RETIRED.contains(&word.as_str()))
    });
    assert_none("the glossary has other words for these", &offenders);
}

fn lines_where(offends: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut offenders = Vec::new();
    for (path, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            if offends(&path, line) {
                offenders.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    offenders
}

#[test]
fn arrows_point_down() {
    let members = members();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(member, _)| *member).collect();
    assert_eq!(
        members.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        known,
        "each member has its arrows"
    );
    let mut offenders = Vec::new();
    for (member, allowed) in ARROWS {
        for dependency in dependencies(member) {
            if known.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                offenders.push(format!("{member} -> {dependency}"));
            }
        }
    }
    assert_none("members use only those below them", &offenders);
}

/// Whether a file holds tests only.
fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
        || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn members_speak_of_their_own_matters_only() {
    let offenders = lines_where(|path, line| {
        // Tests may show what the steering program makes of a packet.
        if path.starts_with("aquatic_net/src/udp") && is_test(path) {
            return false;
        }
        let code = line.split("//").next().unwrap_or_default();
        FOREIGN_WORDS.iter().any(|(member, words)| {
            path.starts_with(Path::new(member).join("src")) && words.iter().any(|word| code.contains(word))
        })
    });
    assert_none("what belongs to other members is not named", &offenders);
}

#[test]
fn the_executor_is_confined_and_pure_members_are_pure() {
    let mut offenders = Vec::new();
    for member in members() {
        let dependencies = dependencies(&member);
        let escaped = CONFINED.iter().filter(|(name, home)| *home != member && dependencies.contains(*name));
        offenders.extend(escaped.map(|(name, home)| format!("{member} -> {name}, which belongs to {home}")));
        if PURE.contains(&member.as_str()) {
            let impure = IMPURE.iter().filter(|name| dependencies.contains(**name));
            offenders.extend(impure.map(|name| format!("{member} -> {name}, although it is pure")));
        }
    }
    assert_none("what touches the system stays where it belongs", &offenders);
}
