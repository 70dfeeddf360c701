//! A disagreement as a dialogue: what was sent, what each side said, and where they part.

use std::fmt::Write as _;
use std::path::Path;

use crate::compare::Difference;
use crate::shown::class_text;

use crate::corpus::{Scenario, Step};

/// One step that both have played.
pub struct Played {
    pub index: usize,
    pub reason: Option<&'static str>,
    pub differences: Vec<Difference>,
}

/// How many steps before the wrong one are told.
const CONTEXT_STEPS: usize = 40;

/// The dialogue up to its first surprise.
pub fn dialogue(scenario: &Scenario, wrong: &Played, corpus: &Path) -> String {
    let mut out = format!("{}\n", scenario.name);
    let first = wrong.index.saturating_sub(CONTEXT_STEPS);
    if first > 0 {
        let _ = writeln!(out, "  ... {first} earlier steps agree");
    }
    for step in scenario.steps.iter().take(wrong.index).skip(first) {
        let _ = writeln!(out, "{}", heard(step));
        if let Some(entry) = step.kernel.entries.last() {
            let _ = writeln!(out, "             {entry}");
        }
    }
    if let Some(step) = scenario.steps.get(wrong.index) {
        let _ = writeln!(out, "{}", heard(step));
        let _ = writeln!(out, "             {}", hex(&step.bytes));
        if !step.reason.is_empty() {
            let _ = writeln!(out, "             the kernel says: {}", step.reason);
        }
        if let Some(reason) = wrong.reason {
            let _ = writeln!(out, "             the tracker says: {reason}");
        }
    }
    for difference in &wrong.differences {
        let what = format!("{} {}", difference.place, difference.field);
        let _ = writeln!(out, "    {:<24} want {}", what.trim(), difference.kernel);
        let _ = writeln!(out, "    {:<24} got  {}      <- here", "", difference.ours);
    }
    let _ = writeln!(
        out,
        "    replay: CONFORMANCE_CORPUS={} CONFORMANCE_ONLY={} cargo test --release --test conformance",
        corpus.display(),
        scenario.name
    );
    out
}

fn heard(step: &Step) -> String {
    let class = class_text(step.kernel.class, step.kernel.direction);
    format!("  {:8.3} {} {:<40} {}, {class}", step.at, step.side, step.note, step.fate)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
