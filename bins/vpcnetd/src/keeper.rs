//! Keeps the kernel as it is wanted. The kernel tells of every edit of links, addresses, routes, rules, parameters and
//! nftables; what somebody took or changed of ours is put back some milliseconds later, and he is named, where the
//! kernel names him, in the log and in `vpcnet status`.
//!
//! Our own edits are told as well; the look that follows finds nothing to do.

mod due;
mod egress;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use vpcnet_ipam::{Lease, MIGRATED_NETWORK, host_veth_suffix_nth};
use vpcnet_linux::Mac;
use vpcnet_linux::netlink::{NetlinkError, Socket};
use vpcnet_linux::nft::{TableWatch, Touched};
use vpcnet_linux::pod::{self, Gone, Kept};
use vpcnet_linux::watch::{Event, Group, Notice, Watch, WatchError};

use crate::core::CoreHandle;
use crate::host::{Host, SetUpError};
use crate::leftovers::Leftovers;
use crate::metrics::Metrics;
use crate::newcomers::{Newcomers, may_be_interface};
use crate::published::Publisher;
use crate::snat::Snat;
use due::{Due, Ours, Place, place_of};

pub use egress::Egress;

/// What is listened to where pods have IPv4 addresses.
const IPV4: &[Group] = &[
    Group::Link,
    Group::Address4,
    Group::Route4,
    Group::Rule4,
    Group::Parameters4,
];
/// And where they have IPv6 addresses; forwarding of IPv4 is theirs too, for their egress.
const IPV6: &[Group] = &[
    Group::Link,
    Group::Address6,
    Group::Route6,
    Group::Rule6,
    Group::Parameters4,
    Group::Parameters6,
];
/// Before the subscription is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// After what was put back for a pod is looked at once more: a plugin that undoes a failed ADD takes its rules first, and the
/// link and the address only then.
const LOOK_BACK: Duration = Duration::from_millis(250);

/// The keeper.
pub struct Keeper {
    /// The node's interfaces.
    pub host: Host,
    /// The table.
    pub snat: Arc<Snat>,
    /// Whose address is whose.
    pub core: CoreHandle,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where fights are told.
    pub publisher: Publisher,
    /// Who looks for interfaces that others attach.
    pub newcomers: Arc<Newcomers>,
    /// Told when the link of a pod has gone.
    pub pod_links: Arc<Notify>,
    /// What pods' host ends may be called.
    pub leftovers: Arc<Leftovers>,
    /// The tables of pods' egress.
    pub egress: Egress,
}

/// The kernel cannot be listened to.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("cannot wait for the kernel's notices: {0}")]
    Wait(#[from] std::io::Error),
}

