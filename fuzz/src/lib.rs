//! Fuzz targets: for each kind of bytes that somebody else writes, what must hold whatever they are. Not only that nothing panics:
//! what was read is what would be written and read again, half a document is never taken for a whole one, and an error names the
//! place.
//!
//! They are run two ways, with the same corpus in `fuzz/corpus/<target>/`:
//!
//! * `cargo test -p vpcnet-fuzz` replays the corpus and then changes its entries at random, for `VPCNET_FUZZ_SECONDS` each
//!   ([`mutate`]).
//! * `make fuzz` is guided by coverage: libFuzzer, on stable Rust (`fuzz/guided`). What it finds worth keeping goes into the corpus.
//!
//! A target panics where something does not hold. This crate must not know the programs, only the crates that read.
#![forbid(unsafe_code)]
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)] // that is how a target says no

pub mod mutate;
mod targets;

/// A kind of input and what must hold for it.
pub struct Target {
    /// Its name, and its directory in the corpus.
    pub name: &'static str,
    /// Panics where it does not hold.
    pub check: fn(&[u8]),
    /// What the mutator puts in.
    pub words: &'static [&'static str],
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    targets::CHECKPOINT,
    targets::STATE,
    targets::EC2_XML,
    targets::IMDS,
    targets::CNI_STDIN,
    targets::CNI_ARGS,
    targets::KUBERNETES,
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    const ALL: &[Target] = &TARGETS;
    ALL.iter().find(|t| t.name == name)
}
