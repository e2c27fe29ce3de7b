//! Who was refused, and with which words: the last of each pod, for `vpcnet explain pod` and `vpcnet status`, which are asked when
//! the caller has long gone. Kept in memory, and bounded: a pod that asks again and again takes one place.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use vpcnet_ipam::{PodKey, PodMeta, Refusal};

use crate::metrics::cause_label;

/// Pods remembered; the oldest is forgotten first.
const MOST: usize = 64;

/// The last refusal of a pod.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refused {
    /// The pod.
    pub meta: PodMeta,
    /// The sandbox that was refused.
    pub key: PodKey,
    /// `ADD` or `DEL`.
    pub verb: &'static str,
    /// When, nanoseconds since the Unix epoch.
    pub at_ns: i64,
    /// How long it had waited.
    pub waited_ms: u64,
    /// Why, for programs: as the label of the metric.
    pub cause: &'static str,
    /// Why: what the runtime was told.
    pub message: String,
    /// When it is tried again, milliseconds after it was refused; `None`: something must change first.
    pub retry_in_ms: Option<u64>,
    /// How often the pod was refused since it is remembered.
    pub times: u32,
}

/// They, the latest last.
#[derive(Debug, Default)]
pub struct Refusals(VecDeque<Refused>);

impl Refusals {
    /// Remembers one.
    pub(super) fn note(
        &mut self,
        key: &PodKey,
        meta: &PodMeta,
        is_add: bool,
        refusal: &Refusal,
        at_ns: i64,
        waited: Duration,
    ) {
        let same = |r: &Refused| r.meta.namespace == meta.namespace && r.meta.name == meta.name;
        let earlier = self.0.iter().position(same).and_then(|at| self.0.remove(at));
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Refused {
            meta: meta.clone(),
            key: key.clone(),
            verb: if is_add { "ADD" } else { "DEL" },
            at_ns,
            waited_ms: millis(waited),
            cause: cause_label(refusal.cause),
            message: refusal.message.clone(),
            retry_in_ms: refusal.retry_in.map(millis),
            times: earlier.map_or(0, |e| e.times).saturating_add(1),
        });
    }

    /// The latest first.
    pub fn iter(&self) -> impl Iterator<Item = &Refused> {
        self.0.iter().rev()
    }

    /// That of a pod.
    #[must_use]
    pub fn of(&self, namespace: &str, name: &str) -> Option<&Refused> {
        self.iter()
            .find(|r| r.meta.namespace == namespace && r.meta.name == name)
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vpcnet_ipam::RefusalCause;

    fn note(refusals: &mut Refusals, n: usize, message: &str) {
        let key = PodKey {
            network: "aws-cni".into(),
            container_id: format!("sandbox-{n}"),
            if_name: "eth0".into(),
        };
        let meta = PodMeta {
            namespace: "default".into(),
            name: format!("web-{n}"),
            interfaces: 1,
        };
        let refusal = Refusal {
            cause: RefusalCause::InstanceFull,
            message: message.into(),
            retry_in: Some(Duration::from_secs(2)),
        };
        refusals.note(&key, &meta, true, &refusal, 7, Duration::from_millis(60_000));
    }

    #[test]
    fn the_last_refusal_of_a_pod_stands_with_how_often_it_was_refused() {
        let mut refusals = Refusals::default();
        for message in ["first", "second", "third"] {
            note(&mut refusals, 1, message);
            note(&mut refusals, 2, message);
        }
        let last = refusals.of("default", "web-1").unwrap();
        assert_eq!((last.message.as_str(), last.times), ("third", 3));
        assert_eq!((last.cause, last.waited_ms), ("instance_full", 60_000));
        assert_eq!(last.retry_in_ms, Some(2_000));
        assert_eq!(refusals.iter().count(), 2);
        assert_eq!(refusals.iter().next().unwrap().meta.name, "web-2", "latest first");
        assert!(refusals.of("other", "web-1").is_none());
    }

    #[test]
    fn the_memory_is_bounded_and_the_oldest_goes_first() {
        let mut refusals = Refusals::default();
        for n in 0..1000 {
            note(&mut refusals, n, "no");
        }
        assert_eq!(refusals.iter().count(), MOST);
        assert!(refusals.of("default", "web-999").is_some());
        assert!(refusals.of("default", &format!("web-{}", 999 - MOST)).is_none());
    }
}
