//! The doors of control, looked at before they are open: what they let in, and what is weak about it.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::{Control, Reads};
use crate::control::{TokenError, check_http, check_token};
use crate::preflight::{Finding, Runner, Status};

/// Others may put a file of theirs into such a folder.
const OTHERS_WRITE: u32 = 0o002;

/// A line for the socket, and one for TCP where it is on.
pub(super) fn look(control: &Control, runner: &Runner) -> Vec<Finding> {
    let mut findings = vec![socket(control)];
    findings.extend(control.http.map(|address| tcp(control, address.ip(), runner)));
    findings
}

/// What keeps TCP from being opened. One that runs has it open already.
pub(super) fn look_at_tcp(control: &Control) -> Option<Finding> {
    let why = check_http(control.http?).err()?;
    Some(finding(Status::Fail, why.to_string()))
}

fn finding(status: Status, sentence: String) -> Finding {
    Finding { what: "control".to_owned(), status, sentence }
}

fn socket(control: &Control) -> Finding {
    let path = control.socket.display();
    let folder = control.socket.parent().and_then(|folder| std::fs::metadata(folder).ok());
    if folder.is_some_and(|folder| folder.mode() & OTHERS_WRITE != 0) {
        let said = format!(
            "anybody may put a socket of his own where {path} is to be: set `control.socket` to a path below /run"
        );
        return finding(Status::Warn, said);
    }
    finding(Status::Ok, format!("{path} is for its owner and its group, who may do everything"))
}

/// What is wrong with the token, if something is.
fn token(path: &Path, runner: &Runner) -> Option<(Status, String)> {
    let (shown, who) = (path.display(), runner.words());
    match check_token(path, runner.user()) {
        Err(TokenError::Read { error, .. }) if error.kind() == ErrorKind::NotFound => {
            to_be_made(path.parent()?, runner)
        }
        // Whoever looks is not who runs it.
        Err(TokenError::Read { error, .. })
            if error.kind() == ErrorKind::PermissionDenied && runner.user().is_some() =>
        {
            Some((
                Status::Warn,
                format!("whether {shown} is a token, {who} and root alone can say: use sudo"),
            ))
        }
        Err(error) => Some((Status::Fail, error.to_string())),
        Ok(()) if runner.may_read(path).unwrap_or(true) => None,
        Ok(()) => {
            // It was read by root, which has become another user since; by itself that one would not come so far.
            let status = if runner.runs() { Status::Warn } else { Status::Fail };
            let said = format!(
                "{who} may not read {shown}: `chgrp {} {shown} && chmod 640 {shown}`, and let the group enter its folder",
                runner.name()
            );
            Some((status, said))
        }
    }
}

/// The token's file is not there yet.
fn to_be_made(folder: &Path, runner: &Runner) -> Option<(Status, String)> {
    let shown = folder.display();
    if folder.is_dir() {
        let may = runner.may_write(folder).unwrap_or(true);
        let said = format!(
            "the token is to be made in {shown}, where {} may not write: make it yourself, or `chown {} {shown}`",
            runner.words(),
            runner.name()
        );
        return (!may).then_some((Status::Fail, said));
    }
    Some(match runner.made_by(folder) {
        Some(word) => (
            Status::Warn,
            format!(
                "the token is to be made in {shown}, which is made when systemd starts the service ({word}); for a start by \
                 hand: mkdir -p {shown}"
            ),
        ),
        None => (
            Status::Fail,
            format!("the token is to be made in {shown}, which is not there: mkdir -p {shown}"),
        ),
    })
}

