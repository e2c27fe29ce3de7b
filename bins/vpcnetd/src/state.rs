//! What the agent keeps of its own beside the original's checkpoint: which machine it is on, what it knows of it, and the
//! pool's journal. With it a restarted agent serves at once and asks nobody; without it it only starts slower.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use vpcnet_ipam::{EniId, Journal, Limits};

use crate::aims::Zone;

/// Written in the file; any other value means somebody else's file.
pub const FORMAT: &str = "vpcnet-state/1";

/// The instance.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// `i-…`
    pub instance_id: String,
    /// `m5.large`
    pub instance_type: String,
    /// `eu-central-1`
    pub region: String,
    /// `eu-central-1a`
    pub availability_zone: String,
    /// `vpc-…`
    #[serde(default)]
    pub vpc_id: String,
    /// MAC of the primary interface, lower case.
    pub mac: String,
    /// The node's address.
    pub local_ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, asked for only where pods have such.
    #[serde(default)]
    pub local_ipv6: Option<Ipv6Addr>,
}

/// What the agent knows of its surroundings. Survives restarts in the state file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The instance.
    pub machine: Machine,
    /// Makes client tokens differ from those of an earlier life whose state was lost.
    pub token_salt: String,
    /// CIDRs of the VPC.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Its IPv6 CIDRs, asked for only where pods have IPv6 addresses.
    #[serde(default)]
    pub vpc_ipv6_cidrs: Vec<Ipv6Net>,
    /// Security groups of the primary interface.
    pub groups: Vec<String>,
    /// Those our other interfaces have; differs from `groups` until EC2 has taken a change.
    pub applied_groups: Vec<String>,
    /// Interfaces that were made with other groups than the primary one had when they were ready, until EC2 has taken the change.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub behind: BTreeSet<EniId>,
    /// Interfaces of which EC2 has not confirmed yet that they go with the instance, with their attachment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outliving: BTreeMap<EniId, String>,
    /// What the type allows.
    pub limits: Limits,
    /// The subnets of the node's zone, once described.
    #[serde(default)]
    pub zone: Option<Zone>,
    /// Tags of interfaces made here. From the settings, at each start.
    #[serde(skip)]
    pub tags: BTreeMap<String, String>,
    /// Creations that may not have ended, by client token.
    #[serde(default)]
    pub intents: BTreeMap<String, Intent>,
}

/// What a `CreateNetworkInterface` call is made with that would otherwise differ when it is repeated.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Intent {
    /// Goes into the tag `node.k8s.amazonaws.com/createdAt`; nanoseconds since the Unix epoch.
    pub created_at_ns: i64,
    /// Security groups.
    pub groups: Vec<String>,
    /// Tags, but for that time.
    pub tags: BTreeMap<String, String>,
    /// An attempt's answer was lost.
    pub unsure: bool,
}

/// The file as it is read.
#[derive(Deserialize)]
pub struct StateFile {
    format: String,
    /// Surroundings.
    pub facts: Facts,
    /// The pool's own part.
    pub pool: Journal,
}

/// The file as it is written, without copying what goes into it.
#[derive(Serialize)]
struct StateFileRef<'a> {
    format: &'static str,
    facts: &'a Facts,
    pool: &'a Journal,
}

/// The state file is not usable; a start without it is slower, nothing else.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No JSON, or not of this shape.
    #[error("not readable as agent state: {0}")]
    Parse(#[from] serde_json::Error),
    /// Another format.
    #[error("format {found:?} instead of {FORMAT:?}: written by another version")]
    Format {
        /// What it says.
        found: String,
    },
}

impl StateFile {
    /// Reads the file's content.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, StateError> {
        let mut file: Self = serde_json::from_slice(bytes)?;
        // Answers of the life that wrote it were read by nobody: each creation in it may have been made, and what it was made with is
        // dropped only once EC2 told of it. A repeat with another tag would be refused for good.
        for intent in file.facts.intents.values_mut() {
            intent.unsure = true;
        }
        if file.format == FORMAT {
            Ok(file)
        } else {
            Err(StateError::Format { found: file.format })
        }
    }

    /// The file's content.
    ///
    /// # Errors
    /// [`StateError::Parse`] if something in it has no JSON form.
    pub fn write(facts: &Facts, pool: &Journal) -> Result<Vec<u8>, StateError> {
        Ok(serde_json::to_vec(&StateFileRef {
            format: FORMAT,
            facts,
            pool,
        })?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use vpcnet_ipam::{CardLimits, Identity, Limits, Pool, Targets};

    #[test]
    fn what_an_earlier_life_had_under_way_may_have_been_done() {
        let limits = Limits {
            cards: vec![CardLimits {
                interfaces: 3,
                ..CardLimits::default()
            }],
            ipv4_per_interface: 10,
        };
        let identity = Identity {
            instance_id: "i-1".into(),
            token_salt: "salt".into(),
            boot_id: "boot".into(),
        };
        let pool = Pool::new(identity, limits, Targets::default()).unwrap();
        let mut facts = Facts::default();
        facts.intents.insert("token".into(), Intent::default());
        let written = StateFile::write(&facts, &pool.journal()).unwrap();
        let read = StateFile::parse(&written).unwrap();
        assert!(read.facts.intents.values().all(|i| i.unsure));
    }
}
