//! Finds what the program embeds and nobody commits: the page's chart library, and which commit this is. Says how to get
//! the library where it is missing.

use std::path::Path;
use std::process::{Command, ExitCode};

/// As the page's routes embed them.
const PARTS: [&str; 3] = ["dist/uPlot.iife.min.js", "dist/uPlot.min.css", "LICENSE"];

fn main() -> ExitCode {
    let folder = Path::new("web/node_modules/uplot");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=web/package.json");
    println!("cargo::rerun-if-changed=web/node_modules/uplot/package.json");
    println!("cargo::rustc-env=DPDK_CONNTRACK_REVISION={}", revision().as_deref().unwrap_or("unknown"));
    match found(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            println!(
                "cargo::error={what}: run `scripts/setup`, or only `npm ci --prefix web`, then build again"
            );
            ExitCode::FAILURE
        }
    }
}

/// The version that `web/package.json` asks for is there, whole. npm has compared it with its digest in the lock file.
fn found(folder: &Path) -> Result<(), String> {
    let manifest = "web/package.json";
    let wanted = std::fs::read_to_string(manifest).map_err(|error| format!("{manifest}: {error}"))?;
    let wanted = value(&wanted, "uplot").ok_or_else(|| format!("{manifest} names no version of uplot"))?;
    let there = std::fs::read_to_string(folder.join("package.json")).unwrap_or_default();
    match value(&there, "version") {
        Some(version) if version == wanted => {}
        Some(version) => {
            return Err(format!("the page's chart library is uPlot {version}, and {wanted} is wanted"));
        }
        None => return Err(format!("the page's chart library, uPlot {wanted}, is not there")),
    }
    match PARTS.iter().find(|part| !folder.join(part).is_file()) {
        Some(part) => Err(format!("the page's chart library lacks {part}")),
        None => Ok(()),
    }
}

/// The commit that is checked out. A debug build is of whatever lies in the folder and says nothing: it need not be made
/// anew after each commit. Nor is anything known where there is no git, or where the sources lie within another's work tree.
fn revision() -> Option<String> {
    if std::env::var("PROFILE").ok()? != "release" {
        return None;
    }
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    // The log of HEAD grows whenever another commit is checked out or made. A file that is not there would have cargo build
    // each time.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).is_file() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// What git says, if it is there and has something to say.
fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The text that a JSON object has under `key`; npm writes one pair on a line.
fn value(json: &str, key: &str) -> Option<String> {
    let line = json.lines().find(|line| line.trim_start().starts_with(&format!("\"{key}\":")))?;
    line.split('"').nth(3).map(str::to_owned)
}
