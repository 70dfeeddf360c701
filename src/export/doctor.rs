//! What `doctor` finds about the sinks: it looks, asks the collector once, and changes nothing.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::fs::{Access, access};

use super::ipfix::collector::probe;
use crate::config::Export;
use crate::preflight::{Finding, Status};

/// A finding for each sink that is configured.
pub fn look(export: &Export) -> Vec<Finding> {
    let eve = export.eve.as_deref().map(file);
    let ipfix = export.ipfix.as_ref().map(|ipfix| collector(ipfix.collector));
    eve.into_iter().chain(ipfix).collect()
}

fn file(path: &Path) -> Finding {
    let (status, sentence) = match (path.parent(), std::fs::metadata(path)) {
        (_, Ok(found)) if !found.is_file() => {
            (Status::Fail, format!("{} is not a regular file: set `export.eve.path` to one", path.display()))
        }
        (_, Ok(_)) if access(path, Access::WRITE_OK).is_err() => (
            Status::Fail,
            format!("{} may not be written by this user: chown it, or run as its owner", path.display()),
        ),
        (Some(folder), _) if !folder.is_dir() => {
            (Status::Fail, format!("there is no folder for it: install -d -m 750 {}", folder.display()))
        }
        (Some(folder), Err(_)) if access(folder, Access::WRITE_OK).is_err() => (
            Status::Fail,
            format!("{} may not be written by this user: chown it, or run as its owner", folder.display()),
        ),
        _ => (Status::Ok, format!("{} can be written", path.display())),
    };
    Finding { what: "flow records, eve".to_owned(), status, sentence }
}

/// A collector that is not there keeps nothing from running: at worst a warning.
fn collector(to: SocketAddr) -> Finding {
    let (status, sentence) = match probe(to) {
        Ok(()) => (Status::Ok, format!("{to} did not refuse a message (UDP says no more)")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => (
            Status::Warn,
            format!(
                "nobody listens at {to}: start the collector there (`nfcapd -p {} -w FOLDER`, say); until then records \
                 are lost and counted",
                to.port()
            ),
        ),
        Err(error) => (
            Status::Warn,
            format!("{to} cannot be sent to ({error}): see the way there with `ip route get {}`", to.ip()),
        ),
    };
    Finding { what: "flow records, IPFIX".to_owned(), status, sentence }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_collector_that_is_not_there_is_a_warning_and_one_that_is_there_is_well() {
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = there.local_addr().unwrap();
        assert_eq!(collector(to).status, Status::Ok);
        let mut message = [0; 64];
        assert_eq!(there.recv(&mut message).unwrap(), 16, "a header alone");
        drop(there);
        let finding = collector(to);
        assert_eq!(finding.status, Status::Warn);
        assert!(finding.sentence.contains(&format!("nfcapd -p {}", to.port())), "{finding}");
    }

    #[test]
    fn a_file_needs_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(file(&folder.path().join("eve.json")).status, Status::Ok);
        let finding = file(&folder.path().join("none/eve.json"));
        assert!(finding.status == Status::Fail && finding.sentence.contains("install -d"), "{finding}");
        assert_eq!(file(folder.path()).status, Status::Fail);
    }
}
