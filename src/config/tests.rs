use conntrack::policy::{Action, Class, Role, Rule};
use conntrack::tick::Ticks;
use conntrack::track::settings::{Pickup, Profile, Settings};
use conntrack::track::timeout::TimeoutKey;
use conntrack::tracker::OnFull;
use conntrack::wire::Tags;
use conntrack::zone::{By, Place};
use proptest::prelude::*;

use super::*;

const TWO_PORTS: &str = r#"
[[port]]
name = "lan"
device = "03:00.0"
role = "inside"
[[port]]
name = "wan"
device = "net_tap0,iface=x"
role = "outside"
"#;

fn parse(text: &str) -> Config {
    Config::parse(&format!("{text}\n{TWO_PORTS}")).unwrap_or_else(|error| panic!("{error}"))
}

/// The sentence of a refused file that has `head` before the ports and `tail` behind them.
fn refused(text: &str) -> String {
    match Config::parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn refused_with(text: &str) -> String {
    refused(&format!("{text}\n{TWO_PORTS}"))
}

#[test]
fn two_ports_are_enough_and_everything_else_has_a_default() {
    let config = parse("");
    assert_eq!(config.settings, Settings::new(Profile::Classic));
    assert_eq!(config.mode, Mode::Inline);
    assert_eq!(config.table, Table::DEFAULT);
    assert_eq!((config.ports[0].peer, config.ports[1].peer), (Some(1), Some(0)));
    assert_eq!(config.ports[0].device, Device::Pci("0000:03:00.0".to_owned()));
    assert_eq!(config.ports[1].device.name(), "net_tap0");
    assert_eq!(config.control.http.unwrap().to_string(), "127.0.0.1:9477");
    assert_eq!(parse("profile = \"linux\"").settings, Settings::new(Profile::Linux));
}

#[test]
fn the_shipped_policy_lets_the_inside_open_and_the_outside_answer() {
    let policy = parse("").policy;
    let decide = |role, class: Class| {
        policy
            .rules
            .iter()
            .find(|rule| rule.from.is_none_or(|from| from == role) && rule.classes & 1 << class as u8 != 0)
            .map_or(policy.otherwise, |rule| rule.action)
    };
    use Action::{Accept, Drop};
    for (class, out, back) in [
        (Class::New, Accept, Drop),
        (Class::Established, Accept, Accept),
        (Class::Related, Accept, Accept),
        (Class::Invalid, Drop, Drop),
        (Class::Untracked, Accept, Accept),
    ] {
        assert_eq!(decide(Role::Inside, class), out, "{class:?} from inside");
        assert_eq!(decide(Role::Outside, class), back, "{class:?} from outside");
    }
}

#[test]
fn each_switch_overrides_its_profile() {
    let settings = parse(
        "[tcp]\npickup = \"syn\"\nwindow_tracking = false\nbe_liberal = true\nignore_invalid_rst = true\n\
         max_retrans = 7\nunacknowledged_timer = true\nassured_late = false\n[udp]\nstream_after = \"2s\"\n\
         [tracking]\nchecksum = false\naccounting = false",
    )
    .settings;
    assert_eq!(settings.tcp.pickup, Pickup::Syn);
    assert!(!settings.tcp.window_tracking && settings.tcp.be_liberal && settings.tcp.ignore_invalid_rst);
    assert_eq!(settings.tcp.max_retrans, Some(7));
    assert!(settings.tcp.unacknowledged_timer && !settings.tcp.assured_late);
    assert_eq!(settings.udp_stream_after, Some(Ticks::from_secs(2)));
    assert!(!settings.checksum && !settings.accounting);
    let linux =
        parse("profile = \"linux\"\n[tcp]\nmax_retrans = \"off\"\n[udp]\nstream_after = \"off\"").settings;
    assert_eq!((linux.tcp.max_retrans, linux.udp_stream_after), (None, None));
}

#[test]
fn timeouts_take_our_names_the_kernels_and_the_old_ones() {
    let config = parse(
        "[timeouts]\ntcp.established = \"2d\"\nudp.unreplied = 45\nicmp = \"10s\"\n\
         nf_conntrack_tcp_timeout_close_wait = 60\nip_ct_tcp_timeout_last_ack = 3000\n\
         net.netfilter.nf_conntrack_generic_timeout = 300\n\
         [timeouts.sctp]\nestablished = \"12h\"",
    );
    let seconds = |key| config.settings.timeouts.get(key).as_secs();
    assert_eq!(seconds(TimeoutKey::TcpEstablished), 172_800);
    assert_eq!(seconds(TimeoutKey::Udp), 45);
    assert_eq!(seconds(TimeoutKey::Icmp), 10);
    assert_eq!(seconds(TimeoutKey::TcpCloseWait), 60);
    assert_eq!(seconds(TimeoutKey::TcpLastAck), 30);
    assert_eq!(seconds(TimeoutKey::Generic), 300);
    assert_eq!(seconds(TimeoutKey::SctpEstablished), 43_200);
    assert_eq!(seconds(TimeoutKey::TcpSynSent), 120, "untouched ones keep the profile's value");
}

#[test]
fn sysctls_are_read_as_the_kernel_reads_them() {
    let config = parse(
        "[sysctl]\nnf_conntrack_tcp_loose = 0\nnet.netfilter.nf_conntrack_tcp_be_liberal = 1\n\
         nf_conntrack_tcp_ignore_invalid_rst = true\n\"net.netfilter.nf_conntrack_tcp_max_retrans\" = \"5\"\n\
         nf_conntrack_checksum = 0\nnf_conntrack_acct = 0\nnf_conntrack_max = 1000\n\
         nf_conntrack_udp_timeout_stream = 100\nnet.ipv4.netfilter.ip_ct_udp_timeout = 2000",
    );
    let Settings { tcp, checksum, accounting, timeouts, .. } = config.settings;
    assert_eq!(tcp.pickup, Pickup::Syn);
    assert!(tcp.be_liberal && tcp.ignore_invalid_rst && !checksum && !accounting);
    assert_eq!(tcp.max_retrans, Some(5));
    assert_eq!(config.table.max_entries, 1000);
    assert_eq!(timeouts.get(TimeoutKey::UdpStream), Ticks::from_secs(100));
    assert_eq!(timeouts.get(TimeoutKey::Udp), Ticks::from_secs(20));
    assert_eq!(parse("[sysctl]\nnf_conntrack_tcp_loose = 1").settings.tcp.pickup, Pickup::Ack);
}

#[test]
fn an_unknown_key_is_shown_in_its_line_with_the_key_that_was_meant() {
    let text = format!("{TWO_PORTS}\n[table]\n  max_entires = 5\n");
    let error = Config::parse(&text).unwrap_err().in_file("x.toml");
    assert_eq!(
        error.to_string(),
        "x.toml:12:3: unknown key `max_entires`: did you mean `max_entries`?\n   |\n12 |   max_entires = 5\n   |   \
         ^^^^^^^^^^^"
    );
}

#[test]
fn every_refusal_names_the_fix() {
    for (text, fix) in [
        ("profil = \"linux\"", "did you mean `profile`?"),
        ("profile = \"linus\"", "did you mean `linux`?"),
        ("[tcp]\npickup = \"everything\"", "use `any`, `ack`, `syn`"),
        ("[tcp]\nbe_liberal = 1", "write a boolean"),
        ("[tcp]\nmax_retrans = 300", "a number from 0 to 255"),
        ("[tcp]\nlose = true", "the keys here are `pickup`"),
        ("[timeouts]\ntcp.estab = 5", "did you mean `tcp.established`?"),
        ("[timeouts]\ntcp.established = \"5 parsecs\"", "write it like 5d"),
        ("[timeouts]\ntcp.established = \"100d\"", "give 90d or less"),
        ("[timeouts]\ntcp.established = -1", "not negative"),
        ("[timeouts]\ntcp.established = 0", "the shortest is 4ms"),
        ("[timeouts]\nudp.stream = 5\nnf_conntrack_udp_timeout_stream = 6", "keep one of them"),
        ("[sysctl]\nnf_conntrack_tcp_loose = 2", "write 1 or 0"),
        ("[sysctl]\nnf_conntrack_helper = 1", "there are no helpers"),
        ("[sysctl]\nnf_conntrack_acct = 1\n[tracking]\naccounting = true", "keep one of them"),
        ("[table]\nmax_entries = 0", "from 1 to 100000000"),
        ("[table]\nmax_entries = \"many\"", "write "),
        ("[table]\non_full = \"panic\"", "use `early_drop`, `drop_new`, `pass_untracked`"),
        ("[[policy]]\nstate = [\"new\"]", "the key `action` is missing here: add it"),
        ("[[policy]]\nstate = []\naction = \"drop\"", "leave `state` out for all"),
        ("[[policy]]\nstate = [\"established\"]\nsyn_only = true\naction = \"accept\"", "add \"new\""),
        ("[[policy]]\nstate = [\"new\"]\nsyn_only = true\naction = \"drop\"", "set action = \"accept\""),
        (
            "[[policy]]\nstate = [\"new\"]\naction = \"accept\"\n[[policy]]\nfrom = \"inside\"\nstate = [\"new\"]\naction = \"drop\"",
            "policy row 2 never matches",
        ),
        ("[eal]\ncores = \"3-1\"", "write it like 1-3"),
        ("[eal]\ncores = \"1,1\"", "name each once"),
        ("[eal]\nmemory = \"1024\"", "write it like 512M"),
        ("[eal]\ncores = \"1\"\n[worker]\ncore = 1", "give it another core"),
        ("[worker]\ncore = -1", "lscpu"),
        ("[worker]\ncore = 1\ncores = \"1\"", "keep one of them"),
        ("workers = 3\n[worker]\ncores = \"1-2\"", "there are 2 cores for 3 workers"),
        ("[eal]\ncores = \"1-2\"\n[worker]\ncores = \"2,1\"", "leave nothing to the control thread"),
        ("workers = 0", "from 1 to 64, or \"auto\""),
        ("workers = \"all\"", "from 1 to 64, or \"auto\""),
        ("workers = 65", "from 1 to 64, or \"auto\""),
        ("[worker]\nshares = [1, 2]", "set workers = 2"),
        ("workers = 3\n[worker]\nshares = [1, 2]", "there are 2 shares for 3 workers"),
        ("workers = 2\n[worker]\nshares = [0, 0]", "one of them above 0"),
        ("rss = \"toeplitz\"", "use `random`, `symmetric-toeplitz-weak`"),
        ("[worker]\nidle = \"nap\"", "use `poll`, `sleep`"),
        ("[expiry]\nbudget = 0", "give 64"),
        ("[zones]\nby = \"vlans\"", "did you mean `vlan`?"),
        ("[zones]\nlimit = -1", "or 0 for none"),
        ("[[zone]]\nid = 70000\nvlan = 7", "from 0 to 65535"),
        ("[[zone]]\nid = 5", "add port, vlan or limit"),
        ("[[zone]]\nid = 5000\nvlan = 4095", "from 1 to 4094"),
        ("[[zone]]\nid = 5000\nvlan = \"1.2.3\"", "outer one first"),
        ("[[zone]]\nid = 5\nvlan = 7", "add a [[zone]] for vlan = 5 too"),
        ("[[zone]]\nid = 5000\nvlan = 7\n[[zone]]\nid = 5001\nvlan = 7", "have a zone already"),
        ("[[zone]]\nid = 5\nlimit = 1\n[[zone]]\nid = 5\nlimit = 2", "has another limit above"),
        ("[[zone]]\nid = 5\nport = \"lan\"", "set zones.by = \"port\""),
        ("[zones]\nby = \"port\"\n[[zone]]\nid = 5\nvlan = 7", "set zones.by = \"vlan\""),
        ("[zones]\nby = \"port\"\n[[zone]]\nid = 5\nport = \"lam\"", "name one of the [[port]]"),
        ("[zones]\nby = \"port_vlan\"\n[[zone]]\nid = 5000\nvlan = 7", "add port = \"NAME\""),
        (
            "[zones]\nby = \"port\"\n[[zone]]\nid = 5\nport = \"lan\"\n[[zone]]\nid = 6\nport = \"wan\"",
            "have a zone already",
        ),
        ("[tunnel]\nouter = true", "`inner`"),
        ("[control]\nsocket = \"relative\"", "absolute path"),
        ("[control]\nhttp = \"9477\"", "127.0.0.1:9477"),
        ("[control]\nhttp = \"0.0.0.0:9477\"", "set control.token_file"),
        ("[control]\nhttp = \"[::]:9477\"\ntoken_file = \"/t\"\nreads = \"open\"", "for loopback only"),
        ("[control]\nreads = \"token\"", "set control.token_file"),
        ("[control]\ntoken_file = \"token\"", "absolute path"),
        ("[control]\nhosts = [\"a:80\"]", "without a port"),
        ("profile = \"linux\"\nprofile = \"linux\"", "duplicate key"),
    ] {
        let error = refused_with(text);
        assert!(error.contains(fix), "{text}\n  wanted: {fix}\n  got:    {error}");
    }
}

#[test]
fn ports_that_cannot_work_together_are_refused() {
    let port = |name: &str, device: &str, rest: &str| {
        format!("[[port]]\nname = \"{name}\"\ndevice = \"{device}\"\n{rest}\n")
    };
    let inside = "role = \"inside\"";
    let outside = "role = \"outside\"";
    for (text, fix) in [
        (String::new(), "add one, or set mode = \"mirror\""),
        (port("a", "net_tap0", inside), "there is 1 [[port]]: add one"),
        (port("a", "net_tap0", inside) + &port("b", "net_tap1", inside), "the other outside"),
        (port("a", "net_tap0", inside) + &port("a", "net_tap1", outside), "rename one"),
        (port("a", "net_tap0", inside) + &port("b", "net_tap0,iface=y", outside), "give each port its own"),
        (port("a", "03:00.0", inside) + &port("b", "0000:03:00.0", outside), "give each port its own"),
        (port("a", "net_tap0", inside) + &port("b", "net_tap1", ""), "add role"),
        (port("a", "eth0", inside) + &port("b", "net_tap1", outside), "net_af_packet0,iface=eth0"),
        (port("a", "-l 3", inside) + &port("b", "net_tap1", outside), "neither a PCI address"),
        (port("a b", "net_tap0", inside) + &port("b", "net_tap1", outside), "letters, digits"),
        (
            port("a", "net_tap0", "role = \"inside\"\npeer = \"c\"") + &port("b", "net_tap1", outside),
            "no port is called `c`",
        ),
        (
            port("a", "net_tap0", "role = \"inside\"\npeer = \"a\"") + &port("b", "net_tap1", outside),
            "its own peer",
        ),
        (
            port("a", "net_tap0", inside)
                + &port("b", "net_tap1", outside)
                + &port("c", "net_tap2", inside)
                + &port("d", "net_tap3", "role = \"outside\"\npeer = \"c\""),
            "port `a` has no peer",
        ),
        (
            port("a", "net_tap0", "role = \"inside\"\npeer = \"b\"")
                + &port("b", "net_tap1", outside)
                + &port("c", "net_tap2", "role = \"inside\"\npeer = \"b\"")
                + &port("d", "net_tap3", outside),
            "already has the peer `a`",
        ),
        ("mode = \"mirror\"\n".to_owned(), "there is no [[port]]"),
        ("mode = \"mirror\"\n".to_owned() + &port("m", "net_tap0", inside), "remove role"),
        ("mode = \"mirror\"\n".to_owned() + &port("m", "net_tap0", "peer = \"m\""), "remove peer"),
        (
            "mode = \"mirror\"\npolicy_default = \"drop\"\n".to_owned() + &port("m", "net_tap0", ""),
            "drops nothing",
        ),
    ] {
        let error = refused(&text);
        assert!(error.contains(fix), "{text}\n  wanted: {fix}\n  got:    {error}");
    }
}

#[test]
fn a_mirror_accepts_everything_and_has_no_peers() {
    let config = Config::parse("mode = \"mirror\"\n[[port]]\nname = \"tap\"\ndevice = \"net_tap0\"").unwrap();
    assert_eq!(config.policy, PolicyRows::accept_all());
    assert_eq!(config.ports[0].peer, None);
}

#[test]
fn rows_of_the_file_replace_the_shipped_policy() {
    let policy = parse(
        "policy_default = \"accept\"\n[[policy]]\nfrom = \"inside\"\nstate = [\"new\"]\nsyn_only = true\naction = \"accept\"\n\
         [[policy]]\nstate = [\"new\", \"invalid\"]\naction = \"drop\"",
    )
    .policy;
    let bit = |class: Class| 1_u8 << class as u8;
    assert_eq!(
        policy.rules,
        [
            Rule {
                from: Some(Role::Inside),
                classes: bit(Class::New),
                new_needs_syn: true,
                action: Action::Accept,
                mark: 0
            },
            Rule {
                from: None,
                classes: bit(Class::New) | bit(Class::Invalid),
                new_needs_syn: false,
                action: Action::Drop,
                mark: 0
            },
        ]
    );
    assert_eq!(policy.otherwise, Action::Accept);
}

/// Two pairs of ports, after `head`.
fn two_pairs(head: &str) -> String {
    let port = |name: &str, device: u8, role: &str, peer: &str| {
        format!(
            "[[port]]\nname = \"{name}\"\ndevice = \"net_null{device}\"\nrole = \"{role}\"\npeer = \"{peer}\"\n"
        )
    };
    head.to_owned()
        + "\n"
        + &port("lan", 0, "inside", "wan")
        + &port("wan", 1, "outside", "lan")
        + &port("lan2", 2, "inside", "wan2")
        + &port("wan2", 3, "outside", "lan2")
}

fn port_zones(head: &str) -> Vec<u16> {
    let config = Config::parse(&two_pairs(head)).unwrap_or_else(|error| panic!("{error}"));
    (0..config.ports.len()).map(|port| config.port_zone(port)).collect()
}

#[test]
fn both_ports_of_a_pair_have_one_zone_and_pairs_have_their_own_where_ports_are_told_apart() {
    assert_eq!(port_zones(""), [0; 4]);
    assert_eq!(port_zones("[zones]\nby = \"none\""), [0; 4]);
    assert_eq!(port_zones("[zones]\nby = \"port\""), [0, 0, 1, 1]);
    assert_eq!(port_zones("[zones]\nby = \"port_vlan\""), [0, 0, 4096, 4096]);
    let named = "[zones]\nby = \"port\"\n[[zone]]\nid = 7\nport = \"wan2\"";
    assert_eq!(port_zones(named), [0, 0, 7, 7]);
    let shared =
        "[zones]\nby = \"port\"\n[[zone]]\nid = 7\nport = \"wan2\"\n[[zone]]\nid = 7\nport = \"lan\"";
    assert_eq!(port_zones(shared), [7; 4], "two pairs share a zone if the file says so of both");
    let half = "[zones]\nby = \"port\"\n[[zone]]\nid = 0\nport = \"wan2\"";
    assert!(refused(&two_pairs(half)).contains("is that of port `lan`"), "and of no one alone");
}

#[test]
fn listed_vlans_have_the_zone_that_they_are_given() {
    let rules =
        |head: &str| Config::parse(&two_pairs(head)).unwrap_or_else(|error| panic!("{error}")).zone_rules();
    let place = |port_zone, outer, inner| Place { port_zone, tags: Tags::new([outer, inner]) };
    let head = "[[zone]]\nid = 5000\nvlan = 7\nlimit = 3\n[[zone]]\nid = 5001\nvlan = \"7.9\"\n[[zone]]\nid = 0\nvlan = 1";
    let vlan = rules(head);
    assert_eq!(vlan.listed, [(place(0, 7, 0), 5000), (place(0, 7, 9), 5001), (place(0, 1, 0), 0)]);
    let both = rules("[zones]\nby = \"port_vlan\"\n[[zone]]\nid = 5000\nvlan = 7\nport = \"wan2\"");
    assert_eq!(both.listed, [(place(4096, 7, 0), 5000)]);
    assert!(both.reserved.contains(&4096) && both.reserved.contains(&5000));
    let shared = rules("[[zone]]\nid = 5\nvlan = 7\n[[zone]]\nid = 5\nvlan = 5");
    assert_eq!(shared.listed, [(place(0, 7, 0), 5), (place(0, 5, 0), 5)]);
}

#[test]
fn peers_have_one_mtu() {
    let with = |mtu: &str| TWO_PORTS.replace("role = \"inside\"", &format!("role = \"inside\"\nmtu = {mtu}"));
    assert!(refused(&with("9000")).contains("give both the same mtu"));
    assert!(refused(&with("500")).contains("9000 for jumbo frames"));
    let both =
        with("9000").replace("role = \"outside\"", "role = \"outside\"\nmtu = 9000\npromiscuous = false");
    let config = Config::parse(&both).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        config.ports.iter().map(|port| (port.mtu, port.promiscuous)).collect::<Vec<_>>(),
        [(9000, true), (9000, false)]
    );
}

