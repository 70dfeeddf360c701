//! Which core does what: each worker gets one for itself, control and DPDK's helpers stay on others.

use crate::config::{Config, Idle, Workers};
use crate::driver::dpdk::PortSpec;
use crate::preflight::Host;

/// `workers = "auto"` makes no more: beyond it rings between all pairs cost more memory than the tables.
const AUTO_MAX: usize = 16;

/// Why cores cannot be chosen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoresError {
    #[error("this process may use no core that is known: see `taskset -p {}`", std::process::id())]
    None,
    #[error("`{key}` asks for core {core}, and this process may use {may}: choose one of them")]
    NotAllowed { key: &'static str, core: usize, may: String },
    #[error(
        "there are {workers} workers that poll and {have} cores for them ({may}): lower `workers`, give more cores, or \
         set worker.idle = \"sleep\" and have them take turns"
    )]
    TooFew { workers: usize, have: usize, may: String },
}

/// The choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cores {
    /// By worker, in order.
    pub(super) workers: Vec<usize>,
    /// The same, the best first.
    preferred: Vec<usize>,
    pub(super) control: Vec<usize>,
    /// Control shares its core with a worker, which takes all of it.
    pub(super) crowded: bool,
}

/// What is asked for.
#[derive(Clone, Debug)]
struct Wish {
    /// The only cores that may be used.
    pool: Option<Vec<usize>>,
    /// The cores of the workers.
    given: Option<Vec<usize>>,
    workers: Workers,
    /// Receive queues of the port that has most of them, as far as is known.
    queues: usize,
    /// Cores at the ports' NUMA node.
    near: Vec<usize>,
    polls: bool,
}

impl Cores {
    pub(super) fn choose(config: &Config, specs: &[PortSpec], host: &Host) -> Result<Self, CoresError> {
        // Read before EAL narrows the main thread's mask.
        let allowed: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        let wide = |cores: &Vec<u16>| cores.iter().map(|&core| usize::from(core)).collect();
        let nodes = specs.iter().filter_map(|spec| host.node_of_device(&spec.device));
        let wish = Wish {
            pool: config.eal.cores.as_ref().map(wide),
            given: config.worker.cores.as_ref().map(wide),
            workers: config.workers,
            queues: specs.iter().map(|spec| usize::from(spec.queues_at_most())).max().unwrap_or(1),
            near: nodes.flat_map(|node| host.cpus_of_node(node)).collect(),
            polls: config.worker.idle == Idle::Poll,
        };
        Self::among(&allowed, &wish)
    }

    fn among(allowed: &[usize], wish: &Wish) -> Result<Self, CoresError> {
        let list = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let check = |key, cores: &[usize]| match cores.iter().find(|core| !allowed.contains(core)) {
            Some(&core) => Err(CoresError::NotAllowed { key, core, may: list(allowed) }),
            None => Ok(cores.to_vec()),
        };
        let mut pool = match &wish.pool {
            Some(cores) => check("eal.cores", cores)?,
            None => allowed.to_vec(),
        };
        if pool.is_empty() {
            return Err(CoresError::None);
        }
        pool.sort_unstable();
        let queues = wish.queues.clamp(1, AUTO_MAX);
        let mut preferred = match (&wish.given, wish.workers) {
            (Some(given), Workers::Count(_)) => check("worker.cores", given)?,
            (Some(given), Workers::Auto) => {
                let mut given = check("worker.cores", given)?;
                given.truncate(queues);
                given
            }
            (None, count) => {
                let count = match count {
                    Workers::Count(count) => usize::from(count),
                    // One for control, where that leaves more than one.
                    Workers::Auto if pool.len() > 2 => queues.min(pool.len() - 1),
                    Workers::Auto => queues.min(pool.len()),
                };
                if count > pool.len() && wish.polls {
                    return Err(CoresError::TooFew { workers: count, have: pool.len(), may: list(&pool) });
                }
                // The first cores take the machine's interrupts; the last are the quietest.
                let mut order = pool.clone();
                order.sort_by_key(|core| (wish.near.contains(core), *core));
                order.into_iter().rev().cycle().take(count).collect()
            }
        };
        preferred.truncate(conntrack::key::owner::WORKERS_MAX);
        let mut workers = preferred.clone();
        if wish.given.is_none() {
            workers.sort_unstable();
        }
        let mut cores = Self { workers, preferred, control: pool, crowded: false };
        cores.give_control_its_own(wish.polls);
        Ok(cores)
    }

    /// Leaves the `count` workers on the best cores.
    pub(super) fn keep(&mut self, count: usize) {
        let dropped = self.preferred.split_off(count.min(self.preferred.len()));
        for core in dropped {
            if let Some(at) = self.workers.iter().rposition(|other| *other == core) {
                self.control.push(self.workers.remove(at));
            }
        }
        self.control.sort_unstable();
        self.control.dedup();
        let polls = self.crowded;
        self.give_control_its_own(polls);
    }

