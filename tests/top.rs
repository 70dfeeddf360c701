//! `top` in a real terminal: what a person sees, what keys do, and the terminal afterwards.

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use support::{Daemon, PATIENCE};

/// A terminal of 80 by 24 in which a shell runs.
struct Terminal {
    server: String,
}

impl Terminal {
    fn open(command: &str) -> Self {
        let terminal = Self { server: format!("top-test-{}", std::process::id()) };
        // What follows shows whether lines and echo work again, and keeps the terminal open.
        let shell = format!("{command}; echo ENDED $?; stty -a; cat");
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &shell]);
        terminal
    }

    fn tmux(&self, words: &[&str]) -> Output {
        let done = Command::new("tmux").args(["-L", &self.server]).args(words).output();
        let done = done.expect("scripts/setup installs tmux");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        done
    }

    fn shows(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    #[track_caller]
    fn wait(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.shows();
            if words.iter().all(|word| shown.contains(word)) {
                return shown;
            }
            assert!(begun.elapsed() < PATIENCE, "{words:?} never came:\n{shown}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.server, "kill-server"]).output();
    }
}

fn top(socket: &Path) -> String {
    format!("{} top --socket {}", env!("CARGO_BIN_EXE_dpdk-conntrack"), socket.display())
}

#[test]
fn a_terminal_shows_it_obeys_keys_and_is_given_back() {
    let mut daemon = Daemon::start(&[("net_null0,no-rx=1", "", None)], "");
    let terminal = Terminal::open(&top(&daemon.socket()));
    let shown = terminal.wait(&["0 of 262,144 flows", "Rates", "States", "Top sources", "q quit"]);
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    terminal.press("Tab");
    terminal.wait(&["Dropped, INVALID and lost packets"]);
    terminal.press("3");
    terminal.wait(&["handed/s", "sort: number"]);
    terminal.press("s");
    terminal.wait(&["sort: busy"]);
    terminal.press("p");
    terminal.wait(&["PAUSED"]);
    terminal.tmux(&["resize-window", "-x", "120", "-y", "30"]);
    let begun = Instant::now();
    while !terminal.shows().lines().any(|line| line.chars().count() == 120) {
        assert!(begun.elapsed() < PATIENCE, "the new size is not used:\n{}", terminal.shows());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(daemon.stop(), Some(0));
    terminal.wait(&["NO ANSWER", "nobody answers"]);
    terminal.press("q");
    let after = terminal.wait(&["ENDED 0", " icanon", " echo "]);
    assert!(!after.contains("Workers"), "the screen is what it was before:\n{after}");
    drop(terminal);

    let gone = Command::new("sh").args(["-c", &top(&daemon.socket())]).output().unwrap();
    assert_eq!(gone.status.code(), Some(3), "nobody there is told before anything is drawn");

    // A signal ends it as a key does.
    let daemon = Daemon::start(&[("net_null0,no-rx=1", "", None)], "");
    let number = daemon.folder.path().join("top.pid");
    let command = format!("sh -c 'echo $$ >{}; exec {}'", number.display(), top(&daemon.socket()));
    let terminal = Terminal::open(&command);
    terminal.wait(&["q quit"]);
    let process = std::fs::read_to_string(number).unwrap();
    assert!(Command::new("kill").args(["-TERM", process.trim()]).status().unwrap().success());
    terminal.wait(&["ENDED 0", " icanon", " echo "]);
    drop(terminal);

    let once =
        Command::new("sh").args(["-c", &format!("{} --once", top(&daemon.socket()))]).output().unwrap();
    let text = String::from_utf8_lossy(&once.stdout);
    assert!(once.status.success(), "{}", String::from_utf8_lossy(&once.stderr));
    for words in ["0 of 262,144 flows", "Rates", "Workers", "p0", "Sources by flows"] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
}
