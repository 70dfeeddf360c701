//! docs/configuration.md has a row for every key that the program takes, with its true default and whether a reload changes it.
//! Of each is asked as well whether `replay --set` takes it.

use std::collections::BTreeSet;
use std::path::Path;

use conntrack::track::settings::Profile;
use dpdk_conntrack::config::{Config, TrackingOptions};
use toml::{Table, Value};

/// A row: key, default in TOML where it has one, and whether a reload changes it.
struct Row {
    key: String,
    default: Option<Value>,
    reload: bool,
}

fn rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once("<!-- every key: begin -->").unwrap();
    let (text, _) = text.split_once("<!-- every key: end -->").unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [key, default, _, changes] = cells[..] else { panic!("four cells: {line}") };
        let quoted = default.strip_prefix('`').and_then(|text| text.strip_suffix('`'));
        // `timeout list` names a command.
        let value = quoted.and_then(|text| toml::from_str::<Table>(&format!("x = {text}")).ok());
        assert!(["start", "reload"].contains(&changes), "{line}");
        Row {
            key: key.trim_matches('`').to_owned(),
            default: value.map(|mut table| table.remove("x").unwrap()),
            reload: changes == "reload",
        }
    };
    text.lines().filter(|line| line.starts_with("| `")).map(row).collect()
}

/// No key of any table, and like none.
const NO_KEY: &str = "zzqqzz";

/// What the program says to an unknown key there.
fn refusal(head: &str) -> String {
    Config::parse(&format!("{head}\n{NO_KEY} = 1\n")).unwrap_err().message().to_owned()
}

/// Every key below `path`, as the program lists them to who types one that does not exist.
fn keys_below(path: &str, said: &str, found: &mut BTreeSet<String>) {
    let names = said.strip_prefix(&format!("unknown key `{NO_KEY}`: the keys here are ")).unwrap();
    for name in names.split(", ").map(|name| name.trim_matches('`')) {
        let key = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let tables = [format!("[{key}]"), format!("[[{key}]]")].map(|head| refusal(&head));
        if let Some(said) = tables.iter().find(|said| said.contains(&format!("unknown key `{NO_KEY}`"))) {
            keys_below(&key, said, found);
        } else if tables[0].contains(&format!("is called `{NO_KEY}`")) {
            found.insert(format!("{key}.NAME"));
        } else {
            found.insert(key);
        }
    }
}

#[test]
fn every_key_has_a_row_and_every_row_a_key() {
    let mut keys = BTreeSet::new();
    keys_below("", &refusal(""), &mut keys);
    // It is told of in the row of the other word.
    assert!(keys.remove("policy.syn_only"), "{keys:?}");
    assert!(
        keys.len() > 50 && keys.contains("export.ipfix.mtu") && keys.contains("timeouts.NAME"),
        "{keys:?}"
    );
    let rows: BTreeSet<String> = rows().into_iter().map(|row| row.key).collect();
    let differ: Vec<&String> = keys.symmetric_difference(&rows).collect();
    assert!(differ.is_empty(), "in the program or in the table, and not in both: {differ:?}");
}

/// One of each table that may come several times, and what the others need to mean something.
const BASE: &str = r#"
[[port]]
name = "a"
device = "net_null0"
role = "inside"
[[port]]
name = "b"
device = "net_null1"
role = "outside"
[[policy]]
state = ["new"]
action = "accept"
[[zone]]
id = 5000
vlan = 7
[export.ipfix]
collector = "192.0.2.1:4739"
"#;

/// `text` with `key` set to `value`, in the first where there are several.
fn with(text: &str, key: &str, value: &Value) -> String {
    let mut whole: Table = toml::from_str(text).unwrap();
    let mut table = &mut whole;
    let mut words = key.split('.').peekable();
    while let Some(word) = words.next() {
        if words.peek().is_none() {
            table.insert(word.to_owned(), value.clone());
            break;
        }
        let next = table.entry(word).or_insert_with(|| Value::Table(Table::new()));
        table = match next {
            Value::Array(several) => several[0].as_table_mut().unwrap(),
            one => one.as_table_mut().unwrap(),
        };
    }
    toml::to_string(&whole).unwrap()
}

