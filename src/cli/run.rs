//! `run` and `doctor`.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigFile, Done, Failure};
use crate::app;
use crate::config::{Config, DEFAULT_PATH};
use crate::telemetry::log;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Only say whether the configuration can be used
    #[arg(long)]
    check: bool,
    /// Words for EAL, behind those of the file
    #[arg(last = true, value_name = "EAL")]
    eal: Vec<String>,
}

impl Run {
    pub(super) fn run(self) -> Done {
        let config = Config::load(&self.config)?;
        if self.check {
            return Ok(());
        }
        log::init(tracing::level_filters::LevelFilter::INFO);
        app::run(&config, &self.eal).map_err(|error| Failure::Failed(error.to_string()))
    }
}

pub(super) fn doctor(file: &ConfigFile) -> Done {
    let _config = file.load()?;
    Ok(())
}
