//! The one nftables table of ours, `ip vpcnet`: marks and source NAT for pods that talk to addresses outside the VPC.
//!
//! | chain | hook, priority | does |
//! |---|---|---|
//! | `restore_mark` | prerouting filter −150 (before every NAT) | connections from outside to the node's own address on the primary interface (NodePorts) get our connection mark; packets from pods get the packet mark of their connection |
//! | `set_mark` | prerouting filter −90 (after kube-proxy's DNAT) | new connections of pods to outside get both marks, so that they leave by the primary interface |
//! | `source_nat` | postrouting nat 110 (after kube-proxy's) | what leaves by the primary interface to outside gets its address |
//!
//! "Outside" is what is neither in the VPC's CIDRs nor excluded, looked at after a service's address was replaced by a
//! backend's. Chains of the filter type, since a nat chain is not asked again once kube-proxy has bound the connection. Only
//! new connections in their original direction: marking each packet by its destination would send the replies of pods on
//! secondary interfaces to peers outside the wrong way. Our bit is OR-ed in; kube-proxy's and Calico's bits live on.
//!
//! Connections that began under an earlier setting go on: their marks are restored while [`SnatConfig::earlier`] says so, and
//! the NAT chain stays, empty, without which the kernel would take its NAT hooks away and stop translating them. With SNAT off
//! the restoring of the present mark stays for ever, though nothing carries it: it makes the kernel follow connections, so that
//! one of that time is not taken for a new one, and translated in its middle, when SNAT is turned on.
//!
//! The table is replaced in one transaction, and only if it is not as wanted: there is no moment without it.

mod compare;
mod program;
mod rules;
mod watch;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::earlier::Earlier;

pub use crate::randomize::Randomize;
pub use program::NftError;
use program::Program;
pub(crate) use rules::{RESTORE_MARK, SOURCE_NAT};
pub use watch::{Culprit, TableWatch, Touched};

/// The table's name, in family `ip`.
pub const TABLE: &str = "vpcnet";

/// What the table shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnatConfig {
    /// The node's primary address, which outside sees.
    pub primary_ip: Ipv4Addr,
    /// Name of the primary interface's link.
    pub primary_link: String,
    /// The VPC's CIDRs. At least one, unless SNAT is external.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Further destinations that are to see the pods' own addresses.
    pub exclude: Vec<Ipv4Net>,
    /// Somebody else translates (a NAT gateway): pods keep their addresses.
    pub external_snat: bool,
    /// How ports are chosen.
    pub randomize: Randomize,
    /// Keep NodePort connections on the interface they came by.
    pub node_port: bool,
    /// The bits of ours in packet and connection marks; 0x80 unless set otherwise. Not 0.
    pub mark: u32,
    /// What the names of pods' host ends begin with: `eni`.
    pub veth_prefix: String,
    /// What connections and pods of an earlier setting still need.
    pub earlier: Earlier,
}

impl SnatConfig {
    /// Whether new connections are translated: SNAT is not external, and there are destinations outside.
    #[must_use]
    pub fn translates(&self) -> bool {
        !self.external_snat && !rules::exempts_everything(self)
    }
}

/// What [`SnatTable::ensure`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// Nothing: the kernel has the table as wanted.
    Unchanged,
    /// Wrote it, as there was none.
    Created,
    /// Wrote it, as it was another: a new configuration, or somebody changed it.
    Replaced,
}

/// Our table in the kernel.
#[derive(Debug)]
pub struct SnatTable {
    program: Program,
    /// What was written last, and how the kernel showed it right after. Versions of `nft` differ in how they show the
    /// same rule; the table must not be written again for that.
    written: Option<(SnatConfig, Value)>,
}

impl Default for SnatTable {
    fn default() -> Self {
        Self::with_program("nft")
    }
}

impl SnatTable {
    /// Uses this `nft` program, looked up in PATH if it has no slash.
    pub fn with_program(program: impl Into<std::ffi::OsString>) -> Self {
        Self {
            program: Program(program.into()),
            written: None,
        }
    }

    /// Makes the kernel's table as `config` wants it, in the network namespace of the calling thread; writes only if it
    /// differs.
    ///
    /// # Errors
    /// [`NftError`]; the table is then as before.
    pub fn ensure(&mut self, config: &SnatConfig) -> Result<Ensured, NftError> {
        rules::validate(config)?;
        let objects = rules::table(config);
        let found = self.observe()?;
        if let Some(found) = &found
            && self.is_as_wanted(config, &compare::wanted(&objects), found)
        {
            return Ok(Ensured::Unchanged);
        }
        self.program.apply(&rules::replacing(objects))?;
        self.written = self.observe()?.map(|shown| (config.clone(), shown));
        Ok(if found.is_some() {
            Ensured::Replaced
        } else {
            Ensured::Created
        })
    }

    /// Whether the kernel's table translates, or has translated and is kept for connections of that time.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn has_translation(&self) -> Result<bool, NftError> {
        Ok(self
            .observe()?
            .is_some_and(|shown| rules::has_translation(&shown)))
    }

    /// Takes the table away, if it is there.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn remove(&mut self) -> Result<(), NftError> {
        self.written = None;
        self.program.apply(&rules::removing())
    }

    /// What the kernel shows of our table, without handles and counters; none if there is no table.
    ///
    /// # Errors
    /// [`NftError`].
    pub fn observe(&self) -> Result<Option<Value>, NftError> {
        Ok(self
            .program
            .list_table(TABLE)?
            .map(|listed| compare::listed(&listed)))
    }

    fn is_as_wanted(&self, config: &SnatConfig, wanted: &Value, found: &Value) -> bool {
        wanted == found
            || self
                .written
                .as_ref()
                .is_some_and(|(last, shown)| last == config && shown == found)
    }
}
