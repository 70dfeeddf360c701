//! The command line: words in, one of the program's parts called, an exit code out.
//! Owns arguments and what is printed for people; decides nothing about packets.

mod client;
mod events;
mod limits;
mod list;
mod ports;
mod replay;
mod run;
mod stats;
mod timeout;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, DEFAULT_PATH, DEFAULT_SOCKET};
use crate::format::Output;

/// Why a command failed, and with which exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Exit code 2: the words or the configuration are wrong.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3.
    #[error(
        "nobody answers on {0}: start the appliance with `dpdk-conntrack run`, or name the socket of a running one with --socket"
    )]
    NotRunning(String),
    /// Exit code 0 or 1: who reads our output went away, or the disk is full.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            // `list | head` is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Failed(_) | Self::Output(_) => 1,
            Self::Usage(_) => 2,
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

/// Connection tracking appliance on DPDK that agrees with Linux conntrack.
#[derive(Debug, Parser)]
#[command(name = "dpdk-conntrack", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Words {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 the appliance does not answer.";

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
    },
    /// Follow flows as they begin, change and end
    Events {
        #[command(flatten)]
        ask: Ask,
        #[command(flatten)]
        form: FormWords,
    },
    /// Print counters of table, workers and ports
    Stats {
        #[command(flatten)]
        ask: Ask,
        /// text or json
        #[arg(short, long, value_name = "WORD", default_value = "text")]
        output: stats::Form,
    },
    /// Print the number of flows
    Count(Ask),
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
    /// Print the versions of this program and of DPDK
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the file can be used
    Check(ConfigFile),
    /// Print the whole configuration, defaults included, as a file
    Show(ConfigFile),
}

/// Which appliance to ask.
#[derive(Debug, Args)]
struct Ask {
    /// The appliance's control socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// How flows are printed.
#[derive(Debug, Args)]
struct FormWords {
    /// classic, conntrack or proc for the lines' form (the profile's by default), extended, id, timestamp for
    /// columns, or json or jsonl; several with commas between
    #[arg(short, long, value_name = "WORDS")]
    output: Option<Output>,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.config)?)
    }
}

/// Runs the program by its arguments.
pub fn main() -> ExitCode {
    let words = Words::parse();
    let failure = match dispatch(words.command) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    if failure.code() != 0 {
        // Nobody is left to tell if standard error is closed as well.
        let _ = writeln!(io::stderr(), "dpdk-conntrack: {failure}");
    }
    ExitCode::from(failure.code())
}

fn dispatch(command: Command) -> Done {
    match command {
        Command::Run(run) => run.run(),
        Command::Replay(replay) => replay.run(),
        Command::List { ask, form } => list::list(&ask, form.output.unwrap_or_default()),
        Command::Events { ask, form } => events::follow(&ask, form.output.unwrap_or_default()),
        Command::Stats { ask, output } => stats::stats(&ask, output),
        Command::Count(ask) => stats::count(&ask),
        Command::Timeout(timeout) => timeout.run(),
        Command::Ports(ports) => ports.run(),
        Command::Limits(limits) => limits.run(),
        Command::Flush(ask) => list::flush(&ask),
        Command::Doctor(file) => run::doctor(&file),
        Command::Config(ConfigCommand::Check(file)) => {
            let config = file.load()?;
            let ports: Vec<&str> = config.ports.iter().map(|port| port.name.as_str()).collect();
            let path = file.config.display();
            Ok(writeln!(io::stdout(), "{path}: ok, ports {}", ports.join(", "))?)
        }
        Command::Config(ConfigCommand::Show(file)) => {
            let config = file.load()?;
            Ok(write!(io::stdout(), "{}", config.to_toml())?)
        }
        Command::Version => {
            let own = env!("CARGO_PKG_VERSION");
            Ok(writeln!(io::stdout(), "dpdk-conntrack {own}, {}", dpdk::eal::version())?)
        }
    }
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
