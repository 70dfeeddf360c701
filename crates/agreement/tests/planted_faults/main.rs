//! Breaks the tracker's rules one at a time and fails where nothing notices: a rule that can be broken unseen is a hole in
//! the suite. The recorded scenarios are asked first, then the tracker's own dialogues.
//!
//!     cargo test --release -p agreement --features planted-faults --test planted_faults
//!
//! `PLANTED_ONLY=PREFIX` plants only faults whose name begins so. With `PLANTED_FAULT=NAME` the dialogues run with that fault.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use agreement::corpus::{self, Scenario};
use agreement::play::{Player, SCENARIO_FLOWS};
use agreement::replay;
use conntrack::fault::{Fault, plant};
// What the dialogues, which live beside the tracker, know as their own crate's.
use conntrack::{event, fragment, key, policy, table, tick, track, tracker, wire, zone};

#[path = "../../../conntrack/src/tracker/tests/mod.rs"]
mod dialogues;

/// Who noticed.
enum Catch {
    Recorded(String),
    Dialogue(String),
}

#[test]
fn every_planted_fault_is_caught() {
    let started = Instant::now();
    let scenarios = recorded();
    let mut player = Player::new(SCENARIO_FLOWS);
    plant(None);
    assert_eq!(first_disagreement(&mut player, &scenarios), None, "with every rule in place");
    assert_eq!(first_failed_dialogue(None), None, "with every rule in place");

    let only = std::env::var("PLANTED_ONLY").unwrap_or_default();
    let faults = || Fault::ALL.iter().filter(|fault| format!("{fault:?}").starts_with(&only));
    let (mut by_record, mut by_dialogue, mut survivors) = (0, 0, Vec::new());
    for &fault in faults() {
        match catch(&mut player, &scenarios, fault) {
            Some(Catch::Recorded(name)) => {
                by_record += 1;
                say(&format!("  {fault:?}: recorded {name}"));
            }
            Some(Catch::Dialogue(name)) => {
                by_dialogue += 1;
                say(&format!("  {fault:?}: {name}"));
            }
            None => survivors.push(fault),
        }
    }
    for fault in &survivors {
        say(&format!("  {fault:?} SURVIVES: {}", fault.explain()));
    }
    let planted = faults().count();
    say(&format!("{by_record} caught by what Linux was recorded to do, {by_dialogue} by dialogues"));
    say(&format!("{:.0} s", started.elapsed().as_secs_f64()));
    say(&format!("planted faults: {planted} planted, {} caught", planted - survivors.len()));
    assert!(survivors.is_empty(), "nothing notices {survivors:?}; add the scenario that does");
}

fn catch(player: &mut Player, scenarios: &[Scenario], fault: Fault) -> Option<Catch> {
    plant(Some(fault));
    // A broken promise of the tracker's own ends in a panic: noticed as well, and the player starts afresh.
    let disagreement = catch_unwind(AssertUnwindSafe(|| first_disagreement(player, scenarios)));
    plant(None);
    match disagreement {
        Ok(Some(name)) => Some(Catch::Recorded(name)),
        Ok(None) => first_failed_dialogue(Some(fault)).map(Catch::Dialogue),
        Err(_) => {
            *player = Player::new(SCENARIO_FLOWS);
            Some(Catch::Recorded("panics".into()))
        }
    }
}

fn first_disagreement(player: &mut Player, scenarios: &[Scenario]) -> Option<String> {
    let differs = |scenario: &&Scenario| replay::play(player, scenario).disagreements > 0;
    scenarios.iter().find(differs).map(|scenario| scenario.name.clone())
}

/// The dialogues are this program's other tests, so the program runs itself again, with the fault in its environment.
fn first_failed_dialogue(fault: Option<Fault>) -> Option<String> {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["dialogues::", "--test-threads=1"]).env_remove("PLANTED_FAULT");
    if let Some(fault) = fault {
        command.env("PLANTED_FAULT", format!("{fault:?}"));
    }
    let output = command.output().expect("this program can be run again");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = said.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    match failed {
        Some(name) => Some(name.to_owned()),
        None if output.status.success() => None,
        None => Some(format!("dialogues end with {}", output.status)),
    }
}

/// Every recorded scenario.
fn recorded() -> Vec<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/corpus");
    let mut all = Vec::new();
    for file in corpus::files(&folder).expect("the corpus is part of the repository") {
        let mut read = |number, line: String| {
            let scenario = Scenario::parse(&line);
            all.push(scenario.unwrap_or_else(|error| panic!("{} line {number}: {error}", file.display())));
        };
        corpus::lines(&file, &mut read).expect("the corpus can be read");
    }
    all
}

/// Past the test harness, which keeps what passing tests print to itself.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("standard output is open");
}
