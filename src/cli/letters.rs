//! `conntrack`'s own letters: the same words in, the same bytes out, whatever the profile. For scripts and fingers that
//! know `conntrack`.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{ArgGroup, CommandFactory, Parser};
use conntrack::event::DestroyReason;

use super::client::Client;
use super::filter::{FilterWords, KindsWord, MarkWord};
use super::{Ask, Done, Failure, Voice, Words, edit, events, list, stats};
use crate::control::schema::{Change, Stats, WorkerStats};
use crate::filter::{Filter, MaskedMark};
use crate::format::{Output, OutputError};

/// `conntrack`'s letters, with its output to the byte. `dpdk-conntrack --help` shows everything else.
#[derive(Debug, Parser)]
#[command(
    name = "dpdk-conntrack",
    max_term_width = 110,
    override_usage = "dpdk-conntrack -L|-E|-C|-S|-D|-F|-U [OPTIONS]",
    group = ArgGroup::new("letter").required(true).args(["dump", "event", "count", "stats", "delete", "flush", "update"])
)]
struct Letters {
    /// List flows
    #[arg(short = 'L', long, alias = "list")]
    dump: bool,
    /// Follow events
    #[arg(short = 'E', long)]
    event: bool,
    /// Count flows
    #[arg(short = 'C', long)]
    count: bool,
    /// Counters, a line for each worker. What only a table that cores share, address translation and `conntrack -I` count
    /// in the kernel is 0 here: found, insert, insert_failed, search_restart, clash_resolve, chaintoolong
    #[arg(short = 'S', long)]
    stats: bool,
    /// Delete flows
    #[arg(short = 'D', long)]
    delete: bool,
    /// Delete every flow
    #[arg(short = 'F', long)]
    flush: bool,
    /// Change flows
    #[arg(short = 'U', long)]
    update: bool,
    /// The table; there is one
    #[arg(value_name = "TABLE", value_parser = ["conntrack"])]
    table: Option<String>,
    /// extended, id, timestamp, ktimestamp, labels, save, xml; several with commas between, or one after the other
    #[arg(short, long, value_name = "WORDS")]
    output: Vec<String>,
    /// With -U: the time left in seconds, until the flow's next packet sets it anew
    #[arg(short = 't', long, value_name = "SECONDS")]
    timeout: Option<u32>,
    #[command(flatten)]
    filter: FilterWords,
    /// The mark, perhaps under a mask: 5, 0x10/0xf0. With -U the new one
    #[arg(short = 'm', long, value_name = "MARK[/MASK]", help_heading = "Which flows")]
    mark: Option<MaskedMark>,
    #[command(flatten)]
    kinds: KindsWord,
    #[command(flatten)]
    ask: Ask,
}

/// What `-o` says; conntrack takes words that it does not know for wrong ones (2), and words that do not go together for a
/// failure (1).
fn output(words: &str) -> Result<Output, Failure> {
    Output::parse_letters(words).map_err(|error| match error {
        OutputError::UnknownLetter(_) => Failure::Usage(error.to_string()),
        _ => Failure::Failed(error.to_string()),
    })
}

/// Whether these arguments begin as `conntrack`'s do: with a letter or its long form, not with one of our subcommands.
pub(super) fn are_meant(arguments: &[OsString]) -> bool {
    let first = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&first)
}

/// The words by themselves, for their manual page.
pub(super) fn words() -> clap::Command {
    Letters::command().name("dpdk-conntrack-letters")
}

/// Words of `conntrack` that mean nothing here, and why.
const MISSING: [(&[&str], &str); 8] = [
    (&["-I", "--create", "-A", "--add", "-R", "--load-file"], "connections begin by packets only"),
    (
        &["-G", "--get"],
        "list with the connection's addresses and ports instead: -L -p tcp -s … -d … --sport … --dport …",
    ),
    (&["-n", "--src-nat", "-g", "--dst-nat", "-j", "--any-nat"], "there is no address translation"),
    (&["-l", "--label", "--label-add", "--label-del"], "connections have no labels: use marks, -m"),
    (&["-c", "--secmark"], "connections have no security marks: use marks, -m"),
    (&["-z", "--zero"], "counters of connections are never set back"),
    (&["-b", "--buffer-size"], "a reader that is too slow is told how many events it lost"),
    (&["--orig-zone", "--reply-zone"], "both directions have one zone: -w"),
];

