//! Asks the live kernel and the tracker the same random questions until somebody answers differently.

use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agreement::allowed::{self, KNOWN};
use agreement::duel::{Clock, Coverage, End, Lane, Next, Parting};
use agreement::kernel::{self, Kernel};
use agreement::program::{Program, Side, Step, describe, generate, generate_timed, timed_settings};
use agreement::shown::class_text;
use clap::Parser;

/// Compare the tracker with the running kernel on random packet programs. Needs root.
#[derive(Parser)]
#[command(name = "kernel-diff")]
struct Options {
    /// Stop after this many packets
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
    /// What the programs are made from; the same seed gives the same programs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this one program only
    #[arg(long)]
    only: Option<u64>,
    /// The program is one with gaps (with --only)
    #[arg(long, requires = "only")]
    timed: bool,
    /// Threads, each with a namespace of its own [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
    /// Stop after this many programs that disagree
    #[arg(long, default_value_t = 5)]
    stop_after: u64,
    /// Print what the programs without gaps have met: classes, reasons, and packets by state
    #[arg(long)]
    coverage: bool,
    /// Where programs that disagree are written
    #[arg(long, default_value = "target/kernel-diff")]
    keep: PathBuf,
}

/// Programs with gaps that wait side by side in one namespace; they share their settings.
const LANES: u64 = 48;
/// One program in this many has gaps.
const TIMED_SHARE: u64 = 80;
/// A namespace's whole table is deleted now and then, in case an entry was overlooked.
const FLUSH_EVERY: u64 = 500;
/// How often a program that the machine was too slow for is tried again.
const TRIES: u32 = 5;

#[derive(Default)]
struct Totals {
    packets: AtomicU64,
    timed_packets: AtomicU64,
    programs: AtomicU64,
    timed_programs: AtomicU64,
    late: AtomicU64,
    unrepeated: AtomicU64,
    allowed: [AtomicU64; KNOWN.len()],
    disagreements: AtomicU64,
    stop: AtomicBool,
    error: Mutex<Option<String>>,
    coverage: Mutex<Coverage>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let release = kernel::release();
    println!("kernel {release}, seed {}", options.seed);
    let totals = Totals::default();
    let started = Instant::now();
    match options.only {
        Some(index) => run_only(&options, &totals, index),
        None => run_all(&options, &totals, started),
    }
    let seconds = started.elapsed().as_secs_f64();
    if let Some(error) = totals.error.lock().expect("no thread panics while it holds this").take() {
        eprintln!("kernel-diff: {error}");
        return ExitCode::from(2);
    }
    for (what, number) in totals.coverage.lock().expect("no thread panics while it holds this").iter() {
        println!("{number:9} {what}");
    }
    let (packets, timed) = (count(&totals.packets), count(&totals.timed_packets));
    println!(
        "{} programs without gaps and {} with; {} given up because the machine was late; {} disagreements did not \
         come again; {:.0} packets/s",
        count(&totals.programs),
        count(&totals.timed_programs),
        count(&totals.late),
        count(&totals.unrepeated),
        packets as f64 / seconds
    );
    let allowed: Vec<_> = KNOWN
        .iter()
        .zip(&totals.allowed)
        .filter(|(_, number)| count(number) > 0)
        .map(|(known, number)| format!("{} {}", count(number), known.name))
        .collect();
    let allowed = if allowed.is_empty() { "none".into() } else { allowed.join(", ") };
    println!("differences that docs/kernels.md allows for {release}: {allowed}");
    println!(
        "kernel-diff: {packets} packets ({timed} in programs with gaps), {} disagreements, kernel {release}, seed {}",
        count(&totals.disagreements),
        options.seed
    );
    if count(&totals.disagreements) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(options: &Options, totals: &Totals, started: Instant) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores).max(1);
    let next = AtomicU64::new(0);
    // The next batch of programs with gaps.
    let batches = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| keep_error(totals, || untimed_worker(options, totals, &next)));
        }
        for _ in 0..(threads * 2) {
            scope.spawn(|| keep_error(totals, || timed_worker(options, totals, &batches)));
        }
        let mut told = 0;
        while !totals.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            let seconds = started.elapsed().as_secs();
            if seconds >= told + 10 {
                told = seconds;
                let packets = count(&totals.packets);
                eprintln!(
                    "{seconds} s: {packets} packets, {} programs and {} with gaps, {} disagreements",
                    count(&totals.programs),
                    count(&totals.timed_programs),
                    count(&totals.disagreements)
                );
            }
            let enough = count(&totals.packets) >= options.packets;
            let share = count(&totals.timed_programs) * 100 >= count(&totals.programs);
            let (late, timed) = (count(&totals.late), count(&totals.timed_programs));
            if enough && share {
                totals.stop.store(true, Ordering::Relaxed);
            } else if late > 10 * timed + 20 * LANES {
                keep_error(totals, || {
                    Err(format!(
                        "this machine stops too often: {late} programs were given up, {timed} with gaps were not; run \
                         it when less else runs"
                    ))
                });
            }
        }
    });
}

