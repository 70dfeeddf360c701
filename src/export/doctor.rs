//! What `doctor` finds about the sinks: it looks, asks the collector once, and changes nothing.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::ipfix::collector::probe;
use crate::config::Export;
use crate::preflight::{Finding, Runner, Status};

/// A finding for each sink that is configured.
pub fn look(export: &Export, runner: &Runner) -> Vec<Finding> {
    let eve = export.eve.as_deref().map(|path| file(path, runner));
    let ipfix = export.ipfix.as_ref().map(|ipfix| collector(ipfix.collector));
    eve.into_iter().chain(ipfix).collect()
}

fn file(path: &Path, runner: &Runner) -> Finding {
    let (status, sentence) = written(path, runner);
    Finding { what: "flow records, eve".to_owned(), status, sentence }
}

fn written(path: &Path, runner: &Runner) -> (Status, String) {
    let found = std::fs::metadata(path);
    if found.as_ref().is_ok_and(|found| !found.is_file()) {
        let said = format!("{} is not a regular file: set `export.eve.path` to one", path.display());
        return (Status::Fail, said);
    }
    // What is not there is made in its folder.
    let at = if found.is_ok() { path } else { path.parent().unwrap_or(path) };
    let (shown, who) = (at.display(), runner.words());
    match (runner.may_write(at), runner.made_by(at)) {
        (Ok(true), _) => (Status::Ok, format!("{} can be written by {who}", path.display())),
        (Err(why), _) if why.kind() == io::ErrorKind::PermissionDenied => {
            (Status::Warn, format!("{shown} cannot be looked at by this user: use sudo"))
        }
        (_, _) if at.exists() => {
            let name = runner.name();
            (
                Status::Fail,
                format!("{shown} may not be written by {who}: chown {name} {shown}, or run as its owner"),
            )
        }
        (_, Some(word)) => (
            Status::Warn,
            format!(
                "{shown} is not there yet: it is made when systemd starts the service ({word}); for a start by hand: \
                 install -d -m 750 {shown}"
            ),
        ),
        (_, None) => (Status::Fail, format!("there is no folder for it: install -d -m 750 {shown}")),
    }
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::privileges::User;

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
        let me = Runner::becoming(None);
        assert_eq!(file(&folder.path().join("eve.json"), &me).status, Status::Ok);
        let finding = file(&folder.path().join("none/eve.json"), &me);
        assert!(finding.status == Status::Fail && finding.sentence.contains("install -d"), "{finding}");
        assert_eq!(file(folder.path(), &me).status, Status::Fail);
    }

    #[test]
    fn the_services_right_is_looked_at_and_named_and_not_that_of_whoever_asks() {
        let folder = tempfile::tempdir().unwrap();
        let eve = folder.path().join("eve.json");
        let service = Runner::other(User::numbered(3_999_999_999, 3_999_999_999));
        let mode =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        mode(folder.path(), 0o755);
        let finding = file(&eve, &service);
        assert!(finding.status == Status::Fail && finding.sentence.contains("chown 3999999999"), "{finding}");
        mode(folder.path(), 0o757);
        let finding = file(&eve, &service);
        assert!(
            finding.status == Status::Ok && finding.sentence.ends_with("by user `3999999999`"),
            "{finding}"
        );
        std::fs::write(&eve, "").unwrap();
        mode(&eve, 0o640);
        assert_eq!(file(&eve, &service).status, Status::Fail, "a file that root made earlier");
    }

    #[test]
    fn a_folder_that_the_unit_makes_is_no_fault_before_the_first_start() {
        let eve = Path::new("/var/log/dpdk-conntrack/eve.json");
        if eve.parent().unwrap().exists() {
            return;
        }
        let service = Runner::other(User::numbered(3_999_999_999, 3_999_999_999));
        let finding = file(eve, &service);
        assert!(finding.status == Status::Warn && finding.sentence.contains("LogsDirectory="), "{finding}");
        assert_eq!(
            file(eve, &Runner::becoming(None)).status,
            Status::Fail,
            "without the package nobody makes it"
        );
    }
}
