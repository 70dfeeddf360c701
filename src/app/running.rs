//! The appliance that answers at the control socket while doctor looks: who it is, and what is said of it.

use crate::config::Config;
use crate::control::schema::Info;
use crate::driver::dpdk::PortSpec;
use crate::preflight::{Finding, Host, Running, Status};

/// Somebody has the control socket.
#[derive(Debug)]
pub struct Answering {
    /// Who listens there, if that process has a number here.
    pub process: Option<u32>,
    /// What it says of itself, or a sentence about why it does not.
    pub info: Result<Info, String>,
}

/// What it has, and the line that says so.
pub(super) fn look(
    config: &Config,
    specs: &[PortSpec],
    answering: &Answering,
    host: &Host,
) -> (Running, Finding) {
    let ports = answering.info.as_ref().map_or(&[][..], |info| &info.ports);
    let devices = ports.iter().filter_map(|port| port.device.parse().ok()).collect();
    let running = Running::seen(host, answering.process, devices);
    let who = answering.process.map_or_else(|| "an appliance".to_owned(), |id| format!("process {id}"));
    let at = config.control.socket.display();
    let same = ports.len() == specs.len()
        && ports.iter().zip(specs).all(|(port, spec)| {
            port.name == spec.name && port.device.parse().ok().as_ref() == Some(&spec.device)
        });
    let (status, sentence) = match &answering.info {
        Err(why) => (Status::Warn, format!("{who} has the control socket: {why}")),
        Ok(_) if running.taken.is_none() => (
            Status::Warn,
            format!(
                "{who} answers at {at}, and what memory it has cannot be seen from here: ask where it runs"
            ),
        ),
        Ok(_) if !same => {
            let theirs: Vec<_> = ports.iter().map(|port| format!("{} {}", port.name, port.device)).collect();
            let sentence = format!(
                "{who} answers at {at} with other ports ({}): start it anew for those of this file",
                theirs.join(", ")
            );
            (Status::Warn, sentence)
        }
        Ok(_) => {
            (Status::Ok, format!("{who} answers at {at}; what it has taken is there for its next start"))
        }
    };
    (running, Finding { what: "running".to_owned(), status, sentence })
}
