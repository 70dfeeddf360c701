//! Replays recorded scenarios to the tracker and compares everything it shows with what the kernel showed.
//!
//!     cargo test --release --test conformance
//!
//! `CONFORMANCE_CORPUS=DIR` reads another folder than `tests/conformance/corpus`; `CONFORMANCE_ONLY=PREFIX` plays only
//! scenarios whose name begins so; `CONFORMANCE_SHOW=N` prints N disagreements instead of 5; `CONFORMANCE_WORKERS=1,2,4`
//! plays each with so many trackers that share the flows, packets entering at any of them; `2e` is two of which each has
//! sources of its own, and puts their datagrams together itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agreement::corpus::{self, Scenario};
use agreement::play::{Player, SCENARIO_FLOWS};
use agreement::rules::Rule;
use agreement::{replay, report};

/// Lines that go to a thread at once.
const BATCH_LINES: usize = 64;
const SHOW_DEFAULT: usize = 5;

const WORKERS_DEFAULT: &str = "1,2,4,2e";

/// A batch of lines: the file's index, and each line with its number.
type Batch = (usize, Vec<(usize, String)>);

/// So many trackers, and where fragments meet among them.
#[derive(Clone, Copy)]
struct Workers {
    count: usize,
    at_entry: bool,
}

impl Workers {
    fn parse(word: &str) -> Option<Self> {
        let (count, at_entry) = word.strip_suffix('e').map_or((word, false), |count| (count, true));
        let count = count.parse().ok().filter(|count| (1..=64).contains(count))?;
        Some(Self { count, at_entry })
    }

    fn player(self) -> Player {
        let player = Player::with_workers(SCENARIO_FLOWS, self.count);
        if self.at_entry { player.meeting_at_entry() } else { player }
    }
}

impl std::fmt::Display for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.count, if self.at_entry { "e" } else { "" })
    }
}

/// What one thread, or all, found.
#[derive(Default)]
struct Totals {
    scenarios: usize,
    packets: usize,
    disagreements: usize,
    rules: BTreeMap<Rule, usize>,
    touched: usize,
    handed_off: u64,
    busy: Duration,
    wrong: Vec<Wrong>,
    broken: Vec<String>,
}

/// A scenario that disagrees: where it is kept, and its kind of difference.
struct Wrong {
    place: (usize, usize),
    kind: String,
    name: String,
    text: String,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.scenarios += other.scenarios;
        self.packets += other.packets;
        self.disagreements += other.disagreements;
        self.touched += other.touched;
        self.handed_off += other.handed_off;
        self.busy += other.busy;
        other.rules.into_iter().for_each(|(rule, count)| *self.rules.entry(rule).or_default() += count);
        self.wrong.extend(other.wrong);
        self.broken.extend(other.broken);
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let folder = std::env::var_os("CONFORMANCE_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/corpus"),
        PathBuf::from,
    );
    let only = std::env::var("CONFORMANCE_ONLY").unwrap_or_default();
    let show = match std::env::var("CONFORMANCE_SHOW") {
        Ok(text) => text.parse().map_err(|_| format!("CONFORMANCE_SHOW={text} is no number"))?,
        Err(_) => SHOW_DEFAULT,
    };
    let workers = std::env::var("CONFORMANCE_WORKERS").unwrap_or_else(|_| WORKERS_DEFAULT.to_owned());
    let workers: Vec<Workers> =
        workers.split(',').map(Workers::parse).collect::<Option<_>>().ok_or_else(|| {
            format!("CONFORMANCE_WORKERS={workers} is no list of numbers from 1 to 64, some with an e")
        })?;
    let files = corpus::files(&folder)?;
    let started = Instant::now();
    let mut totals = play_all(&files, &folder, &only, &workers)?;
    let wall = started.elapsed();

    totals.wrong.sort_by_key(|wrong| wrong.place);
    for wrong in totals.wrong.iter().take(show) {
        println!("{}", wrong.text);
    }
    print_kinds(&totals.wrong);
    for error in &totals.broken {
        eprintln!("conformance: {error}");
    }
    if totals.scenarios == 0 && totals.broken.is_empty() {
        return Err(format!("no scenario in {} begins with {only:?}", folder.display()));
    }
    println!("what a bump in the wire cannot share with a router:");
    for rule in Rule::ALL {
        let count = totals.rules.get(&rule).copied().unwrap_or(0);
        println!("  {count:5} scenarios: {}", rule.explain());
    }
    println!(
        "  {} of {} scenarios touched ({:.2} %)",
        totals.touched,
        totals.scenarios,
        100.0 * totals.touched as f64 / totals.scenarios.max(1) as f64
    );
    let played: Vec<String> = workers.iter().map(Workers::to_string).collect();
    println!(
        "played with {} workers; {} packets were handed from one to another",
        played.join(", "),
        totals.handed_off
    );
    println!(
        "speed: {:.0} packets/s with reading and comparing, {:.0} packets/s per core in the tracker alone",
        totals.packets as f64 / wall.as_secs_f64(),
        totals.packets as f64 / totals.busy.as_secs_f64().max(1e-9)
    );
    println!(
        "conformance: {} scenarios, {} packets, {} disagreements",
        totals.scenarios, totals.packets, totals.disagreements
    );
    if !totals.broken.is_empty() {
        return Err(format!("{} scenarios could not be read; see above", totals.broken.len()));
    }
    Ok(totals.disagreements == 0)
}

