//! The file of eve lines. Owns the open file and its name: rotation, whole lines, and what a full disk does to them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sink::{Counts, Out};
use super::{ExportError, Record, eve};

/// Its owner writes, its group reads: who spoke with whom is not for everybody.
const MODE: u32 = 0o640;

/// See the file's head.
#[derive(Debug)]
pub(super) struct EveFile {
    path: PathBuf,
    file: File,
    seed: u16,
    /// Set from outside: open the file again by its name.
    reopen: Arc<AtomicBool>,
    text: Vec<u8>,
    /// Where each line of `text` ends.
    ends: Vec<usize>,
    /// The file ends inside a line that could not be taken back.
    broken: bool,
    /// It could not be opened again the last time, and the log says so.
    complained: bool,
}

impl EveFile {
    pub(super) fn open(path: &Path, seed: u16, reopen: Arc<AtomicBool>) -> Result<Self, ExportError> {
        // What is no file is told before it is opened: a pipe without a reader would hold up the start.
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(ExportError::NotAFile(path.to_owned()));
        }
        let me = rustix::process::geteuid().as_raw();
        let file = open(path).map_err(|error| ExportError::File { path: path.to_owned(), error, me })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            seed,
            reopen,
            text: Vec::new(),
            ends: Vec::new(),
            broken: false,
            complained: false,
        })
    }

    /// Whether the name means the file that is open. It does not after logrotate has moved it.
    fn is_current(&self) -> bool {
        match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            (Err(error), _) => error.kind() != io::ErrorKind::NotFound,
            _ => true,
        }
    }

    /// Writes as much of `text` as the disk takes; gives how many bytes that was.
    fn write(&mut self) -> (usize, io::Result<()>) {
        let mut done = 0;
        while let Some(rest) = self.text.get(done..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    /// Takes back the last `bytes` of the file, a line that was begun: readers want whole ones.
    fn take_back(&mut self, bytes: usize) {
        let cut =
            self.file.metadata().and_then(|now| self.file.set_len(now.len().saturating_sub(bytes as u64)));
        self.broken = bytes > 0 && cut.is_err();
    }
}

/// For appending, so that a file that is cut behind our back (logrotate's `copytruncate`) goes on at its new end.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

impl Out for EveFile {
    fn take(&mut self, records: &[Record], counts: &Counts) {
        self.text.clear();
        self.ends.clear();
        if self.broken {
            self.text.push(b'\n');
        }
        for record in records {
            eve::write(&mut self.text, record, self.seed);
            self.ends.push(self.text.len());
        }
        let (done, ended) = self.write();
        let whole = self.ends.iter().take_while(|&&end| end <= done).count();
        counts.written(whole as u64);
        if done > 0 {
            self.broken = false;
        }
        if let Err(error) = ended {
            let kept = whole.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0);
            self.take_back(done - kept);
            let path = self.path.display();
            counts.lost((records.len() - whole) as u64, format!("{path} cannot be written: {error}"));
        }
    }

    fn turn(&mut self, _: &Counts) {
        let asked = self.reopen.swap(false, Ordering::AcqRel);
        if !asked && self.is_current() {
            return;
        }
        match open(&self.path) {
            Ok(file) => {
                (self.file, self.broken, self.complained) = (file, false, false);
                tracing::info!(path = %self.path.display(), "the flow records' file was opened again");
            }
            // The next turn tries again; until then the old file takes the records.
            Err(error) if asked || !self.complained => {
                self.complained = true;
                tracing::warn!(path = %self.path.display(), %error, "the flow records' file cannot be opened again: they go on into the old one");
            }
            Err(_) => {}
        }
    }

    fn end(&mut self, _: &Counts) {}
}

#[cfg(test)]
mod tests {
    use conntrack::event::TupleIds;

    use super::*;
    use crate::export::record::tests::record;

    const UDP: TupleIds = TupleIds::Ports { sport: 1000, dport: 53 };

    fn open_in(folder: &Path) -> EveFile {
        EveFile::open(&folder.join("eve.json"), 0, Arc::default()).unwrap()
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    #[test]
    fn a_file_that_was_moved_or_cut_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (now, old) = (folder.path().join("eve.json"), folder.path().join("eve.json.1"));
        let (mut file, counts) = (open_in(folder.path()), Counts::default());
        let one = [record(17, UDP)];
        file.take(&one, &counts);
        std::fs::rename(&now, &old).unwrap();
        file.take(&one, &counts);
        file.turn(&counts);
        file.take(&one, &counts);
        assert_eq!((lines(&old).len(), lines(&now).len()), (2, 1));
        // copytruncate
        OpenOptions::new().write(true).open(&now).unwrap().set_len(0).unwrap();
        file.turn(&counts);
        file.take(&one, &counts);
        assert_eq!(lines(&now).len(), 1);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(EveFile::open(folder.path(), 0, Arc::default()), Err(ExportError::NotAFile(_))));
        let nowhere = folder.path().join("none/eve.json");
        let refused = EveFile::open(&nowhere, 0, Arc::default()).unwrap_err().to_string();
        assert!(refused.contains("export.eve.path") && refused.contains("none/eve.json"), "{refused}");
    }
}
