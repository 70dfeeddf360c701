//! Asks workers and waits for answers, never longer than a deadline of control's own time. Owns the tickets that are out.
//! A worker cannot wake this thread (that would be a system call), so waiting is looking again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::bus::agreement::{Agreement, Decision};
use crate::bus::command::{Change, Command, Rules, Ticket};
use crate::bus::report::Sighting;
use crate::bus::{COMMANDS, ControlEnd};
use conntrack::event::Event;

/// How long a worker may take for one command. A polling worker needs microseconds and a resting one a millisecond;
/// a worker that is silent for so long is stuck.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// What the time between two looks counts for at most. While this thread cannot look, mostly because its machine stands
/// still, that a worker is silent says nothing: it may have had no time either.
const LONGEST_GAP: Duration = Duration::from_millis(100);

/// How often to look again at once, before resting between looks.
const EAGER_LOOKS: u32 = 200;

/// The rest between two looks: the timer's resolution.
const REST: Duration = Duration::from_millis(1);

/// By which way somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    Socket,
    Tcp,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("worker {worker} did not answer within {} s: see its core with `top -H`", DEADLINE.as_secs())]
    Silent { worker: usize },
    #[error("worker {worker} has {COMMANDS} commands waiting: try again")]
    Busy { worker: usize },
    #[error("there is no worker {worker}")]
    NoWorker { worker: usize },
    #[error("the appliance is stopping")]
    Stopping,
}

/// Every worker, as control sees them.
#[derive(Debug)]
pub(super) struct Workers {
    lines: Vec<Mutex<Line>>,
    /// Walks over whole tables, one at a time for each entrance: however many list over TCP, whoever comes by the socket
    /// waits for one part of theirs. Each may stay with a worker for a fifth of a second, and what everybody waits for
    /// stands behind it: these two and the look for talkers never make a worker seem stuck.
    walks: [Semaphore; 2],
}

#[derive(Debug)]
struct Line {
    end: ControlEnd,
    next: u64,
    /// Tickets that the worker has not given back, whether or not somebody still waits.
    out: usize,
    waiting: HashMap<u64, oneshot::Sender<Command>>,
}

/// What is left of [`DEADLINE`].
struct Patience {
    left: Duration,
    looked: Instant,
}

impl Patience {
    fn new(now: Instant) -> Self {
        Self { left: DEADLINE, looked: now }
    }

    /// Whether nothing is left at a look `now`.
    fn is_over(&mut self, now: Instant) -> bool {
        let gap = now.duration_since(self.looked).min(LONGEST_GAP);
        self.looked = now;
        self.left = self.left.saturating_sub(gap);
        self.left.is_zero()
    }
}

/// A command that is on its way.
struct Asked {
    worker: usize,
    number: u64,
    answer: oneshot::Receiver<Command>,
}

/// Drops a change that nothing was decided about.
struct DropUndecided<'a>(&'a Agreement);

impl Drop for DropUndecided<'_> {
    fn drop(&mut self) {
        self.0.decide(Decision::Dropped);
    }
}

/// Between two looks.
async fn rest(looks: &mut u32) {
    *looks += 1;
    if *looks < EAGER_LOOKS {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(REST).await;
    }
}

impl Line {
    fn take_answers(&mut self) {
        while let Some(ticket) = self.end.next_answer() {
            self.out -= 1;
            if let Some(waiter) = self.waiting.remove(&ticket.number) {
                // Whoever asked may have given up; then the answer is nobody's.
                let _ = waiter.send(ticket.command);
            }
        }
    }
}