#[test]
fn what_is_shown_reads_back_to_the_same() {
    for head in [
        "",
        "[zones]\nby = \"port_vlan\"\nlimit = 10\n[tunnel]\ninner = true\n[[zone]]\nid = 4100\nport = \"wan\"\n\
         [[zone]]\nid = 5000\nvlan = \"7.8\"\nport = \"lan\"\nlimit = 0\n[[zone]]\nid = 9\nlimit = 7",
        "[[zone]]\nid = 5000\nvlan = 7",
        "profile = \"linux\"",
        "[control]\nhttp = \"0.0.0.0:80\"\ntoken_file = \"/t\"\nhosts = [\"a.example\", \"[::1]\"]",
        "[control]\ntoken_file = \"/t\"\nreads = \"token\"",
        "workers = 2\nrss = \"symmetric-toeplitz-weak\"\n[worker]\ncores = \"4-5\"\nshares = [1, 3]",
        "policy_default = \"accept\"\n[[policy]]\nfrom = \"inside\"\nsyn_only = true\naction = \"accept\"\n[tcp]\npickup = \"syn\"\n\
         max_retrans = 9\n[timeouts]\ntcp.established = \"1h30m\"\nudp.stream = \"500ms\"\n[table]\non_full = \"pass_untracked\"\n\
         [eal]\ncores = \"1-3\"\nmemory = \"2G\"\nhugepages = false\nraw = [\"--log-level\", \"a\\\"b\\\\c\"]\n\
         [worker]\ncore = 2\nidle = \"sleep\"\n[control]\nhttp = \"off\"\nsocket = \"/tmp/x.sock\"\n[expiry]\nbudget = 8",
    ] {
        let config = parse(head);
        let shown = config.to_toml();
        assert_eq!(
            Config::parse(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}")),
            config,
            "{shown}"
        );
    }
    let mirror = Config::parse("mode = \"mirror\"\n[[port]]\nname = \"m\"\ndevice = \"net_tap0\"").unwrap();
    assert_eq!(Config::parse(&mirror.to_toml()).unwrap(), mirror);
}

