//! Any text as a configuration: it is read or refused, never a panic. What is refused is told in few words, on one line that a
//! terminal takes no orders from, with its place in the text. What is read is printed, and reads back to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// These files alone: the appliance around them would bring DPDK into every run.
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/config/mod.rs"]
mod config;

use config::{Config, ConfigError};

fuzz_target!(|text: &str| {
    let read = match Config::parse(text) {
        Err(error) => return look(text, &error),
        Ok(read) => read,
    };
    let printed = read.to_toml();
    let again = Config::parse(&printed).unwrap_or_else(|error| panic!("{error} in\n{printed}"));
    assert_eq!(again, read, "{printed}");
    assert_eq!(read.keys_that_need_a_restart(&again), Ok(Vec::new()));
    // A mirror has no use for a policy, and too long a one is refused when it is read.
    assert!(read.tracker_policy().is_ok());
});

fn look(text: &str, error: &ConfigError) {
    let said = error.to_string();
    assert!(!error.message().is_empty() && said.len() < 2_000, "{} bytes: {said}", said.len());
    assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
    assert!(!error.message().contains('\n'), "{said}");
    // An empty text has one line, and what is missing at the end is behind the last.
    let lines = text.matches('\n').count() + 1;
    let Some((line, column)) = error.place() else {
        // What is not there has no place: it is named as it would be written.
        return assert!(error.message().contains("[[port]]"), "neither place nor table: {said}");
    };
    assert!((1..=lines).contains(&line), "line {line} of {lines}: {said}");
    let of_line = text.split('\n').nth(line - 1).map_or(0, |line| line.chars().count());
    assert!((1..=of_line + 1).contains(&column), "column {column} of {of_line}: {said}");
    assert!(said.ends_with('^'), "no caret: {said}");
}