/// Does what the letters say.
pub(super) fn run(arguments: &[OsString]) -> Done {
    for argument in arguments {
        if let Some((_, why)) = MISSING.iter().find(|(words, _)| words.iter().any(|word| argument == word)) {
            return Err(Failure::Usage(format!("`{}` of conntrack is not here: {why}", argument.display())));
        }
    }
    let letters = match Letters::try_parse_from(arguments) {
        Ok(letters) => letters,
        Err(error) => match with_command_in_front(arguments) {
            Some(line) => {
                return Err(Failure::Usage(format!("the command stands before its options: {line}")));
            }
            None => error.exit(),
        },
    };
    let refused =
        |option: &str| Failure::Usage(format!("Illegal option `--{option}' with this command: leave it out"));
    let Letters { output, timeout, filter, mark, kinds, ask, .. } = letters;
    if timeout.is_some() && !letters.update {
        return Err(refused("timeout"));
    }
    let filter = filter.with_events(MarkWord { mark }, kinds)?;
    if filter.events.is_some() && !letters.event {
        return Err(refused("event-mask"));
    }
    let given = !output.is_empty();
    let output = if given { self::output(&output.join(","))? } else { Output::letters() };
    let voice = Voice::Letters;
    if letters.dump {
        return list::list(&ask, &filter, output, voice);
    }
    if letters.event {
        return events::follow(&ask, &filter, output, voice);
    }
    if letters.delete {
        return edit::delete(&ask, &filter, output, voice);
    }
    if letters.update {
        let change = Change { mark: filter.mark, timeout: timeout.map(|seconds| seconds.to_string()) };
        if change == Change::default() {
            // As conntrack: no flow is another afterwards.
            voice.say("0 flow entries have been updated.")?;
            return Err(Failure::NothingMatched);
        }
        return edit::update(&ask, &Filter { mark: None, ..filter }, &change, output, voice);
    }
    if !filter.is_empty() || given {
        return Err(Failure::Usage("-C, -S and -F take no filter and no -o: leave them out".to_owned()));
    }
    if letters.count {
        return stats::count(&ask, &filter);
    }
    if letters.flush {
        return edit::flush(&ask, voice);
    }
    counters(&ask)
}

/// The same words with a command of ours in front, where one of them is that and the line can then be read.
fn with_command_in_front(arguments: &[OsString]) -> Option<String> {
    let (program, words) = arguments.split_first()?;
    let commands = Words::command();
    let is_command =
        |word: &OsString| word.to_str().is_some_and(|word| commands.find_subcommand(word).is_some());
    let lines = (1..words.len()).filter(|&at| is_command(&words[at])).map(|at| {
        let (options, command) = words.split_at(at);
        [std::slice::from_ref(program), command, options].concat()
    });
    let line = lines.into_iter().find(|line| Words::try_parse_from(line).is_ok())?;
    let words: Vec<_> = line[1..].iter().map(|word| word.to_string_lossy()).collect();
    Some(format!("dpdk-conntrack {}", words.join(" ")))
}

/// `conntrack -S`: a line for each worker, in the place of a core.
fn counters(ask: &Ask) -> Done {
    let stats: Stats = Client::new(&ask.socket)?.get("/v1/stats")?;
    let mut out = io::stdout().lock();
    for worker in &stats.workers {
        writeln!(out, "{}", counter_line(worker))?;
    }
    Ok(())
}

