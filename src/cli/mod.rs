//! The command line: words in, one of the program's parts called, an exit code out.
//! Owns arguments and what is printed for people; decides nothing about packets.

mod client;
mod edit;
mod events;
mod filter;
mod letters;
mod limits;
mod list;
mod packets;
mod ports;
mod replay;
mod run;
mod shell;
mod stats;
mod summary;
mod timeout;
mod top;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::diff::{Difference, differences};
use crate::config::duration::parse_span;
use crate::config::{Config, ConfigError, DEFAULT_PATH, DEFAULT_SOCKET, env};
use crate::control::schema::{Change, Reload, Reloaded};
use crate::filter::MaskedMark;
use crate::format::Output;
use filter::{FilterWords, KindsWord, MarkWord};

/// Why a command failed, and with which exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Exit code 1, as `conntrack`; what was done has been said.
    #[error("no flow matches")]
    NothingMatched,
    /// Exit code 2: the words or the configuration are wrong.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3, and 1 for the letters.
    #[error(
        "nobody answers on {0}: start the appliance with `dpdk-conntrack run`, or name the socket of a running one with --socket"
    )]
    NotRunning(String),
    /// Exit code 0 or 1: who reads our output went away, or the disk is full.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn code(&self, voice: Voice) -> u8 {
        match self {
            // `list | head` is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Failed(_) | Self::NothingMatched | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            // conntrack knows 1 for what failed and 2 for wrong words: enum exittype in its conntrack.h
            Self::NotRunning(_) if voice == Voice::Letters => 1,
            Self::NotRunning(_) => 3,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

type Done = Result<(), Failure>;

/// Whose words stand beside the output, on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Own,
    /// The letters speak as the `conntrack` whose output they copy.
    Letters,
}

impl Voice {
    fn say(self, sentence: &str) -> Done {
        let mut err = io::stderr();
        match self {
            Self::Own => writeln!(err, "dpdk-conntrack v{}: {sentence}", env!("CARGO_PKG_VERSION"))?,
            Self::Letters => writeln!(err, "conntrack v1.4.7 (conntrack-tools): {sentence}")?,
        }
        Ok(())
    }
}

/// Connection tracking appliance on DPDK that agrees with Linux conntrack.
#[derive(Debug, Parser)]
#[command(name = "dpdk-conntrack", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Words {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
conntrack's own letters are understood as well and print what conntrack prints:
  -L list   -E events   -C count   -S counters   -D delete   -F flush   -U update   (`dpdk-conntrack -L --help`)

