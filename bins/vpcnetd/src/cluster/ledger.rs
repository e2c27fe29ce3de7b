//! Which events are told, and which are only counted. Pure. An event is a write to etcd: a pod that is refused twice a second must not make two
//! of them a second, nor a thousand nodes with the same trouble.

use std::collections::BTreeMap;
use std::time::Duration;

use vpcnet_ipam::Mono;
use vpcnet_kube::objects::{Note, ObjectReference};

/// The same words of the same object are counted, and the count is told this often at most; other words are told as often.
const BETWEEN: Duration = Duration::from_secs(60);
/// What was not seen for so long begins anew: the API server forgets events after an hour.
const MEMORY: Duration = Duration::from_secs(30 * 60);
/// Events that may be told at once,
const BURST: u32 = 25;
/// and one more after each of these.
const REFILL: Duration = Duration::from_secs(6);
/// What is remembered at most; the oldest is forgotten first.
const MOST: usize = 256;

type Key = (ObjectReference, String, String);

/// What was told.
pub(super) struct Ledger {
    told: BTreeMap<Key, Entry>,
    /// Unused.
    tokens: u32,
    refilled: Mono,
}

struct Entry {
    /// Of the event.
    name: String,
    text: String,
    count: u32,
    seen: Mono,
    sent: Mono,
}

/// What is to be done about one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Say {
    /// It is counted.
    Nothing,
    /// It is a new event.
    New {
        /// With this name.
        name: String,
    },
    /// It is an event's count.
    Again {
        /// The event's name.
        name: String,
        /// So often by now.
        count: u32,
    },
}

impl Ledger {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            told: BTreeMap::new(),
            tokens: BURST,
            refilled: now,
        }
    }

    /// What is to be done about `note`. `trouble`: what tells it from other troubles of the object with the same reason. `fresh`: a name
    /// that no event has yet.
    pub(super) fn take(
        &mut self,
        note: &Note,
        trouble: &str,
        now: Mono,
        fresh: impl FnOnce() -> String,
    ) -> Say {
        self.refill(now);
        self.told.retain(|_, e| now.since(e.seen) < MEMORY);
        let key = (note.regarding.clone(), note.reason.clone(), trouble.to_owned());
        if let Some(entry) = self.told.get_mut(&key) {
            entry.seen = now;
            let same = entry.text == note.text;
            if same {
                entry.count = entry.count.saturating_add(1);
            }
            if now.since(entry.sent) < BETWEEN || self.tokens == 0 {
                return Say::Nothing;
            }
            self.tokens -= 1;
            entry.sent = now;
            if same {
                return Say::Again {
                    name: entry.name.clone(),
                    count: entry.count,
                };
            }
            entry.name = fresh();
            entry.text.clone_from(&note.text);
            entry.count = 1;
            return Say::New {
                name: entry.name.clone(),
            };
        }
        if self.tokens == 0 {
            return Say::Nothing;
        }
        self.tokens -= 1;
        if self.told.len() >= MOST {
            let oldest = self
                .told
                .iter()
                .min_by_key(|(_, e)| e.seen)
                .map(|(k, _)| k.clone());
            oldest.map(|key| self.told.remove(&key));
        }
        let name = fresh();
        let entry = Entry {
            name: name.clone(),
            text: note.text.clone(),
            count: 1,
            seen: now,
            sent: now,
        };
        self.told.insert(key, entry);
        Say::New { name }
    }

    fn refill(&mut self, now: Mono) {
        let step = REFILL.as_millis().max(1);
        let more = now.since(self.refilled).as_millis() / step;
        if more == 0 {
            return;
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(more).min(BURST);
        self.refilled = match self.tokens {
            BURST => now,
            _ => self.refilled.plus(REFILL.saturating_mul(more)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1000)
    }

    fn note(pod: u32, text: &str) -> Note {
        Note {
            regarding: ObjectReference::pod("default", &format!("web-{pod}"), "u"),
            reason: "FailedAssignPodIP".into(),
            action: "AddNetwork".into(),
            text: text.into(),
        }
    }

    /// In words.
    fn take(ledger: &mut Ledger, pod: u32, text: &str, now: u64) -> String {
        match ledger.take(&note(pod, text), "AddNetwork", at(now), || format!("e{now}")) {
            Say::Nothing => String::new(),
            Say::New { name } => name,
            Say::Again { name, count } => format!("{name}x{count}"),
        }
    }

    #[test]
    fn the_first_is_told_and_the_same_again_is_counted() {
        let mut ledger = Ledger::new(at(0));
        assert_eq!(take(&mut ledger, 1, "full", 1), "e1");
        for now in 2..60 {
            assert_eq!(take(&mut ledger, 1, "full", now), "");
        }
        assert_eq!(take(&mut ledger, 1, "full", 61), "e1x60");
        assert_eq!(take(&mut ledger, 2, "full", 61), "e61");
    }

    #[test]
    fn other_words_of_the_same_object_are_told_after_a_while() {
        let mut ledger = Ledger::new(at(0));
        take(&mut ledger, 1, "full", 0);
        assert_eq!(take(&mut ledger, 1, "throttled", 30), "");
        assert_eq!(take(&mut ledger, 1, "throttled", 60), "e60");
        assert_eq!(take(&mut ledger, 1, "throttled", 120), "e60x2");
    }

    #[test]
    fn different_troubles_of_one_object_are_told_at_once() {
        let mut ledger = Ledger::new(at(0));
        for (n, trouble) in ["one", "another"].into_iter().enumerate() {
            let name = format!("e{n}");
            let say = ledger.take(&note(1, trouble), trouble, at(1), || name.clone());
            assert_eq!(say, Say::New { name });
        }
    }

    #[test]
    fn after_half_an_hour_of_silence_it_is_new() {
        let mut ledger = Ledger::new(at(0));
        take(&mut ledger, 1, "full", 0);
        assert_eq!(take(&mut ledger, 1, "full", 1800), "e1800");
    }

    #[test]
    fn a_thousand_pods_in_trouble_make_a_burst_and_then_ten_events_a_minute() {
        let mut ledger = Ledger::new(at(0));
        let told = |ledger: &mut Ledger, now: u64| {
            let pods = 0..1000;
            pods.filter(|pod| !take(ledger, now_pod(now, *pod), "full", now).is_empty())
                .count()
        };
        fn now_pod(now: u64, pod: u32) -> u32 {
            u32::try_from(now).unwrap_or(0) * 1000 + pod
        }
        assert_eq!(told(&mut ledger, 0), 25);
        assert_eq!(told(&mut ledger, 3), 0);
        assert_eq!(told(&mut ledger, 60), 10);
        assert_eq!(told(&mut ledger, 3600), 25);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut ledger = Ledger::new(at(0));
        for pod in 0..600 {
            take(&mut ledger, pod, "full", u64::from(pod) * 6 / 4);
            assert!(ledger.told.len() <= MOST);
        }
    }
}
