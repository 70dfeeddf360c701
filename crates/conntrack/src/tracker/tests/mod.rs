//! Dialogues: two hosts, `client` and `server`, one tracker between them, and a clock that the test moves.

// Counts what only this crate's own tests can see.
#[cfg(not(feature = "planted-faults"))]
mod bounds;
mod bursts;
mod classic;
mod dialogue;
mod edit;
mod full;
mod linux;
mod meeting;
mod records;
mod timeouts;
mod what_if;
mod zones;
