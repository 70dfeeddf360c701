//! `run` and `doctor`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::client::Client;
use super::{ConfigFile, Done, Failure};
use crate::app::{self, Answering};
use crate::config::{Config, DEFAULT_PATH, env};
use crate::preflight::Status;
use crate::privileges::User;
use crate::telemetry::log;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_PATH, env = env::CONFIG)]
    config: PathBuf,
    /// Only say whether the configuration can be used
    #[arg(long)]
    check: bool,
    /// Become this user once the ports are open; only root can. The control socket is then this user's
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
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
        log::init(config.log_level);
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
        let user = self.user.as_deref().map(User::named).transpose().map_err(|error| failed(&error))?;
        app::run(&config, &self.config, &self.eal, user.as_ref()).map_err(|error| failed(&error))
    }
}

pub(super) fn doctor(file: &ConfigFile) -> Done {
    let config = file.load()?;
    let answering = answering(&config)?;
    let findings = app::doctor(&config, answering.as_ref());
    let findings = findings.map_err(|error| Failure::Failed(error.to_string()))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{:<4}  configuration: {} can be used", Status::Ok, file.config.display())?;
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    match findings.iter().filter(|finding| finding.status == Status::Fail).count() {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 check failed: mend it as said above".to_owned())),
        failed => Err(Failure::Failed(format!("{failed} checks failed: mend them as said above"))),
    }
}

/// Who has the configuration's socket, if somebody does.
fn answering(config: &Config) -> Result<Option<Answering>, Failure> {
    let client = Client::new(&config.control.socket)?;
    let process = match client.process() {
        Ok(process) => process,
        Err(Failure::NotRunning(_)) => return Ok(None),
        Err(why) => return Ok(Some(Answering { process: None, info: Err(why.to_string()) })),
    };
    Ok(Some(Answering { process, info: client.info().map_err(|why| why.to_string()) }))
}
