//! A map that remembers what it held, so that a reader can be shown an older state than the present one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Until when something was what; `None`: it was not there.
type Past<V> = VecDeque<(Duration, Option<Arc<V>>)>;

/// Values by key, now and for a while back.
#[derive(Clone, Debug)]
pub(crate) struct Lagging<K: Ord, V> {
    now: BTreeMap<K, Arc<V>>,
    /// By key, oldest first: until when it held which value.
    past: BTreeMap<K, Past<V>>,
}

impl<K: Ord + Clone, V: Clone + PartialEq> Lagging<K, V> {
    pub(crate) const fn new() -> Self {
        Self {
            now: BTreeMap::new(),
            past: BTreeMap::new(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.now.get(key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.now.values()
    }

    /// Sets a value as of `at`.
    pub(crate) fn insert(&mut self, at: Duration, key: K, value: V) {
        let before = self.now.insert(key.clone(), Arc::new(value));
        self.past.entry(key).or_default().push_back((at, before));
    }

    /// Removes a value as of `at`.
    pub(crate) fn remove(&mut self, at: Duration, key: &K) -> Option<Arc<V>> {
        let before = self.now.remove(key)?;
        self.past
            .entry(key.clone())
            .or_default()
            .push_back((at, Some(before.clone())));
        Some(before)
    }

    /// Changes a value as of `at`; nothing is remembered when it stays the same. False: there is none.
    pub(crate) fn change(&mut self, at: Duration, key: &K, change: impl FnOnce(&mut V)) -> bool {
        let Some(slot) = self.now.get_mut(key) else {
            return false;
        };
        let mut value = V::clone(slot);
        change(&mut value);
        if value != **slot {
            let before = std::mem::replace(slot, Arc::new(value));
            self.past
                .entry(key.clone())
                .or_default()
                .push_back((at, Some(before)));
        }
        true
    }

    /// The value just after all changes made at `at` or before.
    pub(crate) fn get_as_of(&self, at: Duration, key: &K) -> Option<&Arc<V>> {
        let older = self
            .past
            .get(key)
            .and_then(|p| p.iter().find(|(until, _)| *until > at));
        match older {
            Some((_, value)) => value.as_ref(),
            None => self.now.get(key),
        }
    }

    /// All values just after all changes made at `at` or before, in the order of their keys.
    pub(crate) fn as_of(&self, at: Duration) -> Vec<Arc<V>> {
        let keys: BTreeSet<&K> = self.now.keys().chain(self.past.keys()).collect();
        keys.into_iter()
            .filter_map(|k| self.get_as_of(at, k).cloned())
            .collect()
    }

    /// Forgets what was replaced before `at`.
    pub(crate) fn forget(&mut self, at: Duration) {
        self.past.retain(|_, past| {
            while past.front().is_some_and(|(until, _)| *until < at) {
                past.pop_front();
            }
            !past.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_reader_in_the_past_sees_what_was_there_then() {
        let mut map = Lagging::new();
        map.insert(s(1), "a", 10);
        map.change(s(2), &"a", |v| *v = 20);
        map.remove(s(3), &"a");
        let seen = |at| map.get_as_of(at, &"a").map(|v| **v);
        assert_eq!(
            [seen(s(0)), seen(s(1)), seen(s(2)), seen(s(3))],
            [None, Some(10), Some(20), None]
        );
        assert_eq!(map.as_of(s(2)).len(), 1);
        assert_eq!(map.as_of(s(3)).len(), 0);
    }

    #[test]
    fn forgetting_keeps_the_present() {
        let mut map = Lagging::new();
        map.insert(s(1), 1, 1);
        map.change(s(5), &1, |v| *v = 2);
        map.forget(s(10));
        assert_eq!(map.get_as_of(s(0), &1).map(|v| **v), Some(2));
        assert_eq!(map.past.len(), 0);
    }

    #[test]
    fn a_change_that_changes_nothing_leaves_no_history() {
        let mut map = Lagging::new();
        map.insert(s(1), 1, 1);
        map.change(s(2), &1, |_| ());
        assert_eq!(map.past.get(&1).map(VecDeque::len), Some(1));
        assert!(!map.change(s(2), &9, |_| ()));
    }
}