fn keep_error(totals: &Totals, work: impl FnOnce() -> Result<(), String>) {
    if let Err(error) = work() {
        totals.error.lock().expect("no thread panics while it holds this").get_or_insert(error);
        totals.stop.store(true, Ordering::Relaxed);
    }
}

fn run_only(options: &Options, totals: &Totals, index: u64) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            keep_error(totals, || {
                let mut kernel = Kernel::enter()?;
                let mut lane = Lane::new();
                let program = if options.timed {
                    generate_timed(options.seed, index, &timed_settings(options.seed, index / LANES))
                } else {
                    generate(options.seed, index)
                };
                let end = run_again(&mut kernel, &mut lane, &program)?;
                add(totals, &program, &end, options.timed);
                match end {
                    End::Parted(parting) => {
                        tell(options, totals, &mut kernel, &mut lane, program, *parting, options.timed)?;
                    }
                    End::Late => {
                        return Err("the machine was too late for this program: run it again".into());
                    }
                    End::Agreed => print!("{}", dialogue(&program, None)),
                }
                Ok(())
            })
        });
    });
}

fn untimed_worker(options: &Options, totals: &Totals, next: &AtomicU64) -> Result<(), String> {
    let mut kernel = Kernel::enter()?;
    let mut lane = Lane::new();
    let mut done = 0;
    if options.coverage {
        lane.coverage();
    }
    while !totals.stop.load(Ordering::Relaxed) {
        let programs = count(&totals.programs);
        let enough = count(&totals.packets) >= options.packets;
        // The programs with gaps set the pace, so that their share holds at any moment.
        if enough || programs > (count(&totals.timed_programs) + 4 * LANES) * TIMED_SHARE {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let program = generate(options.seed, next.fetch_add(1, Ordering::Relaxed));
        let end = run_again(&mut kernel, &mut lane, &program)?;
        add(totals, &program, &end, false);
        if let End::Parted(parting) = end {
            tell(options, totals, &mut kernel, &mut lane, program, *parting, false)?;
        }
        done += 1;
        if done % FLUSH_EVERY == 0 {
            kernel.flush()?;
            kernel.drain();
        }
    }
    if options.coverage {
        totals.coverage.lock().expect("no thread panics while it holds this").add(lane.coverage());
    }
    Ok(())
}

fn count(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// Counts a program, and the packets of one that was compared.
fn add(totals: &Totals, program: &Program, end: &End, timed: bool) {
    if matches!(end, End::Late) {
        totals.late.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let packets = program.packets() as u64;
    totals.packets.fetch_add(packets, Ordering::Relaxed);
    if timed {
        totals.timed_packets.fetch_add(packets, Ordering::Relaxed);
        totals.timed_programs.fetch_add(1, Ordering::Relaxed);
    } else {
        totals.programs.fetch_add(1, Ordering::Relaxed);
    }
}

fn run_again(kernel: &mut Kernel, lane: &mut Lane, program: &Program) -> Result<End, String> {
    let timed = program.steps.iter().any(|step| matches!(step, Step::Wait(_)));
    let mut end = End::Late;
    for _ in 0..TRIES {
        end = if timed { run_timed(kernel, lane, program)? } else { lane.run(kernel, program.clone())? };
        if !matches!(end, End::Late) {
            break;
        }
    }
    Ok(end)
}

/// Runs one program with gaps by itself.
fn run_timed(kernel: &mut Kernel, lane: &mut Lane, program: &Program) -> Result<End, String> {
    kernel.configure(&program.settings)?;
    lane.start(program.clone())?;
    let clock = Clock::start();
    let mut due = Duration::ZERO;
    let end = loop {
        match lane.burst(kernel, clock)? {
            Next::Gap(gap) => due += gap,
            Next::NotNow(moment) => due = clock.elapsed() + moment,
            Next::Over(end) => break end,
        }
        std::thread::sleep(due.saturating_sub(clock.elapsed()));
    };
    lane.leave(kernel)?;
    Ok(end)
}

/// Runs many programs with gaps side by side: while one waits, the others go on.
fn timed_worker(options: &Options, totals: &Totals, batches: &AtomicU64) -> Result<(), String> {
    let mut kernel = Kernel::enter()?;
    let mut lanes: Vec<Lane> = (0..LANES).map(|_| Lane::new()).collect();
    while !totals.stop.load(Ordering::Relaxed) {
        let batch = batches.fetch_add(1, Ordering::Relaxed);
        let settings = timed_settings(options.seed, batch);
        kernel.configure(&settings)?;
        let clock = Clock::start();
        let mut queue = BinaryHeap::new();
        for (at, lane) in lanes.iter_mut().enumerate() {
            lane.start(generate_timed(options.seed, batch * LANES + at as u64, &settings))?;
            queue.push(std::cmp::Reverse((Duration::from_millis(3 * at as u64), at)));
        }
        let mut parted = Vec::new();
        while let Some(std::cmp::Reverse((due, at))) = queue.pop() {
            if totals.stop.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(due.saturating_sub(clock.elapsed()));
            let Some(lane) = lanes.get_mut(at) else { continue };
            match lane.burst(&mut kernel, clock)? {
                Next::Gap(gap) => queue.push(std::cmp::Reverse((due + gap, at))),
                Next::NotNow(moment) => queue.push(std::cmp::Reverse((clock.elapsed() + moment, at))),
                Next::Over(end) => {
                    add(totals, lane.program(), &end, true);
                    if let End::Parted(parting) = end {
                        parted.push((lane.program().clone(), *parting));
                    }
                    lane.leave(&mut kernel)?;
                }
            }
        }
        kernel.flush()?;
        kernel.drain();
        if let Some(lane) = lanes.first_mut() {
            for (program, parting) in parted {
                tell(options, totals, &mut kernel, lane, program, parting, true)?;
            }
        }
    }
    Ok(())
}

/// Makes sure of a disagreement, shrinks it, and tells it.
fn tell(
    options: &Options,
    totals: &Totals,
    kernel: &mut Kernel,
    lane: &mut Lane,
    program: Program,
    parting: Parting,
    timed: bool,
) -> Result<(), String> {
    let release = kernel::release();
    let explained = program.steps.get(parting.step).zip(parting.differences.first());
    if let Some(known) = explained.and_then(|(step, first)| allowed::explains(&release, step, first)) {
        for (other, number) in KNOWN.iter().zip(&totals.allowed) {
            number.fetch_add(u64::from(other.name == known.name), Ordering::Relaxed);
        }
        return Ok(());
    }
    if totals.stop.load(Ordering::Relaxed) && count(&totals.disagreements) >= options.stop_after {
        return Ok(());
    }
    let replay = format!(
        "kernel-diff --seed {} --only {}{}",
        program.seed,
        program.index,
        if timed { " --timed" } else { "" }
    );
    let whole = program.clone();
    let End::Parted(again) = run_again(kernel, lane, &program)? else {
        totals.unrepeated.fetch_add(1, Ordering::Relaxed);
        println!("seen once, not again: {replay}\n{}", dialogue(&whole, Some(&parting)));
        return Ok(());
    };
    let found = totals.disagreements.fetch_add(1, Ordering::Relaxed) + 1;
    let (small, parting) = shrink(kernel, lane, program, *again, timed)?;
    let kept = keep(options, &small)?;
    println!("{replay}\n{}  kept as {}\n", dialogue(&small, Some(&parting)), kept.display());
    if found >= options.stop_after {
        totals.stop.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Leaves out whatever the disagreement does not need.
fn shrink(
    kernel: &mut Kernel,
    lane: &mut Lane,
    mut program: Program,
    mut parting: Parting,
    timed: bool,
) -> Result<(Program, Parting), String> {
    program.steps.truncate(parting.step + 1);
    // Each try of a program with gaps takes seconds.
    let mut tries = if timed { 25 } else { 400 };
    let mut at = 0;
    while at + 1 < program.steps.len() && tries > 0 {
        let mut smaller = program.clone();
        let removed = smaller.steps.remove(at);
        // Later bursts keep their place in time.
        let following = smaller.steps.iter_mut().skip(at).find(|step| matches!(step, Step::Wait(_)));
        if let (Step::Wait(gap), Some(Step::Wait(next))) = (removed, following) {
            *next += gap;
        }
        tries -= 1;
        if let End::Parted(still) = run_again(kernel, lane, &smaller)? {
            smaller.steps.truncate(still.step + 1);
            (program, parting) = (smaller, *still);
        } else {
            at += 1;
        }
    }
    let mut at = 0;
    while at < program.settings.len() && tries > 0 {
        let mut smaller = program.clone();
        smaller.settings.remove(at);
        tries -= 1;
        match run_again(kernel, lane, &smaller)? {
            End::Parted(still) if !timed => (program, parting) = (smaller, *still),
            _ => at += 1,
        }
    }
    Ok((program, parting))
}

fn dialogue(program: &Program, parting: Option<&Parting>) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "seed {} program {}, settings {:?}", program.seed, program.index, program.settings);
    let mut clock = 0;
    for (at, step) in program.steps.iter().enumerate() {
        match step {
            Step::Wait(ms) => clock += ms,
            Step::Set(name, value) => {
                let _ = writeln!(out, "  {:7.3} set {name} = {value}", f64::from(clock) / 1000.0);
            }
            Step::Packet { side, bytes, .. } => {
                let side = match side {
                    Side::A => "A>B",
                    Side::B => "B>A",
                };
                let _ =
                    writeln!(out, "  {:7.3} {side} {}", f64::from(clock) / 1000.0, describe::packet(bytes));
            }
        }
        let Some(parting) = parting.filter(|parting| parting.step == at) else { continue };
        if let Step::Packet { bytes, .. } = step {
            let _ = writeln!(out, "          {}", hex(bytes));
        }
        let _ = writeln!(out, "    kernel  {}", class_text(parting.kernel.class, parting.kernel.direction));
        let _ = writeln!(out, "    tracker {}", class_text(parting.ours.class, parting.ours.direction));
        if let Some(reason) = parting.reason {
            let _ = writeln!(out, "    the tracker says: {reason}");
        }
        for difference in &parting.differences {
            let what = format!("{} {}", difference.place, difference.field);
            let _ = writeln!(out, "    {:<24} want {}", what.trim(), difference.kernel);
            let _ = writeln!(out, "    {:<24} got  {}      <- here", "", difference.ours);
        }
        break;
    }
    out
}

/// Writes a program as a scenario that tests/oracle can record and tests/conformance can then replay.
fn keep(options: &Options, program: &Program) -> Result<PathBuf, String> {
    let path = options.keep.join(format!("seed{}-{}.jsonl", program.seed, program.index));
    let mut text = format!(
        "{{\"name\":\"kernel-diff/seed{}-{}\",\"kind\":\"kernel-diff\",\"settings\":{{\"sysctl\":{{",
        program.seed, program.index
    );
    for (at, (name, value)) in program.settings.iter().enumerate() {
        let again = program.settings.iter().skip(at + 1).any(|(other, _)| other == name);
        if !again {
            let _ = write!(text, "\"{name}\":{value},");
        }
    }
    if text.ends_with(',') {
        text.pop();
    }
    text += "}},\"packets\":[";
    let mut clock = 0;
    for step in &program.steps {
        match step {
            Step::Wait(ms) => clock += ms,
            // The scenario form has no such step; the settings at the end are near enough to look at it.
            Step::Set(..) => {}
            Step::Packet { side, bytes, .. } => {
                let seconds = f64::from(clock) / 1000.0;
                let note = describe::packet(bytes);
                let hex = hex(bytes);
                let _ = write!(
                    text,
                    "{{\"t\":{seconds},\"dir\":\"{side:?}\",\"hex\":\"{hex}\",\"note\":\"{note}\"}},"
                );
            }
        }
    }
    if text.ends_with(',') {
        text.pop();
    }
    text += "]}\n";
    std::fs::create_dir_all(&options.keep)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
