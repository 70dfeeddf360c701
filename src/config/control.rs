//! `[control]`: which doors there are, and who may come in.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml::Spanned;

use super::check::{Checked, problem};
use super::file::ControlFile;
use super::{Control, DEFAULT_SOCKET, Reads, is_socket_path};

pub(super) fn check(file: &ControlFile) -> Checked<Control> {
    let socket = match &file.socket {
        None => PathBuf::from(DEFAULT_SOCKET),
        Some(path) => {
            if !is_socket_path(path.get_ref()) {
                return problem(
                    path,
                    "control.socket is an absolute path of at most 107 bytes: give one below /run",
                );
            }
            PathBuf::from(path.get_ref())
        }
    };
    let http = http(file.http.as_ref())?;
    let token_file = match &file.token_file {
        Some(path) if !path.get_ref().starts_with('/') => {
            return problem(
                path,
                "control.token_file is an absolute path: /var/lib/dpdk-conntrack/token, say",
            );
        }
        path => path.as_ref().map(|path| PathBuf::from(path.get_ref())),
    };
    let far = http.is_some_and(|address| !address.ip().to_canonical().is_loopback());
    if far && token_file.is_none() {
        let at = file.http.as_ref().map(Spanned::span);
        let said =
            "control.http can be reached from other machines: set control.token_file, or listen on 127.0.0.1";
        return Err(super::error::Problem::new(at, said));
    }
    let reads = match &file.reads {
        Some(word) if far && *word.get_ref() == Reads::Open => {
            return problem(
                word,
                "control.reads = \"open\" is for loopback only: other machines need the token",
            );
        }
        Some(word) if *word.get_ref() == Reads::Token && token_file.is_none() => {
            return problem(word, "control.reads = \"token\" needs a token: set control.token_file");
        }
        Some(word) => *word.get_ref(),
        None if far => Reads::Token,
        None => Reads::Open,
    };
    let mut hosts = Vec::new();
    for host in &file.hosts {
        if !is_host(host.get_ref()) {
            let said = "a host is a name or an address without a port, such as conntrack.example.net";
            return problem(host, said);
        }
        hosts.push(host.get_ref().to_ascii_lowercase());
    }
    Ok(Control { socket, http, token_file, reads, hosts })
}

fn http(text: Option<&Spanned<String>>) -> Checked<Option<SocketAddr>> {
    let Some(text) = text else { return Ok(Some(SocketAddr::from(([127, 0, 0, 1], 9477)))) };
    if text.get_ref().is_empty() || text.get_ref() == "off" {
        return Ok(None);
    }
    match text.get_ref().parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(Some(address)),
        _ => {
            let said = "is no address with a port: write it like 127.0.0.1:9477, or \"off\"";
            problem(text, format!("`{}` {said}", text.get_ref()))
        }
    }
}

/// IPv6 stands in brackets, as in a Host header.
fn is_host(text: &str) -> bool {
    let v6 = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match v6 {
        Some(inner) => matches!(inner.parse(), Ok(IpAddr::V6(_))),
        None => {
            !text.is_empty()
                && text.len() <= 253
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}
