//! The node's own network: what `vpcnet-linux` is asked to bring about for the interfaces the pool uses.
//!
//! One wanted state; every change of it is applied as a whole, one at a time, on a blocking thread, so that the loop that
//! answers pods does not wait for the kernel's network lock.

mod link;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use ipnet::{IpNet, Ipv4Net};
use vpcnet_ipam::{EniId, InterfaceFacts, InterfaceKind, route_table};
use vpcnet_linux::host::{HostError, HostWanted, OwnRule, Primary, Secondary};
use vpcnet_linux::netlink::{NetlinkError, Socket};
use vpcnet_linux::sysctl::Tree;
use vpcnet_linux::{Mac, host};

use crate::config::{Family, HostSettings};
use crate::executor::gateway;
use crate::leftovers::{Leftovers, present_mark};
use crate::logging::lock;
use crate::metrics::Metrics;

pub use link::{Appeared, LinkError};

/// The host's network is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// Netlink itself fails.
    #[error("cannot use netlink: {0}")]
    Netlink(#[from] NetlinkError),
    /// Something could not be read or changed. The others were.
    #[error("the host's network could not be set up: {}", join(.0))]
    Changes(Vec<HostError>),
    /// No link has the MAC of an interface that was asked for.
    #[error(
        "no link has the MAC {0}; is the interface attached to this instance, and not moved to another namespace?"
    )]
    NoLink(Mac),
    /// An interface's MAC is none.
    #[error("{0:?} is not a MAC address")]
    Mac(String),
    /// The primary interface is not known yet.
    #[error("the primary interface is not known yet")]
    NoPrimary,
    /// The thread that did it died.
    #[error("setting up the host was cut short: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