fn parse(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn what_the_table_calls_a_default_is_what_holds_without_the_key() {
    let mut checked = 0;
    for Row { key, default, .. } in rows() {
        if let Some(default) = default {
            assert_eq!(parse(&with(BASE, &key, &default)), parse(BASE), "{key} = {default}");
            checked += 1;
        }
    }
    assert!(checked > 35, "{checked}");
}

/// Another value for each key, where that alone makes a whole file.
const OTHERS: &[(&str, &str)] = &[
    ("profile", r#""linux""#),
    ("workers", "2"),
    ("rss", r#""symmetric-toeplitz-weak""#),
    ("policy_default", r#""accept""#),
    ("port.name", r#""c""#),
    ("port.device", r#""net_null7""#),
    ("port.promiscuous", "false"),
    ("port.queues", "2"),
    ("policy.from", r#""inside""#),
    ("policy.state", r#"["invalid"]"#),
    ("policy.new_needs_syn", "true"),
    ("policy.mark", "3"),
    ("policy.action", r#""drop""#),
    ("zone.id", "5001"),
    ("zone.vlan", "8"),
    ("zone.limit", "9"),
    ("zones.limit", "9"),
    ("tunnel.inner", "true"),
    ("table.max_entries", "1000"),
    ("table.on_full", r#""drop_new""#),
    ("table.max_datagrams", "9"),
    ("tracking.checksum", "false"),
    ("tracking.accounting", "false"),
    ("tcp.pickup", r#""syn""#),
    ("tcp.window_tracking", "false"),
    ("tcp.be_liberal", "true"),
    ("tcp.ignore_invalid_rst", "true"),
    ("tcp.max_retrans", "3"),
    ("tcp.unacknowledged_timer", "true"),
    ("tcp.assured_late", "false"),
    ("udp.stream_after", r#""2s""#),
    ("eal.cores", r#""0-3""#),
    ("eal.memory", r#""64M""#),
    ("eal.hugepages", "false"),
    ("eal.telemetry", "false"),
    ("eal.raw", r#"["--no-pci"]"#),
    ("worker.cores", r#""2""#),
    ("worker.core", "2"),
    ("worker.idle", r#""sleep""#),
    ("expiry.budget", "9"),
    ("control.socket", r#""/run/other.sock""#),
    ("control.http", r#""off""#),
    ("control.token_file", r#""/run/token""#),
    ("control.hosts", r#"["ct.example.net"]"#),
    ("metrics.node_compat", "true"),
    ("export.community_id_seed", "9"),
    ("export.eve.path", r#""/run/eve.json""#),
    ("export.ipfix.collector", r#""192.0.2.9:4739""#),
    ("export.ipfix.observation_domain", "9"),
    ("export.ipfix.templates_every", r#""9s""#),
    ("export.ipfix.mtu", "1400"),
    ("log.level", r#""warn""#),
];

/// For the others a file before and after.
fn pairs() -> Vec<(&'static str, String, String)> {
    let set = |text: &str, key: &str, value: &str| {
        let value: Table = toml::from_str(&format!("x = {value}")).unwrap();
        with(text, key, &value["x"])
    };
    let mut pairs: Vec<_> =
        OTHERS.iter().map(|&(key, value)| (key, BASE.to_owned(), set(BASE, key, value))).collect();
    pairs.push(("timeouts.NAME", BASE.to_owned(), set(BASE, "timeouts.icmp", "9")));
    pairs.push(("sysctl.NAME", BASE.to_owned(), set(BASE, "sysctl.nf_conntrack_icmp_timeout", "9")));
    pairs.push((
        "mode",
        BASE.to_owned(),
        "mode = \"mirror\"\nport = [{ name = \"a\", device = \"net_null0\" }]".to_owned(),
    ));
    let swapped = BASE.replace("inside", "x").replace("outside", "inside").replace("\"x\"", "\"outside\"");
    pairs.push(("port.role", BASE.to_owned(), swapped));
    let mtu = |mtu: &str| BASE.replace("role =", &format!("mtu = {mtu}\nrole ="));
    pairs.push(("port.mtu", mtu("1500"), mtu("1400")));
    let four = |peers: [&str; 4]| {
        let port = |(number, peer): (usize, &str)| {
            let name = ["a", "b", "c", "d"][number];
            let role = if number < 2 { "inside" } else { "outside" };
            format!(
                "[[port]]\nname = \"{name}\"\ndevice = \"net_null{number}\"\nrole = \"{role}\"\npeer = \"{peer}\"\n"
            )
        };
        peers.into_iter().enumerate().map(port).collect::<String>()
    };
    pairs.push(("port.peer", four(["c", "d", "a", "b"]), four(["d", "c", "b", "a"])));
    let all = four(["c", "d", "a", "b"]);
    pairs.push(("zones.by", all.clone(), format!("zones.by = \"port\"\n{all}")));
    let zone = |port: &str| {
        let zone = format!("[[zone]]\nid = 5000\nport = \"{port}\"\n");
        format!("zones.by = \"port\"\n{all}{zone}")
    };
    pairs.push(("zone.port", zone("a"), zone("b")));
    let token = set(BASE, "control.token_file", "\"/run/token\"");
    pairs.push(("control.reads", token.clone(), set(&token, "control.reads", "\"token\"")));
    let shares = |shares: &str| set(&set(BASE, "workers", "2"), "worker.shares", shares);
    pairs.push(("worker.shares", shares("[1, 1]"), shares("[1, 3]")));
    pairs
}

#[test]
fn a_key_needs_a_restart_if_its_row_says_so() {
    let pairs = pairs();
    for Row { key, reload, .. } in rows() {
        let (_, before, after) =
            pairs.iter().find(|(of, ..)| *of == key).unwrap_or_else(|| panic!("no other value of {key}"));
        let (before, after) = (parse(before), parse(after));
        assert_ne!(before, after, "{key} means nothing");
        let at_start = before.keys_that_need_a_restart(&after).unwrap();
        assert_eq!(at_start.is_empty(), reload, "{key}: only a start takes over {at_start:?}");
    }
}

/// What `replay --set` takes, as its refusal of the others says.
const TRACKING: [&str; 9] =
    ["profile", "tracking.", "tcp.", "udp.", "timeouts.", "sysctl.", "table.", "zones.by", "tunnel.inner"];

/// A value for `--set`: of most keys the other one.
fn option(key: &str) -> (&str, &str) {
    match key {
        "timeouts.NAME" => ("timeouts.icmp", "9"),
        "sysctl.NAME" => ("sysctl.nf_conntrack_icmp_timeout", "9"),
        "mode" => (key, "mirror"),
        "zones.by" => (key, "port"),
        "control.reads" => (key, "token"),
        "worker.shares" => (key, "[1, 3]"),
        _ => match key.split_once('.') {
            // One row with all that it needs, since there is no single key of a row.
            Some(("port", _)) => ("port", r#"[{ name = "c", device = "net_null7" }]"#),
            Some(("policy", _)) => ("policy", r#"[{ action = "drop" }]"#),
            Some(("zone", _)) => ("zone", "[{ id = 5001 }]"),
            _ => {
                let other = OTHERS.iter().find(|(of, _)| *of == key);
                (key, other.unwrap_or_else(|| panic!("no other value of {key}")).1)
            }
        },
    }
}

#[test]
fn replay_takes_the_keys_that_concern_tracking_and_refuses_every_other() {
    for Row { key, .. } in rows() {
        let before = TrackingOptions::new(Profile::Classic);
        let mut after = before;
        let (name, value) = option(&key);
        let set = after.set(name, value);
        if TRACKING.iter().any(|part| key.starts_with(part)) {
            assert!(set.is_ok() && after != before, "{key} = {value}: {set:?}");
        } else {
            let said = set.unwrap_err();
            assert!(said.message().contains("does nothing here"), "{key} = {value}: {}", said.message());
        }
    }
}