#[test]
fn tracking_options_are_set_one_by_one_as_in_the_file() {
    let mut options = TrackingOptions::new(Profile::Classic);
    for (key, value) in [
        ("tcp.pickup", "ack"),
        ("tcp.window_tracking", "false"),
        ("timeouts.tcp.established", "1h"),
        ("sysctl.nf_conntrack_udp_timeout", "7"),
        ("table.on_full", "drop_new"),
        ("zones.by", "none"),
        ("tunnel.inner", "true"),
    ] {
        options.set(key, value).unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(options.settings.tcp.pickup, Pickup::Ack);
    assert!(!options.settings.tcp.window_tracking);
    assert_eq!(options.settings.timeouts.get(TimeoutKey::TcpEstablished), Ticks::from_secs(3600));
    assert_eq!(options.settings.timeouts.get(TimeoutKey::Udp), Ticks::from_secs(7));
    assert_eq!(options.table.on_full, OnFull::DropNew);
    assert!(options.zones_by == By::Nothing && options.tunnel_inner);
    for (key, value, fix) in [
        ("tcp.pickup", "all", "use `any`, `ack`, `syn`"),
        ("tcp.pikcup", "ack", "did you mean `pickup`?"),
        ("worker.core", "1", "does nothing here"),
        ("zones.limit", "1", "does nothing here"),
        ("tcp.pickup", "ack\nmode = 1", "one line"),
    ] {
        let error = options.set(key, value).unwrap_err().to_string();
        assert!(error.contains(fix), "{key}={value}: {error}");
    }
}

#[test]
fn a_huge_file_is_refused_unread() {
    let path = std::env::temp_dir().join(format!("dpdk-conntrack-huge-{}.toml", std::process::id()));
    std::fs::write(&path, vec![b'#'; (MAX_FILE_BYTES + 1) as usize]).unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(error.contains("longer than 1 MiB"), "{error}");
}

#[test]
fn hostile_files_are_refused_or_read_in_bounded_time_and_told_in_few_words() {
    let fill = |unit: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        let mut number = 0;
        while text.len() < (MAX_FILE_BYTES as usize) - 200 {
            text.push_str(&unit(number));
            number += 1;
        }
        text
    };
    let million = MAX_FILE_BYTES as usize - 100;
    let texts = [
        ("arrays in arrays", format!("a = {}", "[".repeat(million))),
        ("tables in tables", format!("a = {}", "{a=".repeat(million / 3))),
        ("dots", format!("timeouts.{}a = 1", "a.".repeat(million / 2))),
        ("a long unknown key", format!("{} = 1", "k".repeat(million))),
        ("a long unknown timeout", format!("[timeouts]\n{} = 1", "k".repeat(million))),
        ("a long word", format!("profile = \"{}\"", "w".repeat(million))),
        ("a long duration", format!("[timeouts]\nicmp = \"{}\"", "1s ".repeat(million / 3))),
        ("many unknown timeouts", fill(&|n| format!("timeouts.x{n} = 1\n"))),
        (
            "many ports",
            fill(&|n| format!("[[port]]\nname=\"p{n}\"\ndevice=\"net_null{n}\"\nrole=\"inside\"\n")),
        ),
        (
            "many zones",
            format!(
                "zones.by = \"port_vlan\"\n{TWO_PORTS}\n{}",
                fill(&|n| {
                    format!(
                        "[[zone]]\nid={}\nport=\"lan\"\nvlan=\"{}.{}\"\n",
                        5000 + n % 60_000,
                        1 + n / 4000,
                        1 + n % 4000
                    )
                })
            ),
        ),
        ("many cores", format!("[eal]\ncores = \"{}0\"", "0-8191,".repeat(million / 7))),
        ("many policies", fill(&|_| "[[policy]]\nstate=[\"new\"]\naction=\"drop\"\n".to_owned())),
        ("many shares", format!("workers = 2\n[worker]\nshares = [{}]", "1,".repeat(million / 2))),
    ];
    for (what, text) in texts {
        // A machine may stand still for seconds, but not each time.
        let mut more = 0..4;
        let read = loop {
            let begun = std::time::Instant::now();
            let read = Config::parse(&text);
            let took = begun.elapsed();
            if took < std::time::Duration::from_secs(5) {
                break read;
            }
            assert!(more.next().is_some(), "{what}: {took:?}");
        };
        assert_eq!(read.is_ok(), what == "many zones", "{what}");
        let said = read.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.len() < 2_000, "{what}: {} bytes", said.len());
    }
}