fn join(errors: &[HostError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    settings: HostSettings,
    leftovers: Arc<Leftovers>,
    metrics: Arc<Metrics>,
    wanted: Mutex<Wanted>,
    /// Held while changes are made.
    turn: tokio::sync::Mutex<()>,
    /// Index of the primary interface's link; 0: not seen yet.
    primary_index: AtomicU32,
}

#[derive(Default)]
struct Wanted {
    primary: Option<Mac>,
    secondaries: BTreeMap<EniId, Secondary>,
    gone: Vec<IpAddr>,
}

impl Host {
    /// Nothing is wanted yet.
    #[must_use]
    pub fn new(settings: HostSettings, leftovers: Arc<Leftovers>, metrics: Arc<Metrics>) -> Self {
        let inner = Inner {
            settings,
            leftovers,
            metrics,
            wanted: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            primary_index: AtomicU32::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Ends when a link with this MAC is there. Listening begins at once, before the future is first polled.
    pub fn link(&self, mac: &str) -> Appeared {
        link::appearance(mac)
    }

    /// Whether pods have IPv6 addresses.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.inner.settings.family == Family::V6
    }

    /// Takes an interface into the wanted state. Others' interfaces, and those no pod can use, are left alone.
    fn want(&self, facts: &InterfaceFacts) -> Result<Option<Mac>, SetUpError> {
        let mac: Mac = facts
            .mac
            .parse()
            .map_err(|_| SetUpError::Mac(facts.mac.clone()))?;
        let mut wanted = lock(&self.inner.wanted);
        if facts.is_primary {
            wanted.primary = Some(mac);
            return Ok(Some(mac));
        }
        // With IPv6 all pods of the first card are on the primary interface: others serve nobody here.
        if !facts.managed || facts.kind == InterfaceKind::EfaOnly || self.is_ipv6() {
            return Ok(None);
        }
        let address = IpAddr::V4(facts.primary_address);
        wanted.gone.retain(|gone| *gone != address);
        let secondary = Secondary {
            mac,
            mtu: self.inner.settings.mtu,
            address: IpNet::V4(with_prefix(facts)),
            gateway: IpAddr::V4(gateway(facts.subnet_cidr)),
            table: facts
                .table
                .unwrap_or_else(|| route_table(facts.card, facts.device)),
            own_rule: match facts.kind {
                InterfaceKind::Trunk => OwnRule::None,
                // A table of somebody else's comes with his rule.
                _ if facts.table.is_some() => OwnRule::Foreign,
                _ => OwnRule::Ours,
            },
        };
        wanted.secondaries.insert(facts.id.clone(), secondary);
        Ok(Some(mac))
    }

    /// Sets one interface up, and whatever else is not as wanted.
    ///
    /// # Errors
    /// [`SetUpError`]; also when its link is not there.
    pub async fn set_up(&self, facts: &InterfaceFacts) -> Result<(), SetUpError> {
        let Some(mac) = self.want(facts)? else {
            return Ok(());
        };
        let made = self.apply().await?;
        if made.missing.contains(&mac) {
            Err(SetUpError::NoLink(mac))
        } else {
            Ok(())
        }
    }

    /// Sets all these interfaces up at start. Returns how many changes it took, and the interfaces without a link.
    ///
    /// # Errors
    /// [`SetUpError`], also when the primary interface's link is not there.
    pub fn set_up_now(&self, interfaces: &[InterfaceFacts]) -> Result<(usize, Vec<Mac>), SetUpError> {
        for facts in interfaces {
            self.want(facts)?;
        }
        let wanted = self.wanted()?;
        let made = self.seen(make(&self.tree(), &wanted)?);
        if made.missing.contains(&wanted.primary.mac) {
            Err(SetUpError::NoLink(wanted.primary.mac))
        } else {
            Ok((made.changes.len(), made.missing))
        }
    }

    /// Puts right whatever is not as wanted; says what was done, a sentence for each change. Interfaces without a link are left
    /// out.
    ///
    /// # Errors
    /// [`SetUpError`].
    pub async fn repair(&self) -> Result<Vec<String>, SetUpError> {
        Ok(self.apply().await?.changes)
    }

    /// Whether the link with this MAC is one of the interfaces that are set up.
    #[must_use]
    pub fn has_mac(&self, mac: Mac) -> bool {
        let wanted = lock(&self.inner.wanted);
        wanted.primary == Some(mac) || wanted.secondaries.values().any(|s| s.mac == mac)
    }

    /// Whether this is the routing table of one of them.
    #[must_use]
    pub fn has_table(&self, table: u32) -> bool {
        lock(&self.inner.wanted)
            .secondaries
            .values()
            .any(|s| s.table == table)
    }

    /// The index of the primary interface's link, once seen.
    #[must_use]
    pub fn primary_index(&self) -> Option<u32> {
        Some(self.inner.primary_index.load(Ordering::Relaxed)).filter(|index| *index != 0)
    }

    /// An interface is no more: what was set up for it goes.
    pub async fn forget(&self, eni: &EniId) {
        {
            let mut wanted = lock(&self.inner.wanted);
            let Some(secondary) = wanted.secondaries.remove(eni) else {
                return;
            };
            wanted.gone.push(secondary.address.addr());
        }
        if let Err(error) = self.apply().await {
            self.inner.metrics.error("freeENIDeleteRulesFailed");
            tracing::warn!(%eni, %error, "rules of a deleted interface may be left");
        }
    }

    /// Brings the kernel to the wanted state.
    async fn apply(&self) -> Result<Made, SetUpError> {
        let _turn = self.inner.turn.lock().await;
        let wanted = self.wanted()?;
        let tree = self.tree();
        let made = tokio::task::spawn_blocking(move || make(&tree, &wanted)).await??;
        Ok(self.seen(made))
    }

    fn tree(&self) -> Tree {
        Tree::of_the_host(self.inner.settings.proc_sys.as_deref())
    }

    fn seen(&self, made: Made) -> Made {
        if let Some(index) = made.primary_index {
            self.inner.primary_index.store(index, Ordering::Relaxed);
        }
        made
    }

    fn wanted(&self) -> Result<HostWanted, SetUpError> {
        let settings = &self.inner.settings;
        let wanted = lock(&self.inner.wanted);
        Ok(HostWanted {
            primary: Primary {
                mac: wanted.primary.ok_or(SetUpError::NoPrimary)?,
                mtu: settings.mtu,
            },
            secondaries: wanted.secondaries.values().cloned().collect(),
            ipv6: self.is_ipv6(),
            marks: self
                .inner
                .leftovers
                .earlier()
                .marks
                .into_iter()
                .chain(present_mark(settings))
                .collect(),
            // Their rules are of IPv4 only.
            services: if self.is_ipv6() {
                Vec::new()
            } else {
                settings.external_services.clone()
            },
            gone: wanted.gone.clone(),
        })
    }
}

/// An interface's own address with its subnet's prefix length.
fn with_prefix(facts: &InterfaceFacts) -> Ipv4Net {
    Ipv4Net::new_assert(facts.primary_address, facts.subnet_cidr.prefix_len())
}

/// What was done.
struct Made {
    /// A sentence for each change.
    changes: Vec<String>,
    /// Interfaces without a link.
    missing: Vec<Mac>,
    primary_index: Option<u32>,
}

fn make(tree: &Tree, wanted: &HostWanted) -> Result<Made, SetUpError> {
    let mut socket = Socket::open()?;
    let observed = host::observe(&mut socket, tree, wanted).map_err(|e| SetUpError::Changes(vec![e]))?;
    let plan = host::diff(&observed, wanted);
    for change in &plan.changes {
        tracing::info!(%change, "host");
    }
    let errors = host::apply(&mut socket, tree, &plan.changes);
    if !errors.is_empty() {
        return Err(SetUpError::Changes(errors));
    }
    let primary = observed.links.iter().find(|l| l.mac == Some(wanted.primary.mac));
    Ok(Made {
        changes: plan.changes.iter().map(ToString::to_string).collect(),
        missing: plan.missing,
        primary_index: primary.map(|l| l.index),
    })
}
