//! The doors of control, looked at before they are open: what they let in, and what is weak about it.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use crate::config::{Control, Reads};
use crate::control::{TokenError, check_token};
use crate::preflight::{Finding, Status};
use crate::privileges::User;

/// Others may put a file of theirs into such a folder.
const OTHERS_WRITE: u32 = 0o002;

/// A line for the socket, and one for TCP where it is on. `user` is who this process will become.
pub(super) fn look(control: &Control, user: Option<&User>) -> Vec<Finding> {
    let mut findings = vec![socket(control)];
    findings.extend(control.http.map(|address| tcp(control, address.ip(), user)));
    findings
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

fn tcp(control: &Control, address: IpAddr, user: Option<&User>) -> Finding {
    match control.token_file.as_deref().map(|path| (path, check_token(path, user))) {
        Some((path, Err(TokenError::Read { error, .. }))) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
                let said = format!(
                    "the token is to be made in {0}, which is not there: mkdir -p {0}",
                    folder.display()
                );
                return finding(Status::Fail, said);
            }
        }
        Some((_, Err(error))) => return finding(Status::Fail, error.to_string()),
        Some((_, Ok(()))) | None => {}
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
    use std::path::Path;

    use super::*;

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
        let findings = look(control, None);
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
}
