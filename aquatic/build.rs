//! Tells the program what it is built from: commit, features and target.
//!
//! A working tree changes without a commit and gets commits without a change, so a build there names none,
//! and committing rebuilds nothing. The commit is known where the sources cannot change: in `AQUATIC_COMMIT`,
//! which `scripts/package` sets, in an archive that git has made, and in cargo's checkout for `cargo install
//! --git`. Nothing here needs git.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// File that git replaces the text of as it makes an archive (`.gitattributes`).
const ARCHIVED: &str = "COMMIT";

/// Environment variable with the commit.
const VARIABLE: &str = "AQUATIC_COMMIT";

/// The part of the path of cargo's own checkouts that shows that they are.
const CHECKOUTS: &str = "/git/checkouts/";

#[allow(clippy::print_stdout, reason = "cargo reads what a build script prints")]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={ARCHIVED}");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let commit = commit().unwrap_or_else(|| "unknown, built in a working tree".to_owned());
    println!("cargo::rustc-env=AQUATIC_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=AQUATIC_BUILD_FEATURES={}", features());
    println!("cargo::rustc-env=AQUATIC_BUILD_TARGET={}", env::var("TARGET").unwrap_or_default());
}

fn commit() -> Option<String> {
    let package = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let given = || env::var(VARIABLE).ok();
    let archived = || fs::read_to_string(Path::new(&package).join(ARCHIVED)).ok();
    let checkout = || {
        let output = Command::new("git").args(["-C", &package, "rev-parse", "HEAD"]).output();
        let output = output.ok().filter(|_| package.contains(CHECKOUTS))?;
        String::from_utf8(output.stdout).ok()
    };
    let sources: [&dyn Fn() -> Option<String>; 3] = [&given, &archived, &checkout];
    sources
        .iter()
        .filter_map(|source| source())
        .map(|text| text.trim().to_owned())
        .find(|text| is_commit(text))
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 7..=64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn features() -> String {
    let names =
        env::vars().filter_map(|(name, _)| name.strip_prefix("CARGO_FEATURE_").map(str::to_lowercase));
    let names: Vec<String> =
        names.filter(|name| name != "default").map(|name| name.replace('_', "-")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
