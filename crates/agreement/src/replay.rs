//! Plays a scenario to the tracker by the scenario's own clock and finds where the two part.

use std::time::{Duration, Instant};

use crate::compare::{Slack, agree, differences};
use crate::play::Player;
use crate::shown::Shown;
use conntrack::tick::Tick;
use conntrack::wire::Checksum;

use crate::corpus::{Scenario, Step};
use crate::report::Played;
use crate::rules::{self, Rule};

/// Every scenario starts here: 20 s before the low 32 bits of the tick turn over, so that clocks that pass
/// through zero are met in all of the timed ones.
const START: u64 = (1 << 32) - 20 * 250;

/// What came of one scenario.
pub struct Result {
    /// Steps that differ.
    pub disagreements: usize,
    pub first: Option<Played>,
    /// Rules that touched it, each once.
    pub rules: Vec<Rule>,
    /// Time spent in the tracker and in showing what it did.
    pub busy: Duration,
}

/// Plays one scenario.
pub fn play(player: &mut Player, scenario: &Scenario) -> Result {
    let mut result = Result { disagreements: 0, first: None, rules: Vec::new(), busy: Duration::ZERO };
    if scenario.late {
        result.rules.push(Rule::Late);
        return result;
    }
    let slack = if scenario.is_timed() { Slack::TIMED } else { Slack::NONE };
    let mut ours = Shown::default();
    player.start(&scenario.settings);
    for (index, step) in scenario.steps.iter().enumerate() {
        let started = Instant::now();
        let reason = hear(player, step, &mut ours);
        result.busy += started.elapsed();
        let plain = !scenario.helpers && step.sent_back.is_empty();
        if plain && agree(&step.kernel, &ours, slack) && rules::fate(step) == crate::play::Fate::Forwarded {
            continue;
        }
        let mut kernel = step.kernel.clone();
        for rule in rules::apply(scenario, step, &mut kernel, &mut ours) {
            if !result.rules.contains(&rule) {
                result.rules.push(rule);
            }
        }
        let found = differences(&kernel, &ours, slack);
        if !found.is_empty() {
            result.disagreements += 1;
            if result.first.is_none() {
                result.first = Some(Played { index, reason, differences: found });
            }
        }
    }
    result
}

fn hear(player: &mut Player, step: &Step, ours: &mut Shown) -> Option<&'static str> {
    let now = Tick(START + Tick::from_millis((step.at * 1000.0).round() as u64).0);
    if step.side == '-' {
        player.look(now, ours);
        return None;
    }
    player.packet(now, &step.bytes, Checksum::Unknown, rules::fate(step), ours);
    let reason = player.reason();
    for answer in &step.sent_back {
        let mut behind = Shown::default();
        let bytes = rules::on_the_wire(answer);
        player.packet(now, &bytes, Checksum::Good, crate::play::Fate::Forwarded, &mut behind);
        ours.events.append(&mut behind.events);
        ours.entries = behind.entries;
    }
    reason
}