/// A place could not be looked at or put right.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error(transparent)]
    Host(#[from] SetUpError),
    #[error(transparent)]
    Table(#[from] crate::snat::SnatError),
    #[error(transparent)]
    Pod(#[from] NetlinkError),
    #[error(transparent)]
    Egress(#[from] egress::EgressRepairError),
    #[error("it was cut short: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl Keeper {
    /// Keeps until the agent ends.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.keep().await {
                tracing::error!(%error, "foreign edits of the node's network are not seen, and not put right");
                self.metrics.error("watchKernelFailed");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn keep(&self) -> Result<(), KeepError> {
        let groups = if self.host.is_ipv6() { IPV6 } else { IPV4 };
        let mut kernel = listen(Watch::open(groups)?)?;
        let mut tables = listen(TableWatch::open()?)?;
        let mut due = Due::default();
        let mut put_back = BTreeMap::new();
        // What was edited before we listened.
        for place in [Place::Host, Place::Table, Place::Egress] {
            due.edited(place, None, Instant::now());
        }
        loop {
            let next = due.next();
            let look = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                notices = told(&mut kernel, Watch::next_event) => self.note(&mut due, notices?),
                touched = told(&mut tables, TableWatch::next_event) => {
                    for Touched { snat, egress, by } in touched? {
                        let by = by.map(|c| format!("process {} ({})", c.pid, c.name));
                        for (place, touched) in [(Place::Table, snat), (Place::Egress, egress)] {
                            if touched {
                                due.edited(place, by.clone(), Instant::now());
                            }
                        }
                    }
                }
                () = look => {
                    while let Some((place, by)) = due.take(Instant::now()) {
                        self.look(&mut due, &mut put_back, place, by).await;
                    }
                    self.tell_fights(&due);
                }
            }
        }
    }

    fn note(&self, due: &mut Due, notices: Vec<Notice>) {
        let now = Instant::now();
        for Notice { event, port } in notices {
            if event == Event::Overrun {
                tracing::warn!("notices of the kernel were lost: everything is looked at");
                self.pod_links.notify_one();
            }
            self.note_newcomer(&event);
            self.note_gone(&event);
            for place in place_of(&event, &self.host) {
                due.edited(place, suspect(port), now);
            }
        }
    }

    fn note_newcomer(&self, event: &Event) {
        let Event::Link(link) = event else { return };
        let new = link.mac.filter(|mac| !link.gone && !self.host.has_mac(*mac));
        if let Some(mac) = new.filter(|_| may_be_interface(&link.name, &self.leftovers.prefixes())) {
            self.newcomers.link(mac);
        }
    }

    fn note_gone(&self, event: &Event) {
        let Event::Link(link) = event else { return };
        let prefixes = self.leftovers.prefixes();
        if link.gone && prefixes.iter().any(|prefix| link.name.starts_with(prefix)) {
            self.pod_links.notify_one();
        }
    }

    /// Looks at a place, and puts right what is not as wanted.
    async fn look(&self, due: &mut Due, put_back: &mut PutBack, place: Place, by: Option<String>) {
        let outcome = match place {
            Place::Host => self.host.repair().await.map_err(RepairError::from),
            Place::Table => self.snat.repair().await.map_err(RepairError::from),
            Place::Egress => self.egress.repair().await,
            Place::Pod(address) => self.pods(put_back, Some(address)).await,
            Place::Way(address) => self.way(put_back, address).await,
            Place::AllPods => self.pods(put_back, None).await,
        };
        let by = by.unwrap_or_else(|| "somebody".to_owned());
        let now = Instant::now();
        match outcome {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                self.metrics.repairs.with_label_values(&[place.label()]).inc();
                tracing::warn!(%place, %by, put_back = changes.join("; "), "edited by somebody else, and put right");
                if let Some(pause) = due.repaired(place, now) {
                    tracing::error!(%place, %by, next_repair_in_s = pause.as_secs(), "somebody keeps undoing it");
                }
                if let Place::Pod(address) | Place::Way(address) = place {
                    due.again(Place::Pod(address), now + LOOK_BACK);
                }
            }
            Err(error) => {
                self.metrics.error("repairFailed");
                let pause = due.repaired(place, now).unwrap_or(RETRY);
                tracing::error!(%place, %by, %error, retry_in_s = pause.as_secs(), "not as wanted, and not put right");
                due.again(place, now + pause);
            }
        }
    }

    /// Puts the pods' routes and rules right; `address`: only that one's.
    async fn pods(
        &self,
        put_back: &mut PutBack,
        address: Option<IpAddr>,
    ) -> Result<Vec<String>, RepairError> {
        let owned = self.owned(address).await;
        let before = address.and_then(|address| put_back.remove(&address));
        let without_owner = before.filter(|_| owned.is_empty());
        if owned.is_empty() && without_owner.is_none() {
            // A pod that went, as most whose rules go.
            return Ok(Vec::new());
        }
        let prefixes = self.leftovers.prefixes();
        let work = move || {
            let mut host = Socket::open()?;
            if let Some(lease) = without_owner {
                take_back(&mut host, &prefixes, &lease);
            }
            let mut done = Vec::new();
            let mut failed = None;
            for lease in owned {
                match keep(&mut host, &prefixes, &lease) {
                    Ok(added) if added.is_empty() => {}
                    Ok(added) => done.push((lease, added)),
                    Err(error) => failed = Some(error),
                }
            }
            failed.map_or(Ok(done), Err)
        };
        let done = tokio::task::spawn_blocking(work).await??;
        let mut changes = Vec::new();
        for (lease, added) in done {
            changes.extend(added);
            put_back.insert(lease.address, lease);
        }
        Ok(changes)
    }

    /// Puts a pod's route right if it leads elsewhere.
    async fn way(&self, put_back: &mut PutBack, address: IpAddr) -> Result<Vec<String>, RepairError> {
        let mut host = Socket::open()?;
        let prefixes = self.leftovers.prefixes();
        for lease in self.owned(Some(address)).await {
            for kept in kept(&prefixes, &lease) {
                if pod::is_led_astray(&mut host, &kept)? {
                    return self.pods(put_back, Some(address)).await;
                }
            }
        }
        Ok(Vec::new())
    }

    /// Who has an address, or all that have one. Nobody, when the agent is ending: nothing is to be put right any more.
    async fn owned(&self, address: Option<IpAddr>) -> Vec<Lease> {
        let owned = self.core.look(move |view| {
            let owners = view.pool.into_iter().flat_map(vpcnet_ipam::Pool::owners);
            let wanted = owners.filter(|lease| address.is_none_or(|wanted| lease.address == wanted));
            wanted.collect()
        });
        owned.await.unwrap_or_default()
    }

    fn tell_fights(&self, due: &Due) {
        let contested: Vec<String> = due
            .contested(Instant::now())
            .iter()
            .map(ToString::to_string)
            .collect();
        if self.publisher.get().contested != contested {
            self.publisher.change(|p| p.contested = contested);
        }
    }
}

/// For which addresses something was put back a moment ago.
type PutBack = BTreeMap<IpAddr, Lease>;

/// The address lost its owner right after something was put back for it: that goes too.
fn take_back(host: &mut Socket, prefixes: &[String], lease: &Lease) {
    let gone = Gone {
        address: lease.address,
        table: lease.route_table,
    };
    let names = host_names(prefixes, lease);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for error in pod::del(host, &[gone], &names) {
        tracing::warn!(address = %lease.address, %error, "left behind");
    }
}

/// Puts back what is missing of one address, under whichever name its pod's host end has.
fn keep(host: &mut Socket, prefixes: &[String], lease: &Lease) -> Result<Vec<String>, NetlinkError> {
    let mut added = Vec::new();
    for kept in kept(prefixes, lease) {
        added.extend(pod::keep(host, &kept)?.iter().map(ToString::to_string));
    }
    Ok(added)
}

fn kept(prefixes: &[String], lease: &Lease) -> impl Iterator<Item = Kept> + use<> {
    let (address, table) = (lease.address, lease.route_table);
    host_names(prefixes, lease)
        .into_iter()
        .map(move |host_name| Kept {
            address,
            table,
            host_name,
        })
}

/// One for each prefix.
fn host_names(prefixes: &[String], lease: &Lease) -> Vec<String> {
    if lease.key.network == MIGRATED_NETWORK {
        return vec![lease.key.container_id.clone()];
    }
    // Which of its links it is when addresses of the pod are missing is not guessed: that would lead packets to another one.
    let Some(interface) = lease.interface else {
        return Vec::new();
    };
    let suffix = host_veth_suffix_nth(&lease.meta.namespace, &lease.meta.name, interface);
    prefixes
        .iter()
        .map(|prefix| format!("{prefix}{suffix}"))
        .collect()
}

impl Ours for Host {
    fn has_mac(&self, mac: Mac) -> bool {
        Self::has_mac(self, mac)
    }

    fn has_table(&self, table: u32) -> bool {
        Self::has_table(self, table)
    }

    fn primary(&self) -> Option<u32> {
        self.primary_index()
    }
}

fn suspect(port: u32) -> Option<String> {
    if port == 0 || port == std::process::id() {
        return None;
    }
    // By default a socket's port is its process's id. Another may have the number by now, or the process none.
    match std::fs::read_to_string(format!("/proc/{port}/comm")) {
        Ok(name) => Some(format!("process {port} ({})", name.trim_end())),
        Err(_) => Some(format!("process {port}, which has ended")),
    }
}

// `AsyncFd::new` is deprecated for descriptors that are closed while they are registered; its successor is unsafe. Both kinds
// of watch own their descriptor and close it only when they are dropped, which `AsyncFd` does after deregistering it.
#[allow(deprecated)]
fn listen<T: AsRawFd>(watch: T) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::new(watch)
}

/// All that can be read now; waits until there is something.
async fn told<T: AsRawFd, N>(
    watch: &mut AsyncFd<T>,
    mut next: impl FnMut(&mut T) -> Result<Option<N>, WatchError>,
) -> Result<Vec<N>, KeepError> {
    let mut all = Vec::new();
    let mut ready = watch.readable_mut().await?;
    while let Some(one) = next(ready.get_inner_mut())? {
        all.push(one);
    }
    ready.clear_ready();
    Ok(all)
}