impl Workers {
    pub(super) fn new(ends: Vec<ControlEnd>) -> Self {
        let line = |end| Mutex::new(Line { end, next: 0, out: 0, waiting: HashMap::new() });
        Self { lines: ends.into_iter().map(line).collect(), walks: [Semaphore::new(1), Semaphore::new(1)] }
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Sends `command` and waits for it to come back with its answer.
    pub(super) async fn ask(&self, worker: usize, command: Command) -> Result<Command, NoAnswer> {
        let mut patience = Patience::new(Instant::now());
        let asked = self.send(worker, command)?;
        self.answer(asked, &mut patience).await
    }

    /// As [`Workers::ask`], for a part of a walk over the whole table, when it is this one's turn.
    pub(super) async fn walk(
        &self,
        entrance: Entrance,
        worker: usize,
        part: Command,
    ) -> Result<Command, NoAnswer> {
        let [socket, tcp] = &self.walks;
        let turns = match entrance {
            Entrance::Socket => socket,
            Entrance::Tcp => tcp,
        };
        // It is never closed.
        let _turn = turns.acquire().await.ok();
        self.ask(worker, part).await
    }

    /// Asks every worker the same at once and gives their answers in order: however many are stuck, that takes one
    /// deadline. For commands that are done in one slice.
    pub(super) async fn ask_all(&self, command: impl Fn() -> Command) -> Vec<Result<Command, NoAnswer>> {
        let mut patience = Patience::new(Instant::now());
        let asked: Vec<_> = (0..self.len()).map(|worker| self.send(worker, command())).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for asked in asked {
            answers.push(match asked {
                // What came while another one was waited for is there, though the deadline is over.
                Ok(asked) => self.answer(asked, &mut patience).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Has every worker go over to `rules` between two of its bursts, all of them or none: no worker changes before
    /// all stand ready, and if one does not answer nothing has happened anywhere.
    pub(super) async fn configure(&self, rules: Rules) -> Result<(), NoAnswer> {
        let mut patience = Patience::new(Instant::now());
        let agreement = Arc::new(Agreement::default());
        // Whoever asks may go away in the middle (a client that hangs up): then nothing is changed either.
        let undecided = DropUndecided(&agreement);
        let mut asked = Vec::with_capacity(self.len());
        for worker in 0..self.len() {
            let change = Change { rules, agreement: Arc::clone(&agreement), worker };
            asked.push(self.send(worker, Command::Configure(Box::new(change)))?);
        }
        let mut looks = 0;
        while let Some(worker) = agreement.missing(self.len()) {
            if patience.is_over(Instant::now()) {
                return Err(NoAnswer::Silent { worker });
            }
            rest(&mut looks).await;
        }
        agreement.decide(Decision::Made);
        drop(undecided);
        for asked in asked {
            // One that fell silent after it stood ready changes over as the next thing that it does.
            let _ = self.answer(asked, &mut patience).await;
        }
        Ok(())
    }

    /// Ends the workers, and waits until what they tell is all told. One that is stuck is given up as with a command.
    pub(super) async fn end(&self) {
        let each =
            |line: &Mutex<Line>| line.lock().unwrap_or_else(PoisonError::into_inner).end.stopper().stop();
        self.lines.iter().for_each(each);
        let at_work =
            |line: &Mutex<Line>| !line.lock().unwrap_or_else(PoisonError::into_inner).end.is_alone();
        let (mut patience, mut looks) = (Patience::new(Instant::now()), 0);
        while self.lines.iter().any(at_work) && !patience.is_over(Instant::now()) {
            rest(&mut looks).await;
        }
    }

    fn send(&self, worker: usize, command: Command) -> Result<Asked, NoAnswer> {
        let line = self.lines.get(worker).ok_or(NoAnswer::NoWorker { worker })?;
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        line.take_answers();
        if line.out >= COMMANDS {
            return Err(NoAnswer::Busy { worker });
        }
        let number = line.next;
        if line.end.send(Ticket { number, command }).is_err() {
            return Err(NoAnswer::Busy { worker });
        }
        line.next += 1;
        line.out += 1;
        let (waiter, answer) = oneshot::channel();
        line.waiting.insert(number, waiter);
        Ok(Asked { worker, number, answer })
    }

    async fn answer(&self, mut asked: Asked, patience: &mut Patience) -> Result<Command, NoAnswer> {
        let worker = asked.worker;
        let line = self.lines.get(worker).ok_or(NoAnswer::NoWorker { worker })?;
        let lock = || line.lock().unwrap_or_else(PoisonError::into_inner);
        let mut looks = 0;
        loop {
            lock().take_answers();
            if let Ok(command) = asked.answer.try_recv() {
                return Ok(command);
            }
            if patience.is_over(Instant::now()) {
                lock().waiting.remove(&asked.number);
                return Err(NoAnswer::Silent { worker });
            }
            rest(&mut looks).await;
        }
    }

    /// Moves a worker's oldest events to the end of `taken`, as many as it has room for.
    pub(super) fn take_events(&self, worker: usize, taken: &mut Vec<Event>) {
        if let Some(line) = self.lines.get(worker) {
            line.lock().unwrap_or_else(PoisonError::into_inner).end.take_events(taken);
        }
    }

    /// Those of [`Workers::events_lost`] that told, or may have told, of flows' ends.
    pub(super) fn ends_lost(&self) -> u64 {
        let lost = |line: &Mutex<Line>| line.lock().unwrap_or_else(PoisonError::into_inner).end.ends_lost();
        self.lines.iter().map(lost).sum()
    }

    /// The oldest record of an INVALID or dropped packet that a worker keeps; it keeps it no longer.
    pub(super) fn next_record(&self, worker: usize) -> Option<Sighting> {
        self.lines.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner).end.next_record()
    }

    /// INVALID and dropped packets of which there is no record, since the start.
    pub(super) fn unrecorded(&self) -> u64 {
        let count = |line: &Mutex<Line>| line.lock().unwrap_or_else(PoisonError::into_inner).end.unrecorded();
        self.lines.iter().map(count).sum()
    }

    /// The next packet that a worker followed.
    pub(super) fn next_followed(&self, worker: usize) -> Option<Sighting> {
        self.lines.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner).end.next_followed()
    }

    /// Packets that were not followed, or not looked at, because there were too many, since the start.
    pub(super) fn unfollowed(&self) -> u64 {
        let count = |line: &Mutex<Line>| line.lock().unwrap_or_else(PoisonError::into_inner).end.unfollowed();
        self.lines.iter().map(count).sum()
    }

    /// Events that workers lost on their way here, since the start.
    pub(super) fn events_lost(&self) -> u64 {
        let lost = |line: &Mutex<Line>| line.lock().unwrap_or_else(PoisonError::into_inner).end.events_lost();
        self.lines.iter().map(lost).sum()
    }
}

#[cfg(test)]
mod tests {
    use conntrack::policy::Policy;
    use conntrack::track::settings::{Profile, Settings};
    use conntrack::tracker::OnFull;

    use super::*;
    use crate::bus::command::Page;
    use crate::bus::{WorkerEnd, pair};

    const RULES: Rules = Rules {
        settings: Settings::new(Profile::Linux),
        policy: Policy::ACCEPT_ALL,
        on_full: OnFull::DropNew,
    };

    /// The next command. Workers are tasks of the thread that asks, so that a pause of the machine is everybody's.
    async fn next(bus: &WorkerEnd) -> Ticket {
        loop {
            if let Some(ticket) = bus.next_command() {
                return ticket;
            }
            tokio::task::yield_now().await;
        }
    }

    /// A worker that does nothing but look at so many changes; gives how many it made.
    async fn obedient(bus: &WorkerEnd, changes: usize) -> usize {
        let mut made = 0;
        for _ in 0..changes {
            let ticket = next(bus).await;
            let Command::Configure(change) = &ticket.command else { panic!("{ticket:?}") };
            loop {
                match change.agreement.stand_by(change.worker) {
                    Decision::Open => tokio::task::yield_now().await,
                    Decision::Made => break made += 1,
                    Decision::Dropped => break,
                }
            }
            bus.answer(ticket);
        }
        made
    }

    #[tokio::test]
    async fn workers_that_are_stuck_cost_one_deadline_however_many_they_are() {
        const AWAKE: usize = 15;
        let (ends, workers): (Vec<_>, Vec<_>) = (0..31).map(|_| pair()).unzip();
        let all = Workers::new(ends);
        let awake = async {
            let ticket = next(&workers[AWAKE]).await;
            workers[AWAKE].answer(ticket);
        };
        let begun = Instant::now();
        let (answers, ()) = tokio::join!(all.ask_all(|| Command::Snapshot(Box::default())), awake);
        let took = begun.elapsed();
        for (worker, answer) in answers.into_iter().enumerate() {
            let expected = if worker == AWAKE { Ok(()) } else { Err(NoAnswer::Silent { worker }) };
            assert_eq!(answer.map(drop), expected);
        }
        // One after another they would cost thirty.
        assert!((DEADLINE..15 * DEADLINE).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn a_crowd_that_lists_over_tcp_keeps_nobody_at_the_socket_waiting() {
        let (first, bus) = pair();
        let all = Arc::new(Workers::new(vec![first]));
        let page = |flows| Command::Page(Box::new(Page::with_capacity(flows)));
        for _ in 0..100 {
            let all = Arc::clone(&all);
            tokio::spawn(async move { while all.walk(Entrance::Tcp, 0, page(1)).await.is_ok() {} });
        }
        let mut told = Vec::new();
        let worker = async {
            // A while of the crowd's own, then one from the socket among them.
            while told.len() < 200 {
                let Some(ticket) = bus.next_command() else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let Command::Page(page) = &ticket.command else { panic!("{ticket:?}") };
                told.push(page.flows.capacity());
                bus.answer(ticket);
            }
        };
        let asked = async {
            while all.lines[0].lock().unwrap().next < 50 {
                tokio::task::yield_now().await;
            }
            let before = all.lines[0].lock().unwrap().next;
            all.walk(Entrance::Socket, 0, page(7)).await.map(|_| before).unwrap()
        };
        let ((), before) = tokio::join!(worker, asked);
        let place = told.iter().position(|&flows| flows == 7).expect("the socket's page") as u64;
        assert!(place <= before + 1, "asked after {before}, served as number {place}");
    }

    #[tokio::test]
    async fn all_workers_change_over_or_none_does() {
        let ((first, one), (second, two), (third, silent)) = (pair(), pair(), pair());
        let all = Workers::new(vec![first, second]);
        let changes = async {
            for _ in 0..3 {
                assert_eq!(all.configure(RULES).await, Ok(()));
            }
        };
        let ((), one, two) = tokio::join!(changes, obedient(&one, 3), obedient(&two, 3));
        assert_eq!([one, two], [3, 3]);

        let (fourth, ready) = pair();
        let all = Workers::new(vec![fourth, third]);
        let (changed, made) = tokio::join!(all.configure(RULES), obedient(&ready, 1));
        assert_eq!((changed, made), (Err(NoAnswer::Silent { worker: 1 }), 0));
        // The silent one wakes up too late: it finds that nothing is to be done.
        let ticket = silent.next_command().expect("the change");
        let Command::Configure(change) = &ticket.command else { panic!() };
        assert_eq!(change.agreement.stand_by(1), Decision::Dropped);
    }

    #[test]
    fn time_in_which_control_itself_stood_still_does_not_make_a_worker_silent() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        assert!(!patience.is_over(start + 10 * DEADLINE), "after one long gap");
        let mut looks = (0_u32..).map(|look| start + 10 * DEADLINE + look * REST);
        assert!(looks.find(|now| patience.is_over(*now)).is_some());
        let looked = patience.looked - (start + 10 * DEADLINE);
        assert_eq!(looked, DEADLINE - LONGEST_GAP, "and then as long as without it");
    }
}
