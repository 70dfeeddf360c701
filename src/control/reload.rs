//! Changes of the configuration while traffic runs, each made by all workers or by none. Owns the order of a reload:
//! read and check all of the file, name what needs a restart, change over, then tell.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::State;
use super::desk::NoAnswer;
use super::schema::{LastReload, Reloaded};
use crate::bus::command::Rules;
use crate::config::diff::differences;
use crate::config::{Config, ConfigError};
use crate::telemetry::{log, systemd};

/// How long the file may take to be read and checked; a megabyte of it takes a tenth of a second.
const READ: Duration = Duration::from_secs(5);

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}\nnothing was changed")]
    Config(#[from] ConfigError),
    #[error(
        "nothing was changed: {} can only be set at a start: restart the appliance, or take {} back",
        .0.join(", "), if .0.len() == 1 { "this key" } else { "these keys" }
    )]
    Restart(Vec<String>),
    #[error("nothing was changed: {0}")]
    NoAnswer(#[from] NoAnswer),
    #[error("nothing was changed: {0}")]
    File(String),
}

/// What is told of the file that the appliance started with.
pub(super) fn at_start(boot_ms: u64) -> LastReload {
    LastReload {
        unix_ms: boot_ms,
        success: true,
        success_unix_ms: boot_ms,
        taken: 1,
        ..LastReload::default()
    }
}

/// Reads the file again whenever a hang-up comes, and has flow records go on in files that were moved; runs as long as the control thread does.
pub(super) async fn on_hangup(state: Arc<State>) {
    loop {
        state.appliance.hangup.notified().await;
        // What writes logs is asked in the same way.
        state.hub.exports().reopen();
        // Both outcomes have been logged, and there is nobody else to tell.
        let _ = state.reload().await;
    }
}

impl State {
    /// Reads the configuration file again and takes it over, all of it or nothing. Goes on to its end even if whoever
    /// asked does not wait for it.
    pub(super) async fn reload(self: &Arc<Self>) -> Result<Reloaded, Refused> {
        let state = Arc::clone(self);
        tokio::spawn(async move { state.reload_here().await }).await.unwrap_or(Err(NoAnswer::Stopping.into()))
    }

    async fn reload_here(&self) -> Result<Reloaded, Refused> {
        systemd::reloading();
        let done = self.take_over().await;
        systemd::reloaded();
        let mut last = self.last_reload.lock().unwrap_or_else(PoisonError::into_inner);
        last.unix_ms = self.boot_ms();
        last.success = done.is_ok();
        match &done {
            Ok(Reloaded { changed }) => {
                last.taken += 1;
                last.success_unix_ms = last.unix_ms;
                last.error = None;
                tracing::info!(changed = changed.len(), "configuration reloaded");
            }
            Err(refused) => {
                last.refused += 1;
                last.error = Some(refused.to_string());
                tracing::error!("configuration not reloaded: {refused}");
            }
        }
        done
    }

    async fn take_over(&self) -> Result<Reloaded, Refused> {
        let _one_at_a_time = self.changing.lock().await;
        let path = self.appliance.config_path.clone();
        let reading = tokio::task::spawn_blocking(move || read(&path));
        let new = match tokio::time::timeout(READ, reading).await {
            Ok(Ok(read)) => read?,
            Ok(Err(error)) => {
                return Err(Refused::File(format!("the file cannot be read ({error}): try again")));
            }
            Err(_) => {
                return Err(Refused::File("the file cannot be read in time: is its disk alive?".to_owned()));
            }
        };
        let before = self.config();
        let keys = before.keys_that_need_a_restart(&new)?;
        if !keys.is_empty() {
            return Err(Refused::Restart(keys));
        }
        let changed = differences(&before.to_toml(), &new.to_toml())?;
        self.change_over(&new).await?;
        self.appliance.zones.reload(&new);
        log::set_level(new.log_level);
        Ok(Reloaded { changed })
    }

    /// Changes some settings by `edit`, which may refuse; gives the configuration before and after. Goes on to its end
    /// as [`State::reload`] does.
    pub(super) async fn change<E: From<NoAnswer> + Send + 'static>(
        self: &Arc<Self>,
        edit: impl FnOnce(&mut Config) -> Result<(), E> + Send + 'static,
    ) -> Result<(Config, Config), E> {
        let state = Arc::clone(self);
        let changed = tokio::spawn(async move {
            let _one_at_a_time = state.changing.lock().await;
            let before = state.config();
            let mut after = before.clone();
            edit(&mut after)?;
            state.change_over(&after).await?;
            Ok((before, after))
        });
        changed.await.unwrap_or(Err(NoAnswer::Stopping.into()))
    }

    /// Limits a zone, or all zones without a limit of their own, from the next new flow on: workers read the number
    /// where it is written. Without a limit the zone follows the others, and the others have none.
    pub(super) async fn set_limit(&self, zone: Option<u16>, limit: Option<u32>) {
        // No file has the greatest number, and it is as good as no limit.
        let limit = limit.map(|limit| if limit == u32::MAX { 0 } else { limit });
        let _one_at_a_time = self.changing.lock().await;
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match zone {
                Some(zone) => running.zones.set_limit(zone, limit),
                None => running.zones.limit = limit.unwrap_or(0),
            }
        }
        match zone {
            Some(zone) => self.appliance.zones.set_limit(zone, limit),
            None => self.appliance.zones.set_default_limit(limit.unwrap_or(0)),
        }
        self.ask_afresh().await;
    }

    /// Every worker goes over to `new` between two bursts, or none does.
    async fn change_over(&self, new: &Config) -> Result<(), NoAnswer> {
        // The configuration has been checked for rows beyond what a policy may have.
        if let Ok(policy) = new.tracker_policy() {
            let rules = Rules { settings: new.settings, policy, on_full: new.table.on_full };
            self.workers.configure(rules).await?;
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = new.clone();
        self.ask_afresh().await;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Config, Refused> {
    // A pipe that nobody writes to would be waited for.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let path = path.display();
        return Err(Refused::File(format!(
            "{path} is not a plain file and cannot be read again: restart with one"
        )));
    }
    Ok(Config::load(path)?)
}
