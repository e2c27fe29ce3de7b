//! What the pool writes down of its own beside the checkpoint: what the checkpoint has no room for. Losing it costs
//! time and a few EC2 calls, never an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::event::InterfaceFacts;
use crate::ids::{CardIndex, EniId, PodKey};
use crate::intent::{Intent, IntentId};
use crate::interface::{Interface, LastOwner};
use crate::owner::Owner;
use crate::time::Mono;

/// `version` of a [`Journal`].
pub const JOURNAL_VERSION: u32 = 2;
/// Versions that are read. 1 knew no prefixes: its reader would take the addresses of one for single addresses.
pub(crate) const READABLE: std::ops::RangeInclusive<u32> = 1..=JOURNAL_VERSION;

/// The pool's own state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Journal {
    /// [`JOURNAL_VERSION`] or an earlier one.
    pub version: u32,
    /// The instance it belongs to.
    pub instance_id: String,
    /// The boot in which its points in time mean something.
    pub boot_id: String,
    pub(crate) next_id: u64,
    pub(crate) interfaces: BTreeMap<EniId, Interface>,
    pub(crate) intents: BTreeMap<IntentId, Intent>,
    pub(crate) limbo: BTreeMap<IpAddr, Limbo>,
    pub(crate) deleted: BTreeMap<EniId, Mono>,
    /// The network cards that were managed; none in what earlier versions wrote: the first one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cards: Vec<CardIndex>,
    /// Until then a read of EC2 may lag behind what a life did before the first that has a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unsure_until: Option<Mono>,
}

impl Journal {
    /// The interfaces last known, so that their links can be set up while IMDS is silent.
    pub fn interfaces(&self) -> impl Iterator<Item = InterfaceFacts> + '_ {
        self.interfaces.values().map(Interface::facts)
    }
}

/// An address that cools down while its interface is not known: if the interface shows up it goes on cooling.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Limbo {
    pub(crate) until: Mono,
    pub(crate) last: LastOwner,
}

/// An owner that was released a moment ago, in case that cannot be written down.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Released {
    pub(crate) at: Mono,
    pub(crate) key: PodKey,
    pub(crate) owner: Owner,
}
