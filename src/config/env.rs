//! The environment's words, for whoever starts the program from a unit file, a container or a shell profile. A word on
//! the command line beats them, and they beat the file. Owns their names; `NO_COLOR` is the log's alone.

use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

use super::{Config, ConfigError, is_socket_path};

/// The configuration file, for every command that reads one.
pub const CONFIG: &str = "DPDK_CONNTRACK_CONFIG";

/// The control socket: where commands ask, and where the appliance listens.
pub const SOCKET: &str = "DPDK_CONNTRACK_SOCKET";

/// The log's level.
pub const LOG: &str = "DPDK_CONNTRACK_LOG";

/// A key that the environment has set, and by which variable.
pub type Override = (&'static str, &'static str);

/// Sets in `config` what the environment says; gives which keys those are. An empty word is none.
pub fn apply(
    config: &mut Config,
    word: impl Fn(&'static str) -> Option<String>,
) -> Result<Vec<Override>, ConfigError> {
    let word = |name| word(name).filter(|word| !word.is_empty());
    let mut set = Vec::new();
    if let Some(path) = word(SOCKET) {
        if !is_socket_path(&path) {
            return Err(ConfigError::whole(format!(
                "{SOCKET} is an absolute path of at most 107 bytes: give one below /run"
            )));
        }
        config.control.socket = PathBuf::from(path);
        set.push(("control.socket", SOCKET));
    }
    if let Some(level) = word(LOG) {
        // Words alone: the parser would take numbers as well, which mean nothing to an operator.
        let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level.as_str());
        config.log_level = level.parse::<LevelFilter>().ok().filter(|_| known).ok_or_else(|| {
            ConfigError::whole(format!(
                "{LOG} is `{}`: use `off`, `error`, `warn`, `info`, `debug` or `trace`",
                level.chars().take(32).collect::<String>()
            ))
        })?;
        set.push(("log.level", LOG));
    }
    Ok(set)
}

/// What the process was given.
pub fn given(name: &'static str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::parse(
            "mode = \"mirror\"\n[[port]]\nname = \"m\"\ndevice = \"net_null0\"\n[log]\nlevel = \"warn\"",
        )
        .unwrap()
    }

    #[test]
    fn a_word_of_the_environment_beats_the_file_and_an_empty_one_does_not() {
        let mut set = config();
        let word = |name| Some(if name == SOCKET { "/tmp/x.sock" } else { "debug" }.to_owned());
        assert_eq!(apply(&mut set, word).unwrap(), [("control.socket", SOCKET), ("log.level", LOG)]);
        assert_eq!((set.control.socket.to_str(), set.log_level), (Some("/tmp/x.sock"), LevelFilter::DEBUG));
        let mut same = config();
        assert_eq!(apply(&mut same, |_| Some(String::new())).unwrap(), []);
        assert_eq!(same, config());
    }

    #[test]
    fn a_wrong_word_is_refused_with_its_name() {
        for (name, word) in [(SOCKET, "x.sock"), (LOG, "loud"), (LOG, "3")] {
            let error = apply(&mut config(), |asked| (asked == name).then(|| word.to_owned())).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
