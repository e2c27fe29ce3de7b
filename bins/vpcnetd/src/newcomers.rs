//! What others bring: interfaces that somebody attaches to the instance, and, where the agent itself asks for nothing, addresses
//! that somebody assigns. Found by cause, not by a timer: a link appears, or a pod finds no address.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use vpcnet_ipam::InterfaceFacts;
use vpcnet_linux::Mac;
use vpcnet_linux::netlink::Socket;

use crate::executor::Cloud;
use crate::logging::lock;
use crate::startup::relist;

/// IMDS lists an interface up to half a minute after its link is there: it is asked after these pauses.
const LOOKS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
];
/// Pods that find nothing make the interfaces listed this often at most.
const CALM: Duration = Duration::from_secs(5);
/// More links than a node sees; the set of those that were dealt with is emptied beyond.
const MANY: usize = 4096;

/// Links that appeared, and those that need no look.
#[derive(Default)]
pub struct Newcomers {
    links: Mutex<Links>,
    appeared: Notify,
}

#[derive(Default)]
struct Links {
    /// To be looked for in IMDS.
    new: BTreeSet<Mac>,
    /// Made by the agent, or found to be none of EC2's.
    settled: BTreeSet<Mac>,
}

impl Links {
    fn settle(&mut self, mac: Mac) {
        if self.settled.len() >= MANY {
            self.settled.clear();
        }
        self.settled.insert(mac);
    }
}

/// Whether a link may be an interface of EC2's: the kernel's name or a predictable one (systemd.net-naming-scheme(7)), and no
/// pod's.
#[must_use]
pub fn may_be_interface(name: &str, pods: &[String]) -> bool {
    let named = name.starts_with("eth") || name.starts_with("en");
    named && !name.starts_with("eni") && !pods.iter().any(|prefix| name.starts_with(prefix.as_str()))
}

impl Newcomers {
    /// The agent attaches this one itself.
    pub fn expect(&self, mac: &str) {
        if let Ok(mac) = mac.parse() {
            lock(&self.links).settle(mac);
        }
    }

    /// A link is there that no interface of the pool has.
    pub fn link(&self, mac: Mac) {
        let mut links = lock(&self.links);
        if !links.settled.contains(&mac) && links.new.insert(mac) {
            self.appeared.notify_one();
        }
    }

    /// Links that were there before the interfaces were listed, and that the list does not show: it may have lagged behind what an
    /// earlier life attached.
    pub fn unlisted(&self, listed: &[InterfaceFacts], pods: &[String]) {
        let known: BTreeSet<Mac> = listed.iter().filter_map(|i| i.mac.parse().ok()).collect();
        match Socket::open().and_then(|mut socket| socket.links()) {
            Ok(links) => {
                let may_be = links.iter().filter(|link| may_be_interface(&link.name, pods));
                let new = may_be
                    .filter_map(|link| link.mac)
                    .filter(|mac| !known.contains(mac));
                new.for_each(|mac| self.link(mac));
            }
            Err(error) => tracing::warn!(%error, "the kernel does not list its links"),
        }
    }

    /// Looks for what appeared, for the agent's life.
    pub async fn run(self: Arc<Self>, cloud: Arc<Cloud>) {
        loop {
            self.appeared.notified().await;
            for pause in LOOKS {
                tokio::time::sleep(pause).await;
                if self.is_listed(&cloud).await {
                    relist(&cloud).await;
                }
                if lock(&self.links).new.is_empty() {
                    break;
                }
            }
            let mut links = lock(&self.links);
            for mac in std::mem::take(&mut links.new) {
                links.settle(mac);
            }
        }
    }

    /// Whether IMDS lists one that is new. Those that became the pool's meanwhile are new no more.
    async fn is_listed(&self, cloud: &Cloud) -> bool {
        let listed: BTreeSet<Mac> = match cloud.around.imds.macs().await {
            Ok(macs) => macs.iter().filter_map(|m| m.parse().ok()).collect(),
            Err(error) => {
                tracing::debug!(%error, "IMDS does not list the interfaces");
                return false;
            }
        };
        let mut links = lock(&self.links);
        let mut found = false;
        for mac in std::mem::take(&mut links.new) {
            if cloud.around.host.has_mac(mac) || links.settled.contains(&mac) {
                continue;
            }
            if listed.contains(&mac) {
                found = true;
                links.settle(mac);
            } else {
                links.new.insert(mac);
            }
        }
        found
    }
}

/// Where the agent asks EC2 for nothing, a pod that finds no address is the sign to look whether somebody brought some.
pub async fn look_when_starved(cloud: Arc<Cloud>, starved: Arc<Notify>) {
    loop {
        starved.notified().await;
        if cloud.around.config.pool.provisioning {
            continue;
        }
        relist(&cloud).await;
        tokio::time::sleep(CALM).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_told_from_pods_links_by_their_names() {
        let pods = ["ens9".to_owned()];
        for name in ["eth0", "eth12", "ens5", "enp0s6", "enX1"] {
            assert!(may_be_interface(name, &pods), "{name}");
        }
        for name in ["eni12ab34", "ens9f00", "veth1", "docker0", "lo", "cali1", "vlan7"] {
            assert!(!may_be_interface(name, &pods), "{name}");
        }
    }

    #[tokio::test]
    async fn a_link_is_news_once_and_never_if_it_was_expected() {
        let newcomers = Newcomers::default();
        let mac = |n: u8| -> Mac { format!("02:00:00:00:00:{n:02x}").parse().unwrap() };
        newcomers.expect("02:00:00:00:00:01");
        newcomers.link(mac(1));
        assert!(lock(&newcomers.links).new.is_empty());
        newcomers.link(mac(2));
        newcomers.link(mac(2));
        assert_eq!(lock(&newcomers.links).new.len(), 1);
        // It was told.
        newcomers.appeared.notified().await;
    }
}