/// The shipped files' lines, in an order and with words that nobody meant.
fn shuffled() -> impl Strategy<Value = String> {
    let lines: Vec<&str> =
        [include_str!("../../dpdk-config/inline.toml"), include_str!("../../dpdk-config/trunk.toml")]
            .into_iter()
            .flat_map(str::lines)
            .map(|line| line.strip_prefix("# ").filter(|key| key.contains(" = ")).unwrap_or(line))
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
    let words = [
        "-1",
        "0",
        "1e9",
        "\"\"",
        "\"auto\"",
        "[]",
        "[\"any\", 3]",
        "true",
        "\"\\u001b\"",
        "9999999999",
        "{ a = 1 }",
    ];
    let line = (0..lines.len(), proptest::option::weighted(0.2, proptest::sample::select(words.to_vec())));
    // Mostly pieces as they are, from anywhere, so that some still make a whole file.
    let piece = (line, 1..30_usize).prop_map(move |((at, word), count)| {
        let mut piece: Vec<String> = lines[at..].iter().take(count).map(|&line| line.to_owned()).collect();
        if let (Some(word), Some((key, _))) = (word, lines[at].split_once(" = ")) {
            piece[0] = format!("{key} = {word}");
        }
        piece.join("\n")
    });
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// `scripts/fuzz config` asks the same of any text.
    #[test]
    fn what_is_read_is_printed_and_read_to_the_same_and_what_is_refused_is_told_with_its_place(text in shuffled()) {
        for text in [text.clone(), format!("{text}\n{TWO_PORTS}")] {
            match Config::parse(&text) {
                Ok(read) => prop_assert_eq!(Config::parse(&read.to_toml()), Ok(read)),
                Err(error) => {
                    let said = error.to_string();
                    let lines = text.split('\n').count();
                    let placed = error.place().is_some_and(|(line, _)| line <= lines) && said.ends_with('^');
                    prop_assert!(placed || error.message().contains("[[port]]"), "{}", said);
                    prop_assert!(said.len() < 2_000 && said.lines().count() <= 4, "{}", said);
                }
            }
        }
    }
}

