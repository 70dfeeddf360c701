//! Who has the most flows. A small table is counted whole; of a large one flows at random places are looked at and the
//! rest is reckoned, so that asking costs a worker the same whatever its table holds, and no packet anything.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use conntrack::tracker::Cursor;

use crate::bus::command::{Command, Page};
use crate::control::desk::{NoAnswer, Workers};
use crate::control::schema::overview::{Talker, Top};

/// Addresses told of either side.
const TOLD: usize = 20;

/// Tables with so many slots in use, over all workers, are counted whole: some 3 ms of their time.
const SLOTS: u32 = 1 << 15;

/// Flows copied out at once when a table is counted whole.
const PAGE_FLOWS: usize = 1024;

/// Random places that are looked at in larger ones, over all workers: some 1 ms of their time. Many places with few
/// flows each, because flows of one source lie side by side where they came one after the other.
const PLACES: u32 = 256;

/// Flows copied out at one place: what a worker does of a listing in one turn.
const PLACE_FLOWS: usize = 32;

/// Flows by address, as far as they were counted or reckoned.
#[derive(Debug, Default)]
struct Counts(HashMap<IpAddr, f64>);

impl Counts {
    fn add(&mut self, address: IpAddr, flows: f64) {
        *self.0.entry(address).or_default() += flows;
    }

    /// The largest, with `scale` times their number.
    fn largest(self, scale: f64) -> Vec<Talker> {
        let talker =
            |(address, flows): (IpAddr, f64)| Talker { address, flows: (flows * scale).round() as u64 };
        let mut all: Vec<_> = self.0.into_iter().map(talker).collect();
        // Equals keep their order from answer to answer.
        let order = |a: &Talker, b: &Talker| b.flows.cmp(&a.flows).then_with(|| a.address.cmp(&b.address));
        if all.len() > TOLD {
            all.select_nth_unstable_by(TOLD, order);
            all.truncate(TOLD);
        }
        all.sort_unstable_by(order);
        all
    }
}

/// Looks through the tables. `tables` has every worker's number of flows and the place where its listing ends.
pub(super) async fn top(
    workers: &Workers,
    tables: &[(u32, Cursor)],
    random: &mut impl FnMut() -> u64,
) -> Result<Top, NoAnswer> {
    let part = |of: u32| of.div_ceil(u32::try_from(tables.len()).unwrap_or(u32::MAX).max(1));
    let mut look = Look::default();
    let mut exact = true;
    for (worker, &(_, end)) in tables.iter().enumerate() {
        if end.0 <= part(SLOTS) {
            look.at_all(workers, worker).await?;
        } else {
            exact = false;
            let places = part(PLACES);
            for _ in 0..places {
                // The high half of a product: a number below `end`.
                let start = ((u128::from(random()) * u128::from(end.0)) >> 64) as u32;
                look.at_place(workers, worker, start..end.0, places).await?;
            }
        }
    }
    let entries: u64 = tables.iter().map(|&(entries, _)| u64::from(entries)).sum();
    let scale = if exact || look.reckoned <= 0.0 { 1.0 } else { entries as f64 / look.reckoned };
    Ok(Top {
        unix_ms: 0,
        exact,
        counted: look.counted,
        sources: look.sources.largest(scale),
        destinations: look.destinations.largest(scale),
    })
}

#[derive(Default)]
struct Look {
    sources: Counts,
    destinations: Counts,
    counted: u64,
    /// Flows that those counted stand for.
    reckoned: f64,
}

impl Look {
    async fn at_all(&mut self, workers: &Workers, worker: usize) -> Result<(), NoAnswer> {
        let mut page = Box::new(Page::with_capacity(PAGE_FLOWS));
        while page.from.is_some() {
            page.flows.clear();
            page = match workers.ask(worker, Command::Page(page)).await? {
                Command::Page(page) => page,
                _ => return Ok(()),
            };
            self.count(&page, 1.0);
        }
        Ok(())
    }

    async fn at_place(
        &mut self,
        workers: &Workers,
        worker: usize,
        slots: Range<u32>,
        places: u32,
    ) -> Result<(), NoAnswer> {
        let from = Some(Cursor(slots.start));
        let page = Box::new(Page { from, ..Page::with_capacity(PLACE_FLOWS) });
        let Command::Page(page) = workers.ask(worker, Command::Page(page)).await? else { return Ok(()) };
        // Where flows lie thinly a page reaches further, and each of them is met from more starts: what a flow stands
        // for is the inverse of its chance to be met.
        let passed = page.from.map_or(slots.end, |to| to.0).saturating_sub(slots.start).max(1);
        self.count(&page, f64::from(slots.end) / (f64::from(places) * f64::from(passed)));
        Ok(())
    }

    fn count(&mut self, page: &Page, stands_for: f64) {
        for flow in &page.flows {
            self.sources.add(flow.original.src, stands_for);
            self.destinations.add(flow.original.dst, stands_for);
        }
        self.counted += page.flows.len() as u64;
        self.reckoned += stands_for * page.flows.len() as f64;
    }
}
