//! The page of metrics, made once for all who ask for the same numbers: however many scrape, it is written out four times
//! a second at most.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use conntrack::track::timeout::Timeouts;

use super::State;
use super::schema::{LastReload, Stats};
use crate::telemetry::prometheus::{self, Sources};

/// The page that was written last.
#[derive(Debug, Default)]
pub(super) struct Scrape(Mutex<Option<Page>>);

/// A page and what it tells of.
#[derive(Debug)]
struct Page {
    stats: Arc<Stats>,
    timeouts: Timeouts,
    last_reload: LastReload,
    text: Bytes,
}

impl Scrape {
    /// The page of `stats` as `state` has the rest.
    pub(super) fn page(&self, state: &State, stats: &Arc<Stats>) -> Result<Bytes, ::prometheus::Error> {
        let (info, config) = (state.info(), state.config());
        let timeouts = config.settings.timeouts;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = last.as_ref()
            && Arc::ptr_eq(&page.stats, stats)
            && page.timeouts == timeouts
            && page.last_reload == info.last_reload
        {
            return Ok(page.text.clone());
        }
        let text = prometheus::text(Sources {
            info: &info,
            stats,
            timeouts: &timeouts,
            node_compat: config.metrics.node_compat,
        })?;
        let text = Bytes::from(text);
        *last = Some(Page {
            stats: Arc::clone(stats),
            timeouts,
            last_reload: info.last_reload,
            text: text.clone(),
        });
        Ok(text)
    }
}
