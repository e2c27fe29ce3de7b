//! What happens when, in order; and chance, from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Things to come. Those of the same time come in the order they were put in.
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Reverse<(u64, u64, Slot<T>)>>,
    number: u64,
}

/// Takes no part in the order.
struct Slot<T>(T);

impl<T> PartialEq for Slot<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<T> Eq for Slot<T> {}
impl<T> PartialOrd for Slot<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Slot<T> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            number: 0,
        }
    }

    pub(crate) fn at(&mut self, ms: u64, what: T) {
        self.number += 1;
        self.heap.push(Reverse((ms, self.number, Slot(what))));
    }

    pub(crate) fn next(&mut self) -> Option<(u64, T)> {
        self.heap.pop().map(|Reverse((ms, _, Slot(what)))| (ms, what))
    }

    /// How many things have been put in.
    pub(crate) fn events(&self) -> u64 {
        self.number
    }
}

/// Pseudo-random numbers (splitmix64, Steele and others 2014): the same run from the same seed.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1, 1 excluded.
    pub(crate) fn part(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Between the two, in milliseconds.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + ((to - from) as f64 * self.part()) as u64
    }
}
