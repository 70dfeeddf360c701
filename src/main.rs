//! The program: command line → configuration → the appliance.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dpdk_conntrack::config::{Config, DEFAULT_PATH};
use dpdk_conntrack::{app, telemetry};
use tracing::level_filters::LevelFilter;

/// Tracks connections on DPDK ports as Linux conntrack does.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run the appliance until SIGINT or SIGTERM.
    Run {
        /// The configuration file.
        #[arg(short, long, default_value = DEFAULT_PATH)]
        config: PathBuf,
        /// Arguments for DPDK's EAL, which win over the file's.
        #[arg(last = true)]
        eal: Vec<String>,
    },
}

fn main() -> ExitCode {
    let Subcommands::Run { config, eal } = Arguments::parse().command;
    telemetry::log::init(LevelFilter::INFO);
    let error = match Config::load(&config) {
        Ok(config) => match app::run(&config, &eal) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    eprintln!("dpdk-conntrack: {error}");
    ExitCode::FAILURE
}