Exit codes: 0 done, 1 failed or nothing matched, 2 wrong usage or configuration, 3 the appliance does not answer (1 for
the letters).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the appliance and track until SIGINT or SIGTERM
    Run(run::Run),
    /// Run a capture file through the tracker by the capture's own clock; no root, no NIC, no policy
    Replay(replay::Replay),
    /// Print the table of flows
    List {
        #[command(flatten)]
        ask: Ask,
        #[command(flatten)]
        form: FormWords,
        #[command(flatten)]
        filter: Box<FilterWords>,
        #[command(flatten)]
        mark: MarkWord,
    },
    /// Follow flows as they begin, change and end
    Events {
        #[command(flatten)]
        ask: Ask,
        #[command(flatten)]
        form: FormWords,
        #[command(flatten)]
        filter: Box<FilterWords>,
        #[command(flatten)]
        mark: MarkWord,
        #[command(flatten)]
        kinds: KindsWord,
        #[command(flatten)]
        dropped: packets::DroppedWords,
    },
    /// Follow the packets of some flows through every stage, live: parse, owner, entry, step, verdict
    Trace(Box<packets::TraceWords>),
    /// Watch rates, states, occupancy, workers, ports and top talkers on one screen
    Top(top::TopWords),
    /// Print counters of table, workers and ports
    Stats {
        #[command(flatten)]
        ask: Ask,
        /// text or json
        #[arg(short, long, value_name = "WORD", default_value = "text")]
        output: stats::Form,
    },
    /// Print the number of flows
    Count {
        #[command(flatten)]
        ask: Ask,
        #[command(flatten)]
        filter: Box<FilterWords>,
        #[command(flatten)]
        mark: MarkWord,
    },
    /// End flows, and print each as it was
    Delete {
        #[command(flatten)]
        ask: Ask,
        #[command(flatten)]
        form: FormWords,
        #[command(flatten)]
        filter: Box<FilterWords>,
        #[command(flatten)]
        mark: MarkWord,
    },
    /// Change the mark or the time left of flows, and print each as it is now
    Update {
        #[command(flatten)]
        ask: Ask,
        #[command(flatten)]
        form: FormWords,
        #[command(flatten)]
        filter: Box<FilterWords>,
        #[command(flatten)]
        change: ChangeWords,
    },
    /// Show timeouts, or change one while traffic runs
    #[command(subcommand)]
    Timeout(timeout::Timeout),
    /// Show each port with its link and its counters, or stop and start one
    Ports(ports::PortsWords),
    /// Show how many flows each zone holds and may hold, or change that while traffic runs
    Limits(limits::LimitsWords),
    /// End every flow
    Flush(Ask),
    /// Look for what would keep the appliance from starting, and print the command that mends it
    Doctor(ConfigFile),
    /// Look at a configuration file without starting anything
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print how many flows are in which state, by protocol
    Summary {
        #[command(flatten)]
        ask: Ask,
        /// text or json
        #[arg(short, long, value_name = "WORD", default_value = "text")]
        output: stats::Form,
    },
    /// Print what each worker does
    Workers {
        #[command(flatten)]
        ask: Ask,
        /// Watch for so long; json has totals since the start instead
        #[arg(short, long, value_name = "SPAN", default_value = "1s", value_parser = parse_span)]
        interval: Duration,
        /// text or json
        #[arg(short, long, value_name = "WORD", default_value = "text")]
        output: stats::Form,
    },
    /// Print a script that completes these words in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages, this program's and one for each subcommand
    Man {
        /// An existing folder
        folder: PathBuf,
    },
    /// Print the versions of this program and of DPDK, and the commit that it was built from
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the file can be used
    Check(ConfigFile),
    /// Print the whole configuration, defaults included, as a file
    Show {
        #[command(flatten)]
        file: ConfigFile,
        /// That of the appliance that runs, with the changes made since its start
        #[arg(long)]
        running: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Print what the file sets otherwise than the defaults, or than a running appliance has it
    Diff {
        #[command(flatten)]
        file: ConfigFile,
        /// Compare with the appliance that runs; changes made since its start count
        #[arg(long)]
        running: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Have the running appliance read its file again: taken over as a whole between two bursts, or refused as a whole
    Reload(Ask),
}

/// Which appliance to ask.
#[derive(Debug, Args)]
struct Ask {
    /// The appliance's control socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, env = env::SOCKET)]
    socket: PathBuf,
}

/// How flows are printed.
#[derive(Debug, Args)]
struct FormWords {
    /// classic, conntrack or proc for the lines' form (the profile's by default), extended, id, timestamp, ktimestamp
    /// for columns, or table, xml, save, json or jsonl; several with commas between
    #[arg(short, long, value_name = "WORDS")]
    output: Option<Output>,
}

/// What becomes of a flow.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct ChangeWords {
    /// The new mark; with a mask, its bits are cleared and the mark is XORed in, as `conntrack -U` does
    #[arg(short = 'm', long, value_name = "MARK[/MASK]")]
    mark: Option<MaskedMark>,
    /// The time left, such as 90s, until the flow's next packet sets it anew
    #[arg(short = 't', long, value_name = "SPAN")]
    timeout: Option<String>,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_PATH, env = env::CONFIG)]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.config)?)
    }
}

/// Runs the program by its arguments.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let (voice, done) = if letters::are_meant(&arguments) {
        (Voice::Letters, letters::run(&arguments))
    } else {
        (Voice::Own, dispatch(Words::parse_from(arguments).command))
    };
    let failure = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    let code = failure.code(voice);
    if code != 0 && !matches!(failure, Failure::NothingMatched) {
        // Nobody is left to tell if standard error is closed as well.
        let _ = writeln!(io::stderr(), "dpdk-conntrack: {failure}");
    }
    ExitCode::from(code)
}

