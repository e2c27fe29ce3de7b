//! The model's only randomness: a small generator whose state is part of the VPC, so a seed repeats a run.

use std::time::Duration;

use serde::Serialize;

use super::config::Spread;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators"): one word of state, good enough
/// to spread delays and pick addresses, and not meant to be unpredictable.
#[derive(Clone, Debug, Serialize)]
pub struct Rng(u64);

impl Rng {
    /// A generator that begins at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.word() % bound }
    }

    /// True once in `1 / probability` tries; never for 0 or less, always for 1 or more.
    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: every value is exact in a double.
        ((self.word() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// A delay of the spread, both ends included.
    pub fn delay(&mut self, spread: Spread) -> Duration {
        let low = spread.min.min(spread.max);
        let width = spread.max.saturating_sub(low);
        let nanos = u64::try_from(width.as_nanos()).unwrap_or(u64::MAX - 1);
        if nanos == 0 {
            low
        } else {
            low + Duration::from_nanos(self.below(nanos + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_words() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert!((0..100).all(|_| a.word() == b.word()));
    }

    #[test]
    fn delays_stay_within_their_spread_and_differ() {
        let spread = Spread {
            min: Duration::from_millis(10),
            max: Duration::from_millis(20),
        };
        let mut rng = Rng::new(1);
        let delays: Vec<_> = (0..200).map(|_| rng.delay(spread)).collect();
        assert!(delays.iter().all(|d| (spread.min..=spread.max).contains(d)));
        assert!(delays.iter().any(|d| *d != delays[0]));
    }

    #[test]
    fn chances_of_nought_and_one_are_certain() {
        let mut rng = Rng::new(3);
        assert!((0..100).all(|_| !rng.chance(0.0) && rng.chance(1.0)));
        let hits = (0..1000).filter(|_| rng.chance(0.25)).count();
        assert!((150..350).contains(&hits), "{hits}");
    }
}
