//! Pieces of an input whose length is written before them.

use arbitrary::{Arbitrary, Result, Unstructured};

/// At most 255 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Short<'a>(pub &'a [u8]);

/// At most 65535 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Long<'a>(pub &'a [u8]);

/// As many as the input holds.
#[derive(Clone, Debug)]
pub struct Many<T>(pub Vec<T>);

impl<'a> Arbitrary<'a> for Short<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let len = u8::arbitrary(u)?;
        u.bytes(usize::from(len).min(u.len())).map(Self)
    }
}

impl<'a> Arbitrary<'a> for Long<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let len = u16::arbitrary(u)?;
        u.bytes(usize::from(len).min(u.len())).map(Self)
    }
}

impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Many<T> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut all = Vec::new();
        while !u.is_empty() {
            all.push(T::arbitrary(u)?);
        }
        Ok(Self(all))
    }
}