    fn give_control_its_own(&mut self, polls: bool) {
        let free: Vec<usize> =
            self.control.iter().copied().filter(|core| !self.workers.contains(core)).collect();
        self.crowded = free.is_empty() && polls;
        if !free.is_empty() {
            self.control = free;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(workers: Workers) -> Wish {
        Wish { pool: None, given: None, workers, queues: 1, near: Vec::new(), polls: true }
    }

    fn one() -> Wish {
        wish(Workers::Count(1))
    }

    fn auto(queues: usize) -> Wish {
        Wish { queues, ..wish(Workers::Auto) }
    }

    #[test]
    fn the_worker_has_the_last_core_for_itself() {
        let cores = Cores::among(&[0, 1, 2, 3], &one()).unwrap();
        assert_eq!((cores.workers, cores.control, cores.crowded), (vec![3], vec![0, 1, 2], false));
        let wish = Wish { pool: Some(vec![1, 2]), given: Some(vec![1]), ..one() };
        let cores = Cores::among(&[0, 1, 2, 3], &wish).unwrap();
        assert_eq!((cores.workers, cores.control, cores.crowded), (vec![1], vec![2], false));
    }

    #[test]
    fn one_core_is_shared_and_said() {
        let cores = Cores::among(&[5], &one()).unwrap();
        assert_eq!((cores.workers, cores.control, cores.crowded), (vec![5], vec![5], true));
        assert!(!Cores::among(&[5], &Wish { polls: false, ..one() }).unwrap().crowded);
    }

    #[test]
    fn auto_takes_the_cores_that_have_a_queue_and_leaves_one_to_control() {
        let workers = |allowed: usize, queues| {
            Cores::among(&(0..allowed).collect::<Vec<_>>(), &auto(queues)).unwrap().workers
        };
        assert_eq!(workers(8, 4), [4, 5, 6, 7]);
        assert_eq!(workers(4, 16), [1, 2, 3]);
        assert_eq!(workers(8, 1), [7]);
        assert_eq!(workers(64, 1024).len(), AUTO_MAX);
        let two = Cores::among(&[0, 1], &auto(16)).unwrap();
        assert_eq!((two.workers, two.control, two.crowded), (vec![0, 1], vec![0, 1], true));
    }

    #[test]
    fn fewer_queues_than_thought_give_cores_back() {
        let mut cores = Cores::among(&[0, 1], &auto(16)).unwrap();
        cores.keep(1);
        assert_eq!((cores.workers, cores.control, cores.crowded), (vec![1], vec![0], false));
    }

    #[test]
    fn the_cores_that_are_kept_are_those_near_the_ports() {
        let wish = Wish { near: vec![0, 1, 2, 3], ..auto(16) };
        let mut cores = Cores::among(&[0, 1, 2, 3, 4, 5, 6, 7], &wish).unwrap();
        assert_eq!(cores.workers, [0, 1, 2, 3, 5, 6, 7]);
        cores.keep(2);
        assert_eq!((cores.workers, cores.control), (vec![2, 3], vec![0, 1, 4, 5, 6, 7]));
    }

    #[test]
    fn cores_near_the_ports_come_first() {
        let wish = Wish { near: vec![0, 1, 2, 3], queues: 2, ..wish(Workers::Auto) };
        assert_eq!(Cores::among(&[0, 1, 2, 3, 4, 5, 6, 7], &wish).unwrap().workers, [2, 3]);
        let more = Wish { queues: 5, ..wish };
        assert_eq!(Cores::among(&[0, 1, 2, 3, 4, 5, 6, 7], &more).unwrap().workers, [0, 1, 2, 3, 7]);
    }

    #[test]
    fn more_workers_than_cores_must_rest() {
        let three = wish(Workers::Count(3));
        let error = Cores::among(&[0, 1], &three).unwrap_err();
        assert!(error.to_string().contains("lower `workers`"), "{error}");
        let resting = Cores::among(&[0, 1], &Wish { polls: false, ..three }).unwrap();
        assert_eq!((resting.workers, resting.control, resting.crowded), (vec![0, 1, 1], vec![0, 1], false));
    }

    #[test]
    fn a_core_outside_the_mask_is_refused_with_the_mask() {
        let error = Cores::among(&[0, 1], &Wish { given: Some(vec![7]), ..one() }).unwrap_err();
        assert!(error.to_string().contains("may use 0,1"), "{error}");
        assert!(Cores::among(&[0, 1], &Wish { pool: Some(vec![2]), ..one() }).is_err());
        assert_eq!(Cores::among(&[], &one()), Err(CoresError::None));
    }
}
