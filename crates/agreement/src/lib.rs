//! How the tracker is held against Linux: one form for what either of them shows of a packet ([`shown`]),
//! a player that drives the tracker by a virtual clock ([`play`]), and the comparison ([`compare`]).
//! The recorded corpus, random programs against the live kernel and the shadow run all use these three.
//!
//! What was recorded is read by [`corpus`], played by [`replay`] under the written [`rules`], and told by [`report`].

pub mod allowed;
pub mod compare;
pub mod corpus;
pub mod duel;
pub mod kernel;
pub mod play;
pub mod program;
pub mod replay;
pub mod report;
pub mod rules;
pub mod settings;
pub mod shown;
