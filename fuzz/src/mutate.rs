//! Random changes to kept inputs: cheap, without instrumentation, in every test run. Not guided: what guidance found is in the corpus.

/// Random numbers (SplitMix64): the same from the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}

/// Numbers at whose edges readers break.
const NUMBERS: [&str; 9] = [
    "0",
    "-1",
    "1e9",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "0.5",
    "00",
];

/// The longest input made.
const MOST: usize = 64 * 1024;

/// A changed entry of the corpus: one to six changes.
pub fn mutant(random: &mut Random, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut bytes = random.pick(corpus).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        change(random, &mut bytes, corpus, words);
    }
    bytes.truncate(MOST);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str]) {
    let (start, end) = range(random, bytes.len());
    match random.below(9) {
        0 => {
            if let Some(byte) = bytes.get_mut(start) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            let byte = u8::try_from(random.below(256)).unwrap_or(0);
            bytes.insert(start, byte);
        }
        2 => drop(bytes.drain(start..end)),
        3 => {
            let copy = bytes.get(start..end).unwrap_or_default().to_vec();
            let at = random.below(bytes.len() + 1);
            bytes.splice(at..at, copy);
        }
        4 => bytes.truncate(start),
        // A word of the language, put in or put over something.
        5 | 6 => {
            let word = random.pick(words).copied().unwrap_or_default();
            let over = if random.below(2) == 0 { start } else { end };
            bytes.splice(start..over, word.bytes());
        }
        // A number becomes another.
        7 => {
            if let Some((from, to)) = digits(bytes, start) {
                let number = random.pick(&NUMBERS).copied().unwrap_or_default();
                bytes.splice(from..to, number.bytes());
            }
        }
        // Goes on as another entry does.
        _ => {
            if let Some(other) = random.pick(corpus) {
                let from = random.below(other.len() + 1);
                bytes.truncate(start);
                bytes.extend_from_slice(other.get(from..).unwrap_or_default());
            }
        }
    }
}

/// A range, mostly short.
fn range(random: &mut Random, len: usize) -> (usize, usize) {
    let start = random.below(len + 1);
    let longest = match random.below(4) {
        0 => len,
        _ => 16,
    };
    (start, (start + random.below(longest + 1)).min(len))
}

/// The first run of digits at or after a place.
fn digits(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let from = at + rest.iter().position(u8::is_ascii_digit)?;
    let len = bytes
        .get(from..)?
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    Some((from, from + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_another_seed_others() {
        let corpus = vec![b"{\"a\":12}".to_vec(), b"K=V".to_vec()];
        let inputs = |seed| {
            let mut random = Random::new(seed);
            (0..50)
                .map(|_| mutant(&mut random, &corpus, &["null"]))
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert!(inputs(1).iter().any(|i| !corpus.contains(i)));
        let _ = mutant(&mut Random::new(3), &[], &[]);
    }
}
