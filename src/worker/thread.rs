//! The thread that a worker runs on: pinned, known to DPDK, and looked after until it ends.

use std::thread::JoinHandle;

use core_affinity::CoreId;
use dpdk::eal::Handle;

use super::run::Worker;

/// Why a worker's thread cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    #[error("worker {worker} cannot be pinned to core {core}: give it a core that this process may use (`taskset -p {pid}` shows them)", pid = std::process::id())]
    Pin { worker: usize, core: usize },
    #[error("worker {worker}: {error}")]
    Register { worker: usize, error: dpdk::Error },
    #[error("worker {worker}'s thread cannot be made ({error}): the machine is out of memory or threads")]
    Spawn { worker: usize, error: std::io::Error },
    #[error("worker {worker} ended by itself: this is a defect, please report it with the log")]
    Died { worker: usize },
}

/// A worker at work.
#[derive(Debug)]
pub struct Running {
    worker: usize,
    thread: JoinHandle<Result<(), ThreadError>>,
}

impl Running {
    /// Whether the thread has ended, told to or not.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the thread has ended; its queues are closed then.
    pub fn join(self) -> Result<(), ThreadError> {
        self.thread.join().unwrap_or(Err(ThreadError::Died { worker: self.worker }))
    }
}

/// Does `work` on `core`, so that the memory that it is the first to touch lies at that core's NUMA node.
pub fn on_core<T: Send>(core: Option<usize>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let there = || {
            // A core that cannot be had is told when the worker itself is to go there.
            core.map(|id| core_affinity::set_for_current(CoreId { id }));
            work()
        };
        scope.spawn(there).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Puts `worker` on a thread of its own, pinned to `core` if one is given.
pub fn start(
    number: usize,
    mut worker: Box<Worker>,
    core: Option<usize>,
    eal: Handle,
) -> Result<Running, ThreadError> {
    let body = move || {
        if let Some(core) = core
            && !core_affinity::set_for_current(CoreId { id: core })
        {
            return Err(ThreadError::Pin { worker: number, core });
        }
        // Dropped after the worker, whose frames go home through this thread's cache.
        let _registered =
            eal.register_thread().map_err(|error| ThreadError::Register { worker: number, error })?;
        worker.run();
        drop(worker);
        Ok(())
    };
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(body)
        .map_err(|error| ThreadError::Spawn { worker: number, error })?;
    Ok(Running { worker: number, thread })
}
