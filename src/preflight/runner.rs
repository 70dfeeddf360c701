//! Who will run the appliance, and what that user may do with files. Root may do everything, so that what root can do says
//! nothing of the service, which never is root.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};

use super::Running;
use crate::privileges::{SERVICE, User};

/// What the unit has made for its user, each at the start, and by which word.
const MADE_BY_UNIT: [(&str, &str); 2] =
    [("/var/lib/dpdk-conntrack", "StateDirectory="), ("/var/log/dpdk-conntrack", "LogsDirectory=")];

/// Bits of a mode, as those of the others have them.
const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const ENTER: u32 = 0o1;

/// The user, and how that is known.
#[derive(Clone, Debug)]
pub struct Runner {
    /// `None` for whoever asks.
    user: Option<User>,
    /// Files are opened by root, before it becomes this user.
    from_root: bool,
    /// It runs already, so that what it needs at the start was there.
    runs: bool,
    /// The package's unit may be what starts it.
    service: bool,
}

impl Runner {
    /// Whoever asks, who may become `user` once everything is open.
    pub fn becoming(user: Option<&User>) -> Self {
        Self { user: user.cloned(), from_root: user.is_some(), runs: false, service: false }
    }

    /// Who runs it now; else, where root asks and the package is there, the service's user; else whoever asks. Of one that
    /// runs and may not be looked at, it is the service that is believed to run.
    pub fn find(running: Option<&Running>) -> Self {
        let me = rustix::process::geteuid();
        let service = User::named(SERVICE).ok();
        let now = running.and_then(|running| running.taken);
        let user = match now {
            Some(taken) => (taken.uid != me.as_raw()).then(|| User::numbered(taken.uid, taken.gid)),
            None => service.clone().filter(|_| me.is_root() || running.is_some()),
        };
        Self { user, from_root: false, runs: now.is_some(), service: service.is_some() }
    }

    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// It is at work.
    pub fn runs(&self) -> bool {
        self.runs
    }

    /// In a sentence.
    pub fn words(&self) -> String {
        match &self.user {
            Some(user) => format!("user `{}`", user.name()),
            None if rustix::process::geteuid().is_root() => "root".to_owned(),
            None => "this user".to_owned(),
        }
    }

    /// For a command line.
    pub fn name(&self) -> &str {
        self.user.as_ref().map_or("$USER", User::name)
    }

    /// The unit's word that has this folder made at each start of the service.
    pub fn made_by(&self, folder: &Path) -> Option<&'static str> {
        let made = MADE_BY_UNIT.iter().find(|(path, _)| Path::new(path) == folder);
        made.filter(|_| self.service).map(|(_, word)| *word)
    }

    /// Whether the user may read a file. Fails where whoever asks may not find that out.
    pub fn may_read(&self, path: &Path) -> io::Result<bool> {
        self.may(path, READ, Access::READ_OK)
    }

    /// The same of writing to a file, or of making one in a folder.
    pub fn may_write(&self, path: &Path) -> io::Result<bool> {
        self.may(path, if path.is_dir() { WRITE | ENTER } else { WRITE }, Access::WRITE_OK)
    }

    fn may(&self, path: &Path, bits: u32, asked: Access) -> io::Result<bool> {
        let Some(user) = self.user.as_ref().filter(|_| !self.from_root) else {
            return Ok(access(path, asked).is_ok());
        };
        let groups = user.groups();
        // What links lead to is what counts.
        let path = path.canonicalize()?;
        for folder in path.ancestors().skip(1) {
            if !allows(user.uid(), &groups, &folder.metadata()?, ENTER) {
                return Ok(false);
            }
        }
        Ok(allows(user.uid(), &groups, &path.metadata()?, bits))
    }
}

/// The first of owner, group and others that somebody is decides alone (path_resolution(7)). Lists beyond the mode (acl(5))
/// are not looked at.
fn allows(uid: u32, groups: &[u32], found: &Metadata, bits: u32) -> bool {
    let shift = match () {
        () if uid == 0 => return true,
        () if found.uid() == uid => 6,
        () if groups.contains(&found.gid()) => 3,
        () => 0,
    };
    found.mode() >> shift & bits == bits
}

#[cfg(test)]
impl Runner {
    /// Somebody else than who asks, on a machine that has the package.
    pub(crate) fn other(user: User) -> Self {
        Self { user: Some(user), from_root: false, runs: false, service: true }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// Nobody has it, so nothing is this user's but what is everybody's.
    const STRANGER: u32 = 3_999_999_999;

    fn file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_strangers_rights_are_read_from_the_modes_on_the_way() {
        let gid = rustix::process::getegid().as_raw();
        let (stranger, member) =
            (Runner::other(User::numbered(STRANGER, STRANGER)), Runner::other(User::numbered(STRANGER, gid)));
        for (mode, others, group) in [
            (0o600, (false, false), (false, false)),
            (0o640, (false, false), (true, false)),
            (0o662, (false, true), (true, true)),
            (0o604, (true, false), (false, false)),
        ] {
            let (_folder, path) = file(mode);
            let rights =
                |runner: &Runner| (runner.may_read(&path).unwrap(), runner.may_write(&path).unwrap());
            assert_eq!(rights(&stranger), others, "{mode:o}");
            // The group's bits decide for its members, also where the others' would give more.
            if gid != 0 || rustix::process::geteuid().is_root() {
                assert_eq!(rights(&member), group, "{mode:o} of the group");
            }
        }
        let (folder, path) = file(0o666);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!stranger.may_read(&path).unwrap(), "the folder cannot be entered");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o705)).unwrap();
        assert!(stranger.may_read(&path).unwrap() && !stranger.may_write(folder.path()).unwrap());
        assert!(stranger.may_read(Path::new("/no/such/file")).is_err());
    }

    #[test]
    fn who_opens_files_as_root_or_asks_for_himself_is_believed() {
        let (_folder, path) = file(0o600);
        let stranger = User::numbered(STRANGER, STRANGER);
        assert!(Runner::becoming(Some(&stranger)).may_read(&path).unwrap());
        assert!(Runner::becoming(None).may_write(&path).unwrap());
        assert!(!Runner::becoming(None).may_read(Path::new("/no/such/file")).unwrap());
    }

    #[test]
    fn whoever_runs_it_now_will_run_it_again() {
        let taken = |uid| super::super::Taken { huge_bytes: 0, plain_bytes: 0, uid, gid: uid };
        let running = |uid| Running { taken: Some(taken(uid)), ..Running::default() };
        let runner = Runner::find(Some(&running(STRANGER)));
        assert_eq!(
            (runner.user().map(User::uid), runner.words()),
            (Some(STRANGER), format!("user `{STRANGER}`"))
        );
        assert!(runner.runs());
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(Runner::find(Some(&running(me))).user(), None);
    }

    #[test]
    fn the_unit_makes_what_is_said_of_it() {
        let unit = include_str!("../../dpdk-config/dpdk-conntrack.service");
        let runner = Runner::other(User::numbered(STRANGER, STRANGER));
        for (path, word) in MADE_BY_UNIT {
            let name = Path::new(path).file_name().unwrap().to_str().unwrap();
            assert!(unit.lines().any(|line| line == format!("{word}{name}")), "{word}");
            assert_eq!(runner.made_by(Path::new(path)), Some(word));
        }
        assert!(unit.lines().any(|line| line == format!("User={SERVICE}")));
        assert_eq!(runner.made_by(Path::new("/var/log/other")), None);
        assert_eq!(Runner::becoming(None).made_by(Path::new("/var/log/dpdk-conntrack")), None);
    }
}