fn counter_line(worker: &WorkerStats) -> String {
    let of = |numbers: &std::collections::BTreeMap<String, u64>, name: &str| {
        numbers.get(name).copied().unwrap_or_default()
    };
    // With a blank at the end, as conntrack has it.
    format!(
        "cpu={:<4}\tfound=0 invalid={} insert=0 insert_failed=0 drop={} early_drop={} error={} search_restart=0 \
         clash_resolve=0 chaintoolong=0 ",
        worker.worker,
        worker.invalid.values().sum::<u64>(),
        of(&worker.dropped, "table_full"),
        of(&worker.destroyed, DestroyReason::EarlyDrop.label()),
        worker.icmp_error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(line: &str) -> bool {
        are_meant(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn letters(line: &str) -> Result<Letters, clap::Error> {
        Letters::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_words_are_consistent() {
        Letters::command().debug_assert();
    }

    #[test]
    fn a_line_that_begins_with_a_letter_is_conntracks() {
        assert!(meant("x -L") && meant("x --dump -p tcp") && meant("x -p tcp -L"));
        assert!(!meant("x list -p tcp") && !meant("x --help") && !meant("x -V") && !meant("x"));
    }

    #[test]
    fn what_is_missing_says_why() {
        for (line, why) in [("x -I -p tcp", "by packets only"), ("x -L --src-nat", "no address translation")]
        {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert!(run(&arguments).unwrap_err().to_string().contains(why), "{line}");
        }
        let words = Letters::command();
        for word in MISSING.iter().flat_map(|(words, _)| words.iter()) {
            let ours = words.get_arguments().find(|argument| {
                argument.get_short().is_some_and(|short| *word == format!("-{short}"))
                    || argument.get_long().is_some_and(|long| *word == format!("--{long}"))
            });
            assert!(ours.is_none(), "{word} is here");
        }
    }

    #[test]
    fn options_before_a_command_are_told_where_they_stand() {
        for (line, mended) in [
            ("x --socket /s list", "list --socket /s"),
            ("x --socket=list list -p tcp", "list -p tcp --socket=list"),
            ("x --socket list list", "list --socket list"),
            ("x --socket /s timeout set udp.stream 9", "timeout set udp.stream 9 --socket /s"),
            ("x -o json -p tcp events", "events -o json -p tcp"),
            ("x --config /c run", "run --config /c"),
        ] {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            let mended = format!("dpdk-conntrack {mended}");
            assert_eq!(with_command_in_front(&arguments).as_deref(), Some(&*mended), "{line}");
            let said = run(&arguments).unwrap_err();
            assert_eq!(said.code(Voice::Letters), 2);
            assert!(said.to_string().ends_with(&mended), "{line}: {said}");
        }
        for line in ["x -L -s list", "x --socket list", "x -L stats --nothing", "x"] {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert_eq!(with_command_in_front(&arguments), None, "{line}");
        }
    }

    #[test]
    fn letters_are_taken_as_conntrack_takes_them() {
        for line in [
            "x -L",
            "x -L conntrack -o extended,id",
            "x -Lp tcp --sport 80",
            "x -p tcp -L --orig-port-dst 80 --orig-src 10.0.0.0/8",
            "x -E -e NEW,DESTROY -o timestamp",
            "x -D -s 10.0.0.1 --mask-src 255.0.0.0",
            "x -U -p udp -m 0x10/0xf0",
            "x -S",
            "x -C",
            "x -F conntrack",
        ] {
            assert!(letters(line).is_ok(), "{line}: {}", letters(line).unwrap_err());
        }
        for line in ["x -p tcp", "x -L -D", "x -L expect", "x -L -p tpc", "x -L --mask-src 255.0.0.0"] {
            assert!(letters(line).is_err(), "{line}");
        }
    }

    #[test]
    fn counters_are_written_as_conntrack_writes_them() {
        let sample = include_str!("../format/samples/stats.txt");
        for (number, line) in sample.lines().enumerate() {
            let worker = WorkerStats { worker: number as u32, ..WorkerStats::default() };
            assert_eq!(counter_line(&worker), line);
        }
        let mut worker = WorkerStats { icmp_error: 3, ..WorkerStats::default() };
        worker.invalid = [("a".to_owned(), 1), ("b".to_owned(), 2)].into();
        worker.dropped = [("table_full".to_owned(), 4)].into();
        worker.destroyed = [("early_drop".to_owned(), 5)].into();
        let line = counter_line(&worker);
        assert!(line.contains(" invalid=3 ") && line.contains(" drop=4 early_drop=5 error=3 "), "{line}");
    }
}
