//! The tables by which pods reach the other family. The egress plugin writes them with the first such pod and takes them away with
//! the last; here they are kept meanwhile.
//!
//! What they shall do stands in the plugin's configuration, which the agent does not read. So a whole table is believed, and
//! one that is gone or not whole any more is written as it last was, while the node has routes to pods of its range.

use std::sync::{Arc, Mutex};

use vpcnet_linux::egress::{self, EgressError, Ensured, Snat};
use vpcnet_linux::netlink::{NetlinkError, Socket};

use super::RepairError;
use crate::logging::lock;

/// The tables as they last were whole: IPv4's, IPv6's.
#[derive(Clone, Default)]
pub struct Egress {
    last: Arc<Mutex<[Option<Snat>; 2]>>,
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
    /// Looks at both tables, and writes what was taken or changed; says what was done.
    pub(super) async fn repair(&self) -> Result<Vec<String>, RepairError> {
        let last = Arc::clone(&self.last);
        let work = move || {
            let mut done = Vec::new();
            for (last, v6) in lock(&last).iter_mut().zip([false, true]) {
                done.extend(one(last, v6)?);
            }
            Ok::<_, EgressRepairError>(done)
        };
        Ok(tokio::task::spawn_blocking(work).await??)
    }
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
