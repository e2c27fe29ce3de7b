//! What the node agent of amazon-vpc-cni-k8s leaves in the kernel's packet filter: found, judged, and taken away.
//!
//! | back end | where | what |
//! |---|---|---|
//! | iptables, by either of its programs | `nat` | chains `AWS-SNAT-CHAIN-n` and `AWS-CONNMARK-CHAIN-n` of every release, the rules that lead there, the restoring of the mark |
//! | | `mangle` `PREROUTING` | the rules named "AWS, primary ENI", for whichever mark, prefix and interface |
//! | | `filter` `FORWARD`, in both families | the rule that keeps everybody from opening connections to pods' egress: [`remove_reject`] |
//! | nftables | table `ip aws-cni` | all of it |
//!
//! Rules of others in the same tables are not touched. What `iptables-nft` wrote is read and taken away by netlink, in one
//! transaction with the table `ip aws-cni`; no program is needed. For the kernel's older tables there is no such way, so
//! `iptables-legacy` is run, and only where such tables are there.
//!
//! To be taken away once our table is in force. Until then both do the same to a packet: of two source translations the first one
//! settles a connection, and a bit that is set in a mark twice is set. Connections that are established keep what they were given.

mod legacy;
mod nft;
mod rejects;
mod rules;
mod theirs;

use std::collections::BTreeSet;

use crate::netlink::{Errno, NetlinkError};
use crate::nfnetlink::Nfnetlink;

pub use legacy::{LegacyError, Programs};
pub use rejects::{egress_range, remove_reject};
pub use rules::{Old, collapse, old_rules};

/// Somebody else wrote the ruleset between our look and our change, so often: then it is an error.
const TRIES: u32 = 5;

/// Its parts could not be read or taken away.
#[derive(Debug, thiserror::Error)]
pub enum OriginalError {
    /// In nftables.
    #[error(transparent)]
    Nftables(#[from] NetlinkError),
    /// In the older tables.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
}

/// Where iptables keeps rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// nftables, also by `iptables-nft`.
    Nftables,
    /// The kernel's older tables, by `iptables-legacy`.
    Legacy,
}

impl Backend {
    /// As in `iptables --version`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Legacy => "legacy",
        }
    }
}

/// What is there.
#[derive(Debug)]
pub struct Found {
    nft: nft::Parts,
    legacy: Result<legacy::Parts, LegacyError>,
}

/// What was taken away of one back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Where.
    pub backend: Backend,
    /// Whole tables.
    pub tables: Vec<String>,
    /// Chains, with all in them.
    pub chains: Vec<String>,
    /// Rules in chains of others.
    pub rules: usize,
}

impl std::fmt::Display for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if !self.tables.is_empty() {
            parts.push(format!("table {}", self.tables.join(", ")));
        }
        if !self.chains.is_empty() {
            parts.push(format!("chains {}", self.chains.join(", ")));
        }
        if self.rules > 0 {
            let plural = if self.rules == 1 { "" } else { "s" };
            parts.push(format!("{} rule{plural} in other chains", self.rules));
        }
        write!(f, "{} ({})", parts.join("; "), self.backend.name())
    }
}

/// What of the original's work is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InForce {
    /// It has set the host up at least so far: it makes the first SNAT chain whatever its settings are.
    pub begun: bool,
    /// Connections to outside are translated.
    pub translates: bool,
    /// Connections of pods to outside get the mark.
    pub marks_outgoing: bool,
    /// Connections that come in by the primary interface for the node get the mark.
    pub marks_incoming: bool,
    /// Marks that are restored into packets from pods.
    pub restores: BTreeSet<u32>,
}

impl InForce {
    fn and(mut self, other: Self) -> Self {
        self.begun |= other.begun;
        self.translates |= other.translates;
        self.marks_outgoing |= other.marks_outgoing;
        self.marks_incoming |= other.marks_incoming;
        self.restores.extend(other.restores);
        self
    }
}

impl Found {
    /// Looks, in the network namespace of the calling thread. That the older tables cannot be read is no error here: see
    /// [`Self::unread`].
    ///
    /// # Errors
    /// nftables cannot be read.
    pub fn look(programs: &Programs) -> Result<Self, NetlinkError> {
        Ok(Self {
            nft: nft::look(&mut Nfnetlink::open()?)?,
            legacy: legacy::look(programs),
        })
    }

    /// Whether nothing of the original's was found.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.nft.is_nothing() && self.legacy.as_ref().map_or(true, legacy::Parts::is_nothing)
    }

    /// Why it is not known what is in the older tables.
    #[must_use]
    pub fn unread(&self) -> Option<&LegacyError> {
        self.legacy.as_ref().err()
    }

    /// What is in force.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        let nft = self.nft.in_force();
        match &self.legacy {
            Ok(legacy) => nft.and(legacy.in_force()),
            Err(_) => nft,
        }
    }
}

/// Takes away all there is, each back end in one step; says what that was. Nothing of others is touched.
///
/// # Errors
/// [`OriginalError`] with what was done before. What is not taken away is as it was.
pub fn remove(programs: &Programs) -> (Vec<Removed>, Result<(), OriginalError>) {
    let mut removed = Vec::new();
    let nft = remove_nft(&mut removed);
    let legacy = legacy::look(programs).and_then(|parts| {
        if parts.is_nothing() {
            return Ok(());
        }
        legacy::remove(programs, &parts)?;
        removed.push(parts.removed());
        Ok(())
    });
    let outcome = nft
        .map_err(OriginalError::from)
        .and(legacy.map_err(OriginalError::from));
    (removed, outcome)
}

fn remove_nft(removed: &mut Vec<Removed>) -> Result<(), NetlinkError> {
    let mut netlink = Nfnetlink::open()?;
    let mut tries = 1;
    loop {
        let parts = nft::look(&mut netlink)?;
        if parts.is_nothing() {
            return Ok(());
        }
        match nft::remove(&mut netlink, &parts) {
            Ok(()) => {
                removed.push(parts.removed());
                return Ok(());
            }
            // A rule that somebody took first, or led to a chain of theirs: seen by another look.
            Err(error) if tries < TRIES && error.errno().is_some_and(is_race) => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn is_race(errno: Errno) -> bool {
    matches!(errno.0, libc::ENOENT | libc::EBUSY | libc::EAGAIN | libc::EINTR)
}