fn play_all(files: &[PathBuf], folder: &Path, only: &str, workers: &[Workers]) -> Result<Totals, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (send, receive) = sync_channel::<Batch>(2 * threads);
    // The threads alone hold the receiving end, so that reading stops when all of them have panicked.
    let receive = Arc::new(Mutex::new(receive));
    std::thread::scope(|scope| {
        let playing: Vec<_> = (0..threads)
            .map(|_| {
                let receive = Arc::clone(&receive);
                scope.spawn(move || play_batches(&receive, files, folder, only, workers))
            })
            .collect();
        drop(receive);
        let mut reading = Ok(());
        for (index, path) in files.iter().enumerate() {
            let mut batch = Vec::with_capacity(BATCH_LINES);
            reading = corpus::lines(path, |number, line| {
                batch.push((number, line));
                if batch.len() == BATCH_LINES {
                    // A thread that panicked has closed its end; its panic is raised below.
                    let _ = send.send((index, std::mem::take(&mut batch)));
                }
            });
            let _ = send.send((index, batch));
            if reading.is_err() {
                break;
            }
        }
        drop(send);
        let mut totals = Totals::default();
        for thread in playing {
            match thread.join() {
                Ok(part) => totals.add(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        reading.map(|()| totals)
    })
}

fn play_batches(
    batches: &Mutex<Receiver<Batch>>,
    files: &[PathBuf],
    folder: &Path,
    only: &str,
    workers: &[Workers],
) -> Totals {
    let mut totals = Totals::default();
    let mut players: Vec<_> = workers.iter().map(|&workers| (workers, workers.player())).collect();
    loop {
        let next = batches.lock().expect("no thread panics while it waits").recv();
        let Ok((file, lines)) = next else {
            totals.handed_off = players.iter().map(|(_, player)| player.handed_off()).sum();
            return totals;
        };
        for (number, line) in lines {
            match Scenario::parse(&line) {
                Ok(scenario) if scenario.name.starts_with(only) => {
                    play_one(&mut totals, &mut players, &scenario, (file, number), folder);
                }
                Ok(_) => {}
                Err(error) => {
                    let path = files.get(file).map(|path| path.display().to_string()).unwrap_or_default();
                    totals.broken.push(format!("{path} line {number}: {error}"));
                }
            }
        }
    }
}

fn play_one(
    totals: &mut Totals,
    players: &mut [(Workers, Player)],
    scenario: &Scenario,
    place: (usize, usize),
    folder: &Path,
) {
    totals.scenarios += 1;
    let mut touched = Vec::new();
    for (workers, player) in players {
        let result = replay::play(player, scenario);
        totals.packets += scenario.packets();
        totals.disagreements += result.disagreements;
        totals.busy += result.busy;
        if let Some(first) = result.first {
            let kind = first.differences.first().map(|difference| match difference.field {
                "class" => format!("class: {} there, {} here", difference.kernel, difference.ours),
                field => field.to_owned(),
            });
            let with = if workers.count == 1 { String::new() } else { format!("with {workers} workers\n") };
            totals.wrong.push(Wrong {
                place,
                kind: kind.unwrap_or_default(),
                name: scenario.name.clone(),
                text: with + &report::dialogue(scenario, &first, folder),
            });
        }
        touched = result.rules;
    }
    totals.touched += usize::from(!touched.is_empty());
    for rule in touched {
        *totals.rules.entry(rule).or_default() += 1;
    }
}

/// First disagreements by kind, the most frequent first, each with a scenario to look at.
fn print_kinds(wrong: &[Wrong]) {
    let mut kinds: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for wrong in wrong {
        kinds.entry(&wrong.kind).or_insert((0, &wrong.name)).0 += 1;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    for (kind, (count, name)) in kinds {
        println!("{count:6} scenarios first differ in {kind}   e.g. {name}");
    }
}
