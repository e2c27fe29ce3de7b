//! Owners in doubt: how long they keep their address, and what confirms them.

use std::net::IpAddr;
use std::time::Duration;

use crate::ids::PodMeta;
use crate::kernel::HostRoute;
use crate::names::host_veth_suffix_nth;
use crate::owner::{Held, Owner, Standing, Superseded};
use crate::pool::Pool;
use crate::time::Now;

/// How long an owner that the kernel does not confirm keeps its address: a plugin may be between the agent's reply and
/// the veth. Also how long a plugin may take to replace the veth of a pod's earlier sandbox.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// Whether a look at the kernel's links may say something about owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// Every owner asked for its address in this life of the agent.
    Nobody,
    /// There are owners who did not; the kernel has shown the links of all of them.
    Possible,
    /// The last look did not show the link of some of them; they are given up when their grace ends.
    Now,
}

impl Pool {
    /// Whether owners are in doubt, or may be.
    #[must_use]
    pub fn doubt(&self) -> Doubt {
        let by = |owner: &Owner| match &owner.standing {
            Standing::Confirmed => Doubt::Nobody,
            Standing::Seen | Standing::Rebuilt { superseded: None } => Doubt::Possible,
            Standing::Unconfirmed { .. } | Standing::Rebuilt { superseded: Some(_) } => Doubt::Now,
        };
        let all = self.owners.values().map(by);
        all.max_by_key(|doubt| *doubt as u8).unwrap_or(Doubt::Nobody)
    }

    /// The host veths of all pods that exist, and where they lead.
    pub(crate) fn veths_seen(&mut self, now: Now, names: &[String], pods: &[HostRoute]) {
        for (key, owner) in &mut self.owners {
            let has_link = |held: &[Held]| {
                let addresses: Vec<IpAddr> = held.iter().map(|h| h.address).collect();
                has_link(&owner.meta, &addresses, names, pods)
            };
            match &owner.standing {
                Standing::Unconfirmed { .. } if has_link(&owner.held) => owner.standing = Standing::Seen,
                // Its DEL came while the agent was away, and its link was still there at the start; or it never comes, and
                // the link is the next sandbox's of the pod. Not so who asked in this life: his plugin may not have come as
                // far as the link.
                Standing::Seen if !has_link(&owner.held) => {
                    let until = now.mono.plus(GRACE);
                    owner.standing = Standing::Unconfirmed { until };
                }
                // Its veth is gone; should the list have been taken in mid-change, the next one or a restart confirms it.
                Standing::Rebuilt { superseded: None } if !names.contains(&key.container_id) => {
                    let by = Superseded {
                        by: key.clone(),
                        at: now.mono.plus(GRACE),
                    };
                    owner.standing = Standing::Rebuilt { superseded: Some(by) };
                }
                Standing::Rebuilt { superseded: Some(s) }
                    if s.by == *key && names.contains(&key.container_id) =>
                {
                    owner.standing = Standing::Rebuilt { superseded: None };
                }
                _ => {}
            }
        }
        self.refresh_grace();
    }

    /// Gives up owners whose grace has ended.
    pub(crate) fn end_graces(&mut self, now: Now) {
        if self.grace.is_none_or(|at| at > now.mono) {
            return;
        }
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        for (key, owner) in &self.owners {
            match &owner.standing {
                Standing::Unconfirmed { until } if *until <= now.mono => gone.push(key.clone()),
                Standing::Rebuilt { superseded: Some(s) } if s.at <= now.mono => {
                    // Only if its successor was really given an address, the veth is the successor's now.
                    if self.owners.contains_key(&s.by) {
                        gone.push(key.clone())
                    } else {
                        kept.push(key.clone())
                    }
                }
                _ => {}
            }
        }
        for key in gone {
            self.release(&key, now);
        }
        for key in kept {
            if let Some(owner) = self.owners.get_mut(&key) {
                owner.standing = Standing::Rebuilt { superseded: None };
            }
        }
        self.refresh_grace();
    }

    /// Finds the next end of a grace anew.
    pub(crate) fn refresh_grace(&mut self) {
        let ends = self.owners.values().filter_map(|o| match &o.standing {
            Standing::Unconfirmed { until } => Some(*until),
            Standing::Rebuilt { superseded: Some(s) } => Some(s.at),
            _ => None,
        });
        self.grace = ends.min();
    }
}

/// Does one of these links belong to the sandbox that has these addresses? Links bear the name of the pod, whatever their prefix, and
/// one pod may have had several sandboxes: the plugin puts the link of a later one in the place of the earlier one's. So a link that
/// leads to other addresses alone is another sandbox's; one that leads nowhere may be this one's, with its plugin at work.
pub(crate) fn has_link(meta: &PodMeta, addresses: &[IpAddr], names: &[String], pods: &[HostRoute]) -> bool {
    // One for each of its interfaces.
    let suffixes: Vec<String> = (0..meta.interfaces.max(1))
        .map(|n| host_veth_suffix_nth(&meta.namespace, &meta.name, n))
        .collect();
    let its = |name: &str| suffixes.iter().any(|suffix| name.ends_with(suffix.as_str()));
    if pods
        .iter()
        .any(|r| addresses.contains(&r.address) && its(&r.host_veth))
    {
        return true;
    }
    let leads_elsewhere = |name: &String| pods.iter().any(|r| r.host_veth == *name);
    names.iter().any(|name| its(name) && !leads_elsewhere(name))
}