fn dispatch(command: Command) -> Done {
    match command {
        Command::Run(run) => run.run(),
        Command::Replay(replay) => replay.run(),
        Command::List { ask, form, filter, mark } => {
            list::list(&ask, &filter.with_mark(mark)?, form.output.unwrap_or_default(), Voice::Own)
        }
        Command::Events { ask, form, filter, mark, kinds: _, dropped } if dropped.are_meant() => {
            dropped.follow(&ask, &filter.with_mark(mark)?, form.output.unwrap_or_default())
        }
        Command::Trace(trace) => trace.follow(),
        Command::Top(top) => top.run(),
        Command::Events { ask, form, filter, mark, kinds, dropped: _ } => {
            let filter = filter.with_events(mark, kinds)?;
            events::follow(&ask, &filter, form.output.unwrap_or_default(), Voice::Own)
        }
        Command::Delete { ask, form, filter, mark } => {
            let filter = filter.with_mark(mark)?;
            if filter.is_empty() {
                return Err(Failure::Usage(
                    "every flow would go: say which ones, or end them all with `dpdk-conntrack flush`"
                        .to_owned(),
                ));
            }
            edit::delete(&ask, &filter, form.output.unwrap_or_default(), Voice::Own)
        }
        Command::Update { ask, form, filter, change } => {
            let change = Change { mark: change.mark, timeout: change.timeout };
            edit::update(&ask, &filter.filter()?, &change, form.output.unwrap_or_default(), Voice::Own)
        }
        Command::Stats { ask, output } => stats::stats(&ask, output),
        Command::Count { ask, filter, mark } => stats::count(&ask, &filter.with_mark(mark)?),
        Command::Timeout(timeout) => timeout.run(),
        Command::Ports(ports) => ports.run(),
        Command::Limits(limits) => limits.run(),
        Command::Flush(ask) => edit::flush(&ask, Voice::Own),
        Command::Doctor(file) => run::doctor(&file),
        Command::Config(ConfigCommand::Check(file)) => {
            let config = file.load()?;
            let ports: Vec<&str> = config.ports.iter().map(|port| port.name.as_str()).collect();
            let path = file.config.display();
            Ok(writeln!(io::stdout(), "{path}: ok, ports {}", ports.join(", "))?)
        }
        Command::Config(ConfigCommand::Show { file: _, running: true, ask }) => {
            Ok(write!(io::stdout(), "{}", client::Client::new(&ask.socket)?.text("/v1/config")?)?)
        }
        Command::Config(ConfigCommand::Show { file, .. }) => {
            let (config, overrides) = Config::load_told(&file.config)?;
            let mut out = io::stdout().lock();
            for (key, variable) in overrides {
                writeln!(out, "# {key} as {variable} says, and not as the file does")?;
            }
            Ok(write!(out, "{}", config.to_toml())?)
        }
        Command::Config(ConfigCommand::Diff { file, running, ask }) => {
            let config = file.load()?;
            let before = if running {
                client::Client::new(&ask.socket)?.text("/v1/config")?
            } else {
                config.defaults()?.to_toml()
            };
            diff(&before, &config.to_toml())
        }
        Command::Config(ConfigCommand::Reload(ask)) => reload(&ask),
        Command::Summary { ask, output } => summary::summary(&ask, output),
        Command::Workers { ask, interval, output } => summary::workers(&ask, interval, output),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { folder } => shell::man(&folder),
        Command::Version => {
            let own = env!("CARGO_PKG_VERSION");
            let (revision, dpdk) = (crate::REVISION, dpdk::eal::version());
            Ok(writeln!(io::stdout(), "dpdk-conntrack {own} (revision {revision}), {dpdk}")?)
        }
    }
}

fn reload(ask: &Ask) -> Done {
    let Reloaded { changed } =
        client::Client::new(&ask.socket)?.send(hyper::Method::POST, "/v1/config/reload", &Reload {})?;
    print_differences(&changed)?;
    Voice::Own.say(&format!("reloaded, {} keys have changed.", changed.len()))
}

fn diff(before: &str, after: &str) -> Done {
    let differences = differences(before, after)?;
    print_differences(&differences)?;
    Voice::Own.say(&format!("{} keys differ.", differences.len()))
}

/// `-` and `+` as in a patch, a key each.
fn print_differences(differences: &[Difference]) -> Done {
    let mut out = io::stdout().lock();
    for Difference { key, here, there } in differences {
        for (sign, value) in [('-', here), ('+', there)] {
            if let Some(value) = value {
                writeln!(out, "{sign} {key} = {value}")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_words_are_consistent() {
        Words::command().debug_assert();
    }
}
