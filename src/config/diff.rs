//! Where two configurations differ, key by key.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError};

/// One key with its value in each; `None` where one has no such key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Difference {
    pub key: String,
    pub here: Option<String>,
    pub there: Option<String>,
}

/// Every difference between two configurations, each as [`Config::to_toml`] writes it, in the order of the keys.
pub fn differences(here: &str, there: &str) -> Result<Vec<Difference>, ConfigError> {
    let (here, there) = (flat(here)?, flat(there)?);
    let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let both = keys.into_iter().map(|key| Difference {
        key: key.clone(),
        here: here.get(key).cloned(),
        there: there.get(key).cloned(),
    });
    Ok(both.filter(|difference| difference.here != difference.there).collect())
}

impl Config {
    /// The defaults for the same profile, mode and ports.
    pub fn defaults(&self) -> Result<Self, ConfigError> {
        let mut table = read(&self.to_toml())?;
        table.retain(|key, _| ["profile", "mode", "port"].contains(&key));
        Self::parse(&table.to_string())
    }
}

fn read(text: &str) -> Result<toml::Table, ConfigError> {
    text.parse().map_err(|error| ConfigError::from_toml(text, &error))
}

fn flat(text: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut pairs = BTreeMap::new();
    walk("", toml::Value::Table(read(text)?), &mut pairs);
    Ok(pairs)
}

fn walk(path: &str, value: toml::Value, pairs: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                walk(&below(&name), value, pairs);
            }
        }
        toml::Value::Array(rows) if rows.iter().any(toml::Value::is_table) => {
            for (number, row) in rows.into_iter().enumerate() {
                // A port is known by its name, a row of the policy by its place.
                let name = row.get("name").and_then(toml::Value::as_str).map(str::to_owned);
                walk(&format!("{path}[{}]", name.unwrap_or_else(|| (number + 1).to_string())), row, pairs);
            }
        }
        value => drop(pairs.insert(path.to_owned(), value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: &str = "[[port]]\nname = \"a\"\ndevice = \"net_null0\"\nrole = \"inside\"\n\
                         [[port]]\nname = \"b\"\ndevice = \"net_null1\"\nrole = \"outside\"\n";

    fn config(head: &str, tail: &str) -> Config {
        Config::parse(&format!("{head}{PORTS}{tail}")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn between(here: &Config, there: &Config) -> Vec<String> {
        let differences = differences(&here.to_toml(), &there.to_toml()).unwrap();
        let word = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        differences.into_iter().map(|d| format!("{} {} {}", d.key, word(d.here), word(d.there))).collect()
    }

    #[test]
    fn a_file_without_settings_is_its_defaults() {
        for head in ["", "profile = \"linux\"\n"] {
            let config = config(head, "");
            assert_eq!(config.defaults().unwrap(), config);
            assert_eq!(between(&config, &config), [""; 0]);
        }
        let mirror =
            Config::parse("mode = \"mirror\"\n[[port]]\nname = \"m\"\ndevice = \"net_tap0\"").unwrap();
        assert_eq!(mirror.defaults().unwrap(), mirror);
    }

    #[test]
    fn what_was_set_is_told_with_both_values() {
        let config =
            config("", "[tcp]\npickup = \"ack\"\n[timeouts]\ntcp.close_wait = 60\n[worker]\ncore = 3\n");
        assert_eq!(
            between(&config.defaults().unwrap(), &config),
            ["tcp.pickup \"any\" \"ack\"", "timeouts.tcp.close_wait \"12h\" \"1m\"", "worker.cores - \"3\""]
        );
    }

    #[test]
    fn rows_of_the_policy_are_told_by_their_place() {
        let row = "[[policy]]\nfrom = \"any\"\nstate = [\"new\"]\nmark = 7\naction = \"accept\"\n";
        let changed = between(&config("", ""), &config("", row));
        assert!(changed.contains(&"policy[1].mark - 7".to_owned()), "{changed:?}");
        assert!(changed.contains(&"policy[2].action \"accept\" -".to_owned()), "{changed:?}");
    }
}
