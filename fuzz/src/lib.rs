//! What the fuzz targets share: a fuzzer's bytes → packets whose lengths and checksums are right, so that they get
//! past verification. Every input is read from its front to its end, so that `fuzz/seed` can write some.

pub mod checksum;
pub mod input;
pub mod packet;
