//! The SNAT and mark table, kept in step with the VPC's CIDRs.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ipnet::Ipv4Net;
use vpcnet_linux::Mac;
use vpcnet_linux::earlier::Earlier;
use vpcnet_linux::netlink::{NetlinkError, Socket};
use vpcnet_linux::nft::{Ensured, NftError, Randomize, SnatConfig, SnatTable};

use crate::config::{Family, HostSettings, PortChoice};
use crate::leftovers::{Leftovers, present_mark};
use crate::logging::lock;
use crate::metrics::Metrics;
use crate::published::Publisher;
use crate::takeover::Takeover;

/// The table is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SnatError {
    /// `nft` fails.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Netlink fails.
    #[error("the links, or what another agent left, cannot be listed: {0}")]
    Links(#[from] NetlinkError),
    /// It was renamed, or moved to another namespace.
    #[error("no link has the primary interface's MAC {0}")]
    NoLink(String),
    /// Nobody has told it yet.
    #[error("the node's address is not known")]
    NoAddress,
    /// The thread that did it died.
    #[error("writing it was cut short: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// The table and what it was last made from.
pub struct Snat {
    settings: HostSettings,
    leftovers: Arc<Leftovers>,
    /// Whether the table of an earlier life was looked at.
    looked: Arc<AtomicBool>,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    takeover: Arc<Takeover>,
    source: Mutex<Option<(Ipv4Addr, String)>>,
    table: Arc<Mutex<SnatTable>>,
    /// The CIDRs in force; `None`: the table could not be written.
    in_force: tokio::sync::Mutex<Option<Vec<Ipv4Net>>>,
}

impl Snat {
    /// Nothing is written yet.
    #[must_use]
    pub fn new(
        settings: HostSettings,
        leftovers: Arc<Leftovers>,
        publisher: Publisher,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mark = present_mark(&settings);
        let takeover = Takeover::new(mark, publisher.clone(), Arc::clone(&metrics));
        Self {
            settings,
            leftovers,
            looked: Arc::default(),
            takeover: Arc::new(takeover),
            publisher,
            metrics,
            source: Mutex::default(),
            table: Arc::default(),
            in_force: tokio::sync::Mutex::default(),
        }
    }

    /// Takes over what the original left in the packet filter.
    #[must_use]
    pub fn takeover(&self) -> Arc<Takeover> {
        Arc::clone(&self.takeover)
    }

    /// The node's own address, and the MAC of the interface it is on.
    pub fn set_source(&self, address: Option<Ipv4Addr>, mac: &str) {
        *lock(&self.source) = address.map(|a| (a, mac.to_owned()));
    }

    /// Puts these CIDRs in force if they are not. A failure is logged, told by STATUS, and tried again at the next call.
    /// Pods with IPv6 addresses are not translated: there is no table for them.
    pub async fn ensure(&self, cidrs: &[Ipv4Net]) {
        if self.settings.family == Family::V6 {
            return;
        }
        let mut sorted = cidrs.to_vec();
        sorted.sort();
        let mut in_force = self.in_force.lock().await;
        if in_force.as_ref() == Some(&sorted) {
            return;
        }
        match self.write(&sorted).await {
            Ok(ensured) => {
                tracing::info!(?ensured, cidrs = ?sorted, "SNAT table");
                *in_force = Some(sorted);
                self.is_well();
                self.takeover.begin();
            }
            Err(error) => {
                *in_force = None;
                self.is_impaired(&error);
            }
        }
    }

    /// Looks whether the table is as it was written, and writes it again if not; says what was done.
    ///
    /// # Errors
    /// [`SnatError`]; the table is then not in force.
    pub async fn repair(&self) -> Result<Vec<String>, SnatError> {
        let in_force = self.in_force.lock().await;
        // Not written yet: `ensure` is at it.
        let Some(cidrs) = in_force.as_ref() else {
            return Ok(Vec::new());
        };
        let ensured = self
            .write(cidrs)
            .await
            .inspect_err(|error| self.is_impaired(error))?;
        self.is_well();
        Ok(match ensured {
            Ensured::Unchanged => Vec::new(),
            Ensured::Created => vec!["write the table, which was gone".to_owned()],
            Ensured::Replaced => vec!["write the table, which was changed".to_owned()],
        })
    }

    fn is_well(&self) {
        if !self.publisher.get().impaired.is_empty() {
            self.publisher.change(|p| p.impaired.clear());
        }
    }

    fn is_impaired(&self, error: &SnatError) {
        self.metrics.error("setupSNATFailed");
        tracing::error!(%error, "SNAT table not written");
        let text =
            format!("pods may not reach addresses outside the VPC: the SNAT table is not in force: {error}");
        self.publisher.change(|p| p.impaired = text);
    }

    async fn write(&self, cidrs: &[Ipv4Net]) -> Result<Ensured, SnatError> {
        let (primary_ip, mac) = lock(&self.source).clone().ok_or(SnatError::NoAddress)?;
        let mut config = SnatConfig {
            primary_ip,
            primary_link: String::new(),
            vpc_cidrs: cidrs.to_vec(),
            exclude: self.settings.exclude_snat.clone(),
            external_snat: self.settings.external_snat,
            randomize: match self.settings.ports {
                PortChoice::Random => Randomize::Prng,
                PortChoice::HashRandom => Randomize::Hashrandom,
                PortChoice::Kernel => Randomize::None,
            },
            node_port: self.settings.node_port,
            mark: self.settings.mark,
            veth_prefix: self.settings.veth_prefix.clone(),
            earlier: Earlier::default(),
        };
        let table = Arc::clone(&self.table);
        let leftovers = Arc::clone(&self.leftovers);
        let looked = Arc::clone(&self.looked);
        let takeover = Arc::clone(&self.takeover);
        // It runs a program and waits for it.
        let ensured = tokio::task::spawn_blocking(move || {
            config.primary_link = link_name(&mac)?;
            let mut table = lock(&table);
            if !looked.load(Ordering::Relaxed) {
                if !config.translates() && (table.has_translation()? || takeover.original_translates()?) {
                    leftovers.found_translation();
                }
                looked.store(true, Ordering::Relaxed);
            }
            config.earlier = leftovers.earlier();
            Ok(table.ensure(&config)?)
        })
        .await
        .map_err(SnatError::from)
        .flatten();
        self.metrics.drop_in.connmark_reconciled(ensured.is_ok());
        ensured
    }
}

fn link_name(mac: &str) -> Result<String, SnatError> {
    let wanted: Option<Mac> = mac.parse().ok();
    let links = Socket::open()?.links()?;
    let found = links.into_iter().find(|l| l.mac.is_some() && l.mac == wanted);
    found
        .map(|l| l.name)
        .ok_or_else(|| SnatError::NoLink(mac.to_owned()))
}
