//! The files in dpdk-config/, which an operator copies, are read as the program reads them.

use std::path::Path;

use dpdk_conntrack::config::{Config, Mode, sysctl};

fn load(name: &str) -> Config {
    Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config").join(name))
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_file_is_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
            read += 1;
        }
    }
    assert!(read >= 4, "demo, inline, mirror and trunk were there once");
}

#[test]
fn the_inline_file_shows_the_defaults_it_claims_to_show() {
    let shown = load("inline.toml");
    let bare = Config::parse(
        r#"
        [[port]]
        name = "lan"
        device = "0000:03:00.0"
        role = "inside"
        [[port]]
        name = "wan"
        device = "0000:03:00.1"
        role = "outside"
        "#,
    )
    .unwrap();
    assert_eq!(shown, bare);
}

#[test]
fn every_commented_key_of_the_inline_file_is_one_that_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config/inline.toml");
    let text = std::fs::read_to_string(path).unwrap();
    // `# key = value` at the start of a line is a key to switch on; prose never has that form.
    let switched_on: Vec<String> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key)
                if key.split(" = ").next().is_some_and(|name| !name.contains(' ')) && key.contains(" = ") =>
            {
                key.to_owned()
            }
            _ => line.to_owned(),
        })
        .collect();
    assert_ne!(switched_on.join("\n"), text.trim_end(), "the file has commented keys");
    Config::parse(&switched_on.join("\n")).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_mirror_file_has_nothing_that_could_send() {
    let config = load("mirror.toml");
    assert_eq!(config.mode, Mode::Mirror);
    assert!(config.ports.iter().all(|port| port.peer.is_none()));
}

#[test]
fn the_trunk_file_has_the_zones_and_limits_that_it_speaks_of() {
    let config = load("trunk.toml");
    assert_eq!(config.ports.iter().map(|port| port.mtu).collect::<Vec<_>>(), [9000, 9000, 1500, 1500]);
    assert_eq!(config.ports[2].peer, Some(3));
    let shown = config.to_toml();
    for words in ["by = \"port_vlan\"", "limit = 200000", "vlan = \"200.7\"", "limit = 50000"] {
        assert!(shown.contains(words), "{words} is missing:\n{shown}");
    }
}

#[test]
fn every_line_of_the_sysctl_sample_means_something_here() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config/conntrack.sysctl");
    let read = sysctl::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!((read.settings.len(), read.skipped.as_slice()), (10, [].as_slice()));
}

#[test]
fn the_folders_guide_names_every_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dpdk-config");
    let guide = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || guide.contains(&format!("({name})")), "{name} is not in the guide");
    }
}