fn tcp(control: &Control, address: IpAddr, runner: &Runner) -> Finding {
    if let Some((status, said)) = control.token_file.as_deref().and_then(|path| token(path, runner)) {
        return finding(status, said);
    }
    if !address.to_canonical().is_loopback() {
        let said = format!(
            "{address} can be reached from other machines, and the token goes there unencrypted: set `control.http` to \
             127.0.0.1:9477 and come by `ssh -L 9477:127.0.0.1:9477`, or put a proxy with TLS in front of it"
        );
        return finding(Status::Warn, said);
    }
    let reads = match control.reads {
        Reads::Open => "every user of this machine may read",
        Reads::Token => "reads need the token",
    };
    let writes = match control.token_file {
        Some(_) => "writes need the token",
        None => "nothing can be changed: `control.token_file` would allow it to who has the token",
    };
    finding(Status::Ok, format!("over TCP on {address} {reads}, {writes}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::privileges::User;

    fn control(folder: &Path) -> Control {
        Control {
            socket: folder.join("control.sock"),
            http: Some(([127, 0, 0, 1], 9477).into()),
            token_file: Some(folder.join("token")),
            reads: Reads::Open,
            hosts: Vec::new(),
        }
    }

    fn said(control: &Control) -> (Status, String) {
        said_for(control, &Runner::becoming(None))
    }

    fn said_for(control: &Control, runner: &Runner) -> (Status, String) {
        let findings = look(control, runner);
        let status = crate::preflight::worst(&findings);
        (status, findings.into_iter().map(|finding| finding.sentence + "\n").collect())
    }

    #[test]
    fn weak_doors_are_warned_of_and_those_that_cannot_open_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let good = control(folder.path());
        assert_eq!(said(&good).0, Status::Ok, "a token that will be made is no fault");

        let far = Control { http: Some(([0, 0, 0, 0], 9477).into()), reads: Reads::Token, ..good.clone() };
        let (status, text) = said(&far);
        assert!(status == Status::Warn && text.contains("unencrypted"), "{text}");

        std::fs::write(folder.path().join("token"), "0123456789abcdef0123456789abcdef").unwrap();
        std::fs::set_permissions(folder.path().join("token"), PermissionsExt::from_mode(0o644)).unwrap();
        let (status, text) = said(&good);
        assert!(status == Status::Fail && text.contains("chmod 600"), "{text}");

        let nowhere = Control { token_file: Some("/no/such/token".into()), ..good.clone() };
        let (status, text) = said(&nowhere);
        assert!(status == Status::Fail && text.contains("mkdir -p /no/such"), "{text}");

        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let (status, text) = said(&Control { http: None, ..good });
        assert!(status == Status::Warn && text.contains("anybody"), "{text}");
    }

    #[test]
    fn an_address_that_another_program_has_is_told_before_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let there = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = Control { http: there.local_addr().ok(), ..control(folder.path()) };
        let found = look_at_tcp(&taken).unwrap();
        assert!(found.status == Status::Fail && found.sentence.contains("control.http"), "{found}");
        drop(there);
        assert_eq!(look_at_tcp(&taken), None);
        assert_eq!(look_at_tcp(&Control { http: None, ..taken }), None);
    }

    /// A token in a folder that everybody may enter, with this mode.
    fn token_of(folder: &Path, mode: u32) {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(folder.join("token"), "0123456789abcdef0123456789abcdef").unwrap();
        std::fs::set_permissions(folder.join("token"), PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_token_is_looked_at_as_who_will_run_the_service_sees_it() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path());
        let own = std::fs::metadata(folder.path()).unwrap();
        let (me, group) = (own.uid(), own.gid());
        token_of(folder.path(), 0o600);
        let owner = Runner::other(User::numbered(me, group));
        assert_eq!(said_for(&control, &owner).0, Status::Ok, "its own token");

        let stranger = Runner::other(User::numbered(3_999_999_999, group));
        let (status, text) = said_for(&control, &stranger);
        if me == 0 {
            // Root's, which is allowed, but closed to the service.
            assert!(status == Status::Fail && text.contains("chgrp 3999999999"), "{text}");
            token_of(folder.path(), 0o640);
            assert_eq!(said_for(&control, &stranger).0, Status::Ok);
        } else {
            assert!(status == Status::Fail && text.contains("chown 3999999999"), "{text}");
        }
        assert!(!text.contains("chown 0"), "{text}");
    }

    #[test]
    fn a_folder_that_the_unit_makes_is_no_fault_before_the_first_start() {
        let folder = tempfile::tempdir().unwrap();
        let token_file = Some("/var/lib/dpdk-conntrack/token".into());
        if Path::new("/var/lib/dpdk-conntrack").exists() {
            return;
        }
        let control = Control { token_file, ..control(folder.path()) };
        let service = Runner::other(User::numbered(3_999_999_999, 3_999_999_999));
        let (status, text) = said_for(&control, &service);
        assert!(status == Status::Warn && text.contains("StateDirectory="), "{text}");
        assert_eq!(said(&control).0, Status::Fail, "without the package nobody makes it");
    }

    #[test]
    fn a_folder_where_the_service_may_not_write_is_told_before_it_tries() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let service = Runner::other(User::numbered(3_999_999_999, 3_999_999_999));
        let (status, text) = said_for(&control(folder.path()), &service);
        assert!(status == Status::Fail && text.contains("may not write"), "{text}");
    }
}
