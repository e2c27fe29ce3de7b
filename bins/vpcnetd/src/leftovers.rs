//! What is kept of the settings of an agent before this one: the mark, the prefix of links' names and the translation that
//! connections and pods of its time still need. It goes when the last of them has.
//!
//! The kernel is asked at the start what it has of earlier settings, and, while there is something, every 10 s who still needs it.
//! A node without leftovers asks nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use vpcnet_linux::earlier::{self, Earlier, Needs, Present};
use vpcnet_linux::netlink::{NetlinkError, Socket};
use vpcnet_linux::{host, observe};

use crate::config::{Family, HostSettings};
use crate::host::Host;
use crate::logging::lock;
use crate::metrics::Metrics;
use crate::published::Publisher;
use crate::snat::Snat;

/// Before the first look: packets that were under way when the settings changed have arrived.
const FIRST: Duration = Duration::from_secs(1);
/// Between looks.
const EVERY: Duration = Duration::from_secs(10);

/// The leftovers.
pub struct Leftovers {
    settings: HostSettings,
    kept: Mutex<Kept>,
    found: Notify,
}

#[derive(Default)]
struct Kept {
    earlier: Earlier,
    /// Who needs it; none before the first look.
    needs: Option<Result<Needs, String>>,
}

/// Who carries out what is no longer to be kept, and who tells of it.
pub struct Around {
    /// The node's rules.
    pub host: Host,
    /// The table.
    pub snat: Arc<Snat>,
    /// Where it is told.
    pub publisher: Publisher,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Leftovers {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(settings: HostSettings) -> Self {
        Self {
            settings,
            kept: Mutex::default(),
            found: Notify::new(),
        }
    }

    /// Reads from the kernel's rules and links which marks and prefixes were in force before. To be done before the rules are
    /// brought to their wanted state, which is without what is not known here.
    ///
    /// # Errors
    /// Netlink's.
    pub fn read(&self) -> Result<(), NetlinkError> {
        let mut socket = Socket::open()?;
        // Pods with IPv6 addresses are not translated, and no connection of theirs carries a mark.
        let marks = match self.settings.family {
            Family::V4 => host::marks(&socket.rules(false)?),
            Family::V6 => BTreeSet::new(),
        };
        let prefixes = observe::prefixes(&mut socket)?.into_keys().collect();
        self.add(earlier_than(&self.settings, marks, prefixes));
        Ok(())
    }

    /// The table has translated connections, and shall translate no more.
    pub fn found_translation(&self) {
        self.add(Earlier {
            translation: true,
            ..Earlier::default()
        });
    }

    fn add(&self, more: Earlier) {
        if more.is_nothing() {
            return;
        }
        let mut kept = lock(&self.kept);
        kept.earlier.marks.extend(more.marks);
        kept.earlier.prefixes.extend(more.prefixes);
        kept.earlier.translation |= more.translation;
        kept.needs = None;
        self.found.notify_one();
    }

    /// What is to be kept now.
    #[must_use]
    pub fn earlier(&self) -> Earlier {
        lock(&self.kept).earlier.clone()
    }

    /// What the names of pods' host ends may begin with; the present setting first.
    #[must_use]
    pub fn prefixes(&self) -> Vec<String> {
        let earlier = lock(&self.kept).earlier.prefixes.clone();
        std::iter::once(self.settings.veth_prefix.clone())
            .chain(earlier)
            .collect()
    }

    /// Looks, while there is something to look after.
    pub async fn run(self: Arc<Self>, around: Around) {
        let mut unfinished = false;
        let mut pause = FIRST;
        loop {
            let sentences = {
                let kept = lock(&self.kept);
                sentences(&kept.earlier, kept.needs.as_ref(), &self.settings)
            };
            if around.publisher.get().kept != sentences {
                around.publisher.change(|p| p.kept = sentences);
            }
            if self.earlier().is_nothing() && !unfinished {
                self.found.notified().await;
                pause = FIRST;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.found.notified() => {
                    pause = FIRST;
                    continue;
                }
            }
            pause = EVERY;
            let changed = self.look(&around).await;
            if changed || unfinished {
                unfinished = !remove(&around).await;
            }
        }
    }

    /// Asks who needs what; whether less is to be kept than before.
    async fn look(&self, around: &Around) -> bool {
        let before = self.earlier();
        let published = around.publisher.get();
        let present = Present {
            mark: present_mark(&self.settings),
            node: published.machine.local_ipv4,
            vpc_cidrs: published.vpc_cidrs.clone(),
        };
        let asked = before.clone();
        let looked = tokio::task::spawn_blocking(move || earlier::look(&asked, &present)).await;
        let needs = match looked {
            Ok(Ok(needs)) => needs,
            Ok(Err(error)) => return self.failed(&around.metrics, error.to_string()),
            Err(error) => return self.failed(&around.metrics, error.to_string()),
        };
        let still = needs.still();
        let mut kept = lock(&self.kept);
        if kept.earlier != before {
            // Something was found meanwhile; it is looked at next time.
            return false;
        }
        kept.earlier = still.clone();
        kept.needs = Some(Ok(needs));
        if still != before {
            tracing::info!(
                kept = ?still,
                "what is left of earlier settings: nobody needs the rest any more"
            );
        }
        still != before
    }

    fn failed(&self, metrics: &Metrics, error: String) -> bool {
        let mut kept = lock(&self.kept);
        let said = matches!(&kept.needs, Some(Err(said)) if *said == error);
        if !said {
            metrics.error("lookAtConnectionsFailed");
            tracing::error!(%error, "what is left of earlier settings is kept: it cannot be seen who needs it");
        }
        kept.needs = Some(Err(error));
        false
    }
}

/// Takes what is not kept any more out of the kernel; whether all went well.
async fn remove(around: &Around) -> bool {
    let rules = around.host.repair().await.map(drop).map_err(|e| e.to_string());
    let table = around.snat.repair().await.map(drop).map_err(|e| e.to_string());
    let mut well = true;
    for error in [rules, table].into_iter().filter_map(Result::err) {
        around.metrics.error("removeLeftoversFailed");
        tracing::error!(%error, retry_in_s = EVERY.as_secs(), "left of earlier settings, and not removed");
        well = false;
    }
    well
}

/// The mark that connections get; none where neither SNAT nor NodePorts want one.
#[must_use]
pub fn present_mark(settings: &HostSettings) -> Option<u32> {
    (settings.node_port || !settings.external_snat).then_some(settings.mark)
}

/// Of what the kernel has, what the present settings do not say anyway.
fn earlier_than(settings: &HostSettings, marks: BTreeSet<u32>, prefixes: BTreeSet<String>) -> Earlier {
    let present = present_mark(settings);
    Earlier {
        marks: marks
            .into_iter()
            .filter(|mark| *mark != 0 && !earlier::covers(present, *mark))
            .collect(),
        prefixes: prefixes
            .into_iter()
            .filter(|prefix| !prefix.starts_with(&settings.veth_prefix))
            .collect(),
        translation: false,
    }
}

/// One sentence for each thing that is kept: what, for whom, since when it is not wanted.
fn sentences(
    earlier: &Earlier,
    needs: Option<&Result<Needs, String>>,
    settings: &HostSettings,
) -> Vec<String> {
    let kept = |what: String, count: &dyn Fn(&Needs) -> usize, users: &str, since: String| match needs {
        Some(Ok(needs)) => {
            let n = count(needs);
            let plural = if n == 1 { "" } else { "s" };
            format!("{what}: kept for {n} {users}{plural} of the time before {since}")
        }
        Some(Err(error)) => {
            format!(
                "{what}: kept, as it cannot be seen which {users}s of the time before {since} need it: {error}"
            )
        }
        None => {
            format!("{what}: kept until it is known which {users}s of the time before {since} need it")
        }
    };
    let off = "AWS_VPC_K8S_CNI_EXTERNALSNAT=true";
    let mut all = Vec::new();
    for mark in &earlier.marks {
        let since = match present_mark(settings) {
            Some(present) => format!("AWS_VPC_K8S_CNI_CONNMARK={present:#x}"),
            None => format!("{off} and AWS_VPC_CNI_NODE_PORT_SUPPORT=false"),
        };
        let count = |needs: &Needs| needs.marks.get(mark).copied().unwrap_or(0);
        let what = format!("connection mark {mark:#x} with its rule");
        all.push(kept(what, &count, "connection", since));
    }
    if earlier.translation {
        let since = if settings.external_snat {
            off.to_owned()
        } else {
            "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS named all addresses".to_owned()
        };
        let what = "translation to the node's address".to_owned();
        all.push(kept(what, &|needs| needs.translation, "connection", since));
    }
    for prefix in &earlier.prefixes {
        let since = format!("AWS_VPC_K8S_CNI_VETHPREFIX={}", settings.veth_prefix);
        let count = |needs: &Needs| needs.prefixes.get(prefix).copied().unwrap_or(0);
        all.push(kept(
            format!("pods' links named {prefix}…"),
            &count,
            "link",
            since,
        ));
    }
    all
}

#[cfg(test)]
#[path = "leftovers_tests.rs"]
mod tests;
