//! The tables by which pods reach the other family. The egress plugin writes them with the first such pod and takes them away with
//! the last; here they are kept meanwhile.
//!
//! What they shall do stands in the plugin's configuration, which the agent does not read. So a whole table is believed, and
//! one that is gone or not whole any more is written as it last was, while the node has routes to pods of its range.
//!
//! amazon-vpc-cni-k8s keeps connections from being opened to those pods by a rule of its agent's. On a node that was taken over it stays until
//! our table does that, or there are no such pods.

use std::sync::{Arc, Mutex};

use vpcnet_linux::egress::{self, EgressError, Ensured, Snat};
use vpcnet_linux::netlink::{NetlinkError, Socket};
use vpcnet_linux::original;

use super::RepairError;
use crate::logging::lock;
use crate::takeover::Takeover;

/// Both families' tables.
#[derive(Clone)]
pub struct Egress {
    /// IPv4's, IPv6's.
    families: Arc<Mutex<[Family; 2]>>,
    takeover: Arc<Takeover>,
}

/// What is known of one family.
#[derive(Default)]
struct Family {
    /// The table as it last was whole.
    last: Option<Snat>,
    /// The original's rule is gone, or never was.
    taken_over: bool,
}

/// A table of egress could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum EgressRepairError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Routes(#[from] EgressError),
}

impl Egress {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(takeover: Arc<Takeover>) -> Self {
        Self {
            families: Arc::default(),
            takeover,
        }
    }

    /// Looks at both tables, and writes what was taken or changed; says what was done.
    pub(super) async fn repair(&self) -> Result<Vec<String>, RepairError> {
        let Self { families, takeover } = self.clone();
        let work = move || {
            let mut done = Vec::new();
            for (family, v6) in lock(&families).iter_mut().zip([false, true]) {
                done.extend(one(&mut family.last, v6)?);
                if !family.taken_over && is_safe(family.last.as_ref(), v6)? {
                    match takeover.remove_reject(v6) {
                        Ok(()) => family.taken_over = true,
                        // It does what our table does: no harm, and tried again with the next look.
                        Err(error) => {
                            tracing::warn!(%error, "the rule of amazon-vpc-cni-k8s for addresses of egress stays");
                        }
                    }
                }
            }
            Ok::<_, EgressRepairError>(done)
        };
        Ok(tokio::task::spawn_blocking(work).await??)
    }
}

/// Whether nobody needs the original's rule: our table is in force, or nobody has an address that it protects.
fn is_safe(table: Option<&Snat>, v6: bool) -> Result<bool, EgressRepairError> {
    let range = original::egress_range(v6);
    let covered = table.is_some_and(|snat| snat.range.contains(&range));
    Ok(covered || !egress::has_routes_into(&mut Socket::open()?, range)?)
}

fn one(last: &mut Option<Snat>, v6: bool) -> Result<Option<String>, EgressRepairError> {
    if let Some(whole) = egress::observe_snat(v6)? {
        *last = Some(whole);
        return Ok(None);
    }
    let Some(wanted) = *last else {
        return Ok(None);
    };
    if !egress::has_routes_into(&mut Socket::open()?, wanted.range)? {
        // The last pod went, and the plugin took the table away.
        *last = None;
        return Ok(None);
    }
    Ok(match egress::ensure_snat(&wanted)? {
        Ensured::Unchanged => None,
        Ensured::Created => Some("write the table, which was gone".to_owned()),
        Ensured::Replaced(finding) => Some(format!("write the table anew: {finding}")),
    })
}
