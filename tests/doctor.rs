//! `doctor` as an operator has it: beside an appliance that runs, and on a machine that has the package.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::Daemon;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dpdk-conntrack");

/// A folder with a configuration of two ports on which nothing arrives, and a worker that polls.
fn folder(hugepages: bool, more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "workers = 1\n[[port]]\nname = \"lan\"\ndevice = \"net_null0,no-rx=1\"\nrole = \"inside\"\n[[port]]\nname = \"wan\"\n\
         device = \"net_null1,no-rx=1\"\nrole = \"outside\"\n[eal]\nhugepages = {hugepages}\n[control]\n\
         socket = \"{}/control.sock\"\n{more}\n",
        folder.path().display()
    );
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    folder
}

/// What it says and its exit code.
fn told(done: &Output) -> (String, Option<i32>) {
    let text = [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (text.concat(), done.status.code())
}

fn doctor(folder: &Path) -> (String, Option<i32>) {
    told(
        &Command::new(PROGRAM).args(["doctor", "--config"]).arg(folder.join("config.toml")).output().unwrap(),
    )
}

/// The one line that begins so.
#[track_caller]
fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no line `{start}`:\n{text}"))
}

/// The number in front of `words`.
#[track_caller]
fn number_before(line: &str, words: &str) -> u64 {
    let front = line.split(words).next().filter(|front| front.len() < line.len());
    let number = front.and_then(|front| front.split([' ', ',']).next_back()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number before `{words}`: {line}"))
}

#[test]
fn what_a_running_appliance_has_taken_is_no_lack() {
    // On hugepages where the machine has enough of them.
    let huge = folder(true, "http = \"off\"");
    let on_hugepages = doctor(huge.path()).0.contains("ok    hugepages 2 MB: ");
    let folder = if on_hugepages { huge } else { folder(false, "http = \"off\"") };
    let before = doctor(folder.path()).0;
    assert!(!before.contains("running"), "{before}");

    let mut daemon = Daemon::start_in(folder);
    let (text, code) = doctor(daemon.folder.path());
    assert_eq!(code, Some(0), "{text}");
    let who =
        format!("ok    running: process {} answers at {}", daemon.child.id(), daemon.socket().display());
    line(&text, &who);
    if on_hugepages {
        let line = line(&text, "ok    hugepages 2 MB: ");
        let need = line.split("(need ").nth(1).unwrap().trim_end_matches(')').parse().unwrap();
        assert!(number_before(line, " taken by the running appliance") >= need, "{line}");
    } else {
        // The table's 262,144 entries of 128 bytes are there from the start.
        let line = line(&text, "ok    memory: ");
        assert!(number_before(line, " MiB taken by the running appliance") >= 32, "{line}");
    }

    let config = daemon.folder.path().join("config.toml");
    let changed = std::fs::read_to_string(&config).unwrap().replace("net_null1", "net_null2");
    std::fs::write(&config, changed).unwrap();
    let text = doctor(daemon.folder.path()).0;
    assert!(
        line(&text, "warn  running: ").contains("other ports (lan net_null0,no-rx=1, wan net_null1"),
        "{text}"
    );
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!doctor(daemon.folder.path()).0.contains("running"));
}

#[test]
fn what_will_be_at_the_next_boot_is_told_and_no_failure() {
    let (text, code) = doctor(folder(false, "http = \"off\"").path());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("isolated cores: ") && !text.contains("hugepages at boot"), "{text}");
    // Those that are to last are spoken of whether there are any now or not.
    let (text, _) = doctor(folder(true, "http = \"off\"").path());
    assert!(text.contains("hugepages at boot: "), "{text}");
}

/// What `doctor` tells root of a machine that has the package's user, and of what the shell made of /var/lib and /var/log,
/// which are empty at first.
fn packaged(folder: &Path, shell: &str) -> (String, Option<i32>) {
    let script = format!(
        "set -e; cp /etc/passwd passwd; echo 'dpdk-conntrack:x:4242:4242::/nonexistent:/usr/sbin/nologin' >>passwd\n\
         mount --bind passwd /etc/passwd; for at in lib log; do mount -t tmpfs -o mode=755 none /var/$at; done\n\
         {shell}\nexec \"$0\" doctor --config config.toml"
    );
    let mut words = Command::new("unshare");
    told(&words.args(["--mount", "sh", "-c", &script, PROGRAM]).current_dir(folder).output().unwrap())
}

#[test]
fn root_is_told_of_the_packages_user_and_never_to_take_its_files_away() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!(
        "http = \"{free}\"\ntoken_file = \"/var/lib/dpdk-conntrack/token\"\n[export.eve]\n\
         path = \"/var/log/dpdk-conntrack/eve.json\""
    );
    let folder = folder(false, &more);
    let (text, code) = packaged(folder.path(), "");
    assert_eq!(code, Some(0), "before the first start: {text}");
    assert!(line(&text, "warn  control: ").contains("StateDirectory="), "{text}");
    assert!(line(&text, "warn  flow records, eve: ").contains("LogsDirectory="), "{text}");

    // As the unit and the service leave them.
    let started = "install -d -o 4242 -g 4242 -m 750 /var/lib/dpdk-conntrack /var/log/dpdk-conntrack
        cd /var/lib/dpdk-conntrack; echo 0123456789abcdef0123456789abcdef >token; chmod 600 token; chown 4242 token; cd - >/dev/null";
    let (text, code) = packaged(folder.path(), started);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("chown") && text.contains("writes need the token"), "{text}");
    assert!(
        line(&text, "ok    flow records, eve: ").ends_with("can be written by user `dpdk-conntrack`"),
        "{text}"
    );

    let roots = "chown 0:0 /var/lib/dpdk-conntrack/token /var/log/dpdk-conntrack";
    let (text, code) = packaged(folder.path(), &format!("{started}\n{roots}"));
    assert_eq!(code, Some(1), "{text}");
    assert!(
        line(&text, "fail  control: ").contains("chgrp dpdk-conntrack /var/lib/dpdk-conntrack/token"),
        "{text}"
    );
    assert!(line(&text, "fail  flow records, eve: ").contains("chown dpdk-conntrack"), "{text}");

    let strangers = "chown 4343 /var/lib/dpdk-conntrack/token";
    let text = packaged(folder.path(), &format!("{started}\n{strangers}")).0;
    assert!(line(&text, "fail  control: ").contains("chown 4242 "), "{text}");
}
