//! What a running appliance can take over from a changed configuration, and what it cannot.
//! Memory, devices, threads and doors are made at the start; everything else can change between two bursts.

use conntrack::track::settings::Settings;
use tracing::level_filters::LevelFilter;

use super::diff::differences;
use super::{Config, ConfigError, PolicyRows, Table};

impl Config {
    /// The keys that differ in `new` and that only a start takes over; empty if it can be used at once.
    pub fn keys_that_need_a_restart(&self, new: &Self) -> Result<Vec<String>, ConfigError> {
        let differences = differences(&self.fixed().to_toml(), &new.fixed().to_toml())?;
        Ok(differences.into_iter().map(|difference| difference.key).collect())
    }

    /// This configuration with every key that can change at run time as if it were not there.
    fn fixed(&self) -> Self {
        let mut fixed = self.clone();
        // The profile names states and chooses defaults: listings would change under their readers.
        fixed.settings = Settings::new(self.settings.profile);
        fixed.policy = PolicyRows::accept_all();
        fixed.table.on_full = Table::DEFAULT.on_full;
        fixed.zones.limit = 0;
        for zone in &mut fixed.zones.listed {
            zone.limit = None;
        }
        // What is left of a row that gives a limit and nothing else.
        fixed.zones.listed.retain(super::Zone::places);
        fixed.log_level = LevelFilter::INFO;
        fixed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: &str = "[[port]]\nname = \"a\"\ndevice = \"net_null0\"\nrole = \"inside\"\n\
                         [[port]]\nname = \"b\"\ndevice = \"net_null1\"\nrole = \"outside\"\n";

    fn config(head: &str) -> Config {
        Config::parse(&format!("{head}\n{PORTS}")).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_decides_about_packets_needs_no_restart() {
        let before = config("");
        for head in [
            "policy_default = \"accept\"",
            "[[policy]]\nfrom = \"inside\"\nstate = [\"new\"]\nmark = 3\naction = \"accept\"",
            "[timeouts]\ntcp.established = 60",
            "[tcp]\npickup = \"syn\"\nbe_liberal = true\nmax_retrans = 2",
            "[udp]\nstream_after = \"5s\"",
            "[tracking]\nchecksum = false\naccounting = false",
            "[sysctl]\nnf_conntrack_udp_timeout = 9",
            "[table]\non_full = \"drop_new\"",
            "[zones]\nlimit = 9",
            "[[zone]]\nid = 4\nlimit = 2",
            "[log]\nlevel = \"warn\"",
        ] {
            let after = config(head);
            assert_ne!(before, after, "{head}");
            assert_eq!(before.keys_that_need_a_restart(&after).unwrap(), [""; 0], "{head}");
        }
    }

    #[test]
    fn what_is_made_at_the_start_is_named() {
        let before = config("");
        for (head, key) in [
            ("profile = \"linux\"", "profile"),
            ("workers = 3", "workers"),
            ("rss = \"symmetric-toeplitz-weak\"", "rss"),
            ("[table]\nmax_entries = 5", "table.max_entries"),
            ("[table]\nmax_datagrams = 5", "table.max_datagrams"),
            ("[zones]\nby = \"none\"", "zones.by"),
            ("[[zone]]\nid = 5000\nvlan = 7\nlimit = 2", "zone[1].id"),
            ("[tunnel]\ninner = true", "tunnel.inner"),
            ("[eal]\nhugepages = false", "eal.hugepages"),
            ("[worker]\nidle = \"sleep\"", "worker.idle"),
            ("[expiry]\nbudget = 5", "expiry.budget"),
            ("[control]\nhttp = \"off\"", "control.http"),
        ] {
            let keys = before.keys_that_need_a_restart(&config(head)).unwrap();
            assert!(keys.contains(&key.to_owned()), "{head}: {keys:?}");
        }
        let other = Config::parse(&PORTS.replace("net_null1", "net_null2")).unwrap();
        assert_eq!(before.keys_that_need_a_restart(&other).unwrap(), ["port[b].device"]);
    }

    #[test]
    fn a_zones_place_needs_a_restart_and_its_limit_does_not() {
        let with = |limit: &str| config(&format!("[[zone]]\nid = 5000\nvlan = 7\n{limit}"));
        assert_eq!(with("").keys_that_need_a_restart(&with("limit = 9")).unwrap(), [""; 0]);
    }
}
