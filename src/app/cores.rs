//! Which core does what: the worker gets one for itself, control and DPDK's helpers stay on others.

use crate::config::{Config, Idle};

/// Why cores cannot be chosen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoresError {
    #[error("this process may use no core that is known: see `taskset -p {}`", std::process::id())]
    None,
    #[error("`{key}` asks for core {core}, and this process may use {may}: choose one of them")]
    NotAllowed { key: &'static str, core: usize, may: String },
}

/// The choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cores {
    pub(super) worker: usize,
    pub(super) control: Vec<usize>,
    /// The worker shares its core with control, and takes all of it.
    pub(super) crowded: bool,
}

impl Cores {
    pub(super) fn choose(config: &Config) -> Result<Self, CoresError> {
        // Read before EAL narrows the main thread's mask.
        let allowed: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        let eal =
            config.eal.cores.as_ref().map(|cores| cores.iter().map(|&core| usize::from(core)).collect());
        let mut cores = Self::among(&allowed, eal, config.worker.core.map(usize::from))?;
        cores.crowded &= config.worker.idle == Idle::Poll;
        Ok(cores)
    }

    fn among(allowed: &[usize], eal: Option<Vec<usize>>, worker: Option<usize>) -> Result<Self, CoresError> {
        let check = |key, core| {
            if allowed.contains(&core) {
                Ok(core)
            } else {
                let may = allowed.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
                Err(CoresError::NotAllowed { key, core, may })
            }
        };
        let pool = match eal {
            Some(cores) => {
                cores.into_iter().map(|core| check("eal.cores", core)).collect::<Result<_, _>>()?
            }
            None => allowed.to_vec(),
        };
        // The first cores take the machine's interrupts; the last is the quietest.
        let worker = match worker {
            Some(core) => check("worker.core", core)?,
            None => *pool.iter().max().ok_or(CoresError::None)?,
        };
        let mut control: Vec<usize> = pool.iter().copied().filter(|&core| core != worker).collect();
        let crowded = control.is_empty();
        if crowded {
            control = pool;
        }
        Ok(Self { worker, control, crowded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_has_the_last_core_for_itself() {
        let cores = Cores::among(&[0, 1, 2, 3], None, None).unwrap();
        assert_eq!(cores, Cores { worker: 3, control: vec![0, 1, 2], crowded: false });
        let cores = Cores::among(&[0, 1, 2, 3], Some(vec![1, 2]), Some(1)).unwrap();
        assert_eq!(cores, Cores { worker: 1, control: vec![2], crowded: false });
    }

    #[test]
    fn one_core_is_shared_and_said() {
        let cores = Cores::among(&[5], None, None).unwrap();
        assert_eq!(cores, Cores { worker: 5, control: vec![5], crowded: true });
    }

    #[test]
    fn a_core_outside_the_mask_is_refused_with_the_mask() {
        let error = Cores::among(&[0, 1], None, Some(7)).unwrap_err();
        assert!(error.to_string().contains("may use 0,1"), "{error}");
        assert!(Cores::among(&[0, 1], Some(vec![2]), None).is_err());
        assert_eq!(Cores::among(&[], None, None), Err(CoresError::None));
    }
}
