//! The files in dpdk-config/, which an operator copies, are read as the program reads them.

use std::path::Path;

use dpdk_conntrack::config::{Config, Mode};

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
    assert!(read >= 3, "demo, inline and mirror were there once");
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