#[test]
fn no_word_of_the_file_gives_a_terminal_an_order() {
    for text in [
        "\"\\u001b[31m\" = 1",
        "profile = \"\\u001b[2J\"",
        "[timeouts]\n\"\\u001bx\" = 1",
        "[log]\nlevel = \"a\\nb\"",
        "[zones]\n\"\u{9b}\" = 3",
        "[[port]]\nname = \"a\"\ndevice = \"net_null0\\u001b\"",
    ] {
        let said = Config::parse(text).unwrap_err().to_string();
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
        let (first, rest) = said.split_once('\n').unwrap();
        assert!(first.contains("\\u{") || first.contains("\\n"), "spelled out: {first}");
        assert_eq!(rest.lines().count(), 3, "the place and nothing else: {rest}");
    }
}

#[test]
fn every_wrong_type_is_told_in_its_line_with_what_belongs_there() {
    let mut wrong = Vec::new();
    for (text, says) in [
        ("profile = 1", "takes a word"),
        ("workers = true", "or \"auto\""),
        ("workers = 1.5", "whole number or a text"),
        ("[tcp]\npickup = true", "takes a word"),
        ("[tcp]\nassured_late = \"yes\"", "write a boolean"),
        ("[timeouts]\nicmp = true", "not a duration"),
        ("[timeouts]\nicmp = [1]", "whole number or a text"),
        ("[table]\nmax_entries = 1.5", "write"),
        ("[worker]\nshares = 3", "write"),
        ("[[policy]]\nstate = \"new\"\naction = \"drop\"", "write"),
        ("policy = 3", "write"),
        ("[eal]\nraw = \"--x\"", "write"),
        ("[control]\nsocket = 3", "write"),
        ("[log]\nlevel = \"loud\"", "use `off`, `error`"),
        ("[log]\nlevel = \"inf\"", "did you mean `info`?"),
        ("[log]\nlevle = \"info\"", "did you mean `level`?"),
        ("[tcp", ""),
        ("tcp.pickup = \"any\"\ntcp.pickup = \"ack\"", "duplicate"),
    ] {
        let error = Config::parse(&format!("{text}\n{TWO_PORTS}")).unwrap_err();
        let placed = error.place().is_some() && error.to_string().contains('^');
        if !placed || !error.to_string().contains(says) {
            wrong.push(format!("{text}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
