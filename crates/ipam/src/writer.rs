//! Writing the checkpoint again and again.

use std::collections::BTreeSet;

use crate::checkpoint::{append_entry, frame};
use crate::ids::{CardIndex, PodKey};
use crate::owner::Owner;
use crate::pool::Pool;

/// Which owners' addresses go into one file: amazon-vpc-cni-k8s keeps one for each network card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// Those of this card.
    Card(CardIndex),
    /// Those of all cards but these. With none it is all there are.
    AllBut(BTreeSet<CardIndex>),
}

impl Default for Part {
    fn default() -> Self {
        Self::AllBut(BTreeSet::new())
    }
}

impl Part {
    fn has(&self, card: CardIndex) -> bool {
        match self {
            Self::Card(own) => *own == card,
            Self::AllBut(others) => !others.contains(&card),
        }
    }
}

/// Writes the owners of one pool as [`crate::Checkpoint::to_json`] of [`Pool::checkpoint`] does, and keeps what it wrote: the file is
/// written whole before every answer to an ADD or DEL, and from one to the next a single owner differs. To look at each
/// of some hundred owners for that takes longer than all else the agent does for the call.
#[derive(Clone, Debug, Default)]
pub struct CheckpointWriter {
    part: Part,
    /// Of the pool, when it was written; `None`: never.
    generation: Option<u64>,
    /// In order.
    keys: Vec<PodKey>,
    /// Of each key's entries, in bytes.
    lengths: Vec<usize>,
    /// One after the other, each with a comma before it.
    entries: Vec<u8>,
}

impl CheckpointWriter {
    /// One that writes a part of the owners' addresses.
    #[must_use]
    pub fn of(part: Part) -> Self {
        Self {
            part,
            ..Self::default()
        }
    }

    /// Puts the file's content for the owners there are now in the place of what `out` holds. Always of the same pool.
    pub fn write(&mut self, pool: &Pool, out: &mut Vec<u8>) {
        match self.generation.and_then(|known| pool.changed_since(known)) {
            Some(changed) => {
                for key in changed {
                    self.update(key, pool.owners.get(key));
                }
            }
            None => self.start_over(pool),
        }
        self.generation = Some(pool.checkpoint_generation());
        let (head, tail) = frame();
        out.clear();
        out.reserve(head.len() + self.entries.len() + tail.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.entries.get(1..).unwrap_or_default());
        out.extend_from_slice(tail.as_bytes());
    }

    fn start_over(&mut self, pool: &Pool) {
        self.keys.clear();
        self.lengths.clear();
        self.entries.clear();
        for (key, owner) in &pool.owners {
            let before = self.entries.len();
            append(&mut self.entries, &self.part, key, owner);
            self.keys.push(key.clone());
            self.lengths.push(self.entries.len() - before);
        }
    }

    fn update(&mut self, key: &PodKey, owner: Option<&Owner>) {
        let place = self.keys.binary_search(key);
        let at = match (place, owner) {
            (Ok(at), _) => at,
            (Err(at), Some(_)) => {
                self.keys.insert(at, key.clone());
                self.lengths.insert(at, 0);
                at
            }
            // It came and went since.
            (Err(_), None) => return,
        };
        let mut entries = Vec::new();
        if let Some(owner) = owner {
            append(&mut entries, &self.part, key, owner);
        }
        let start: usize = self.lengths.iter().take(at).sum();
        let length = self.lengths.get(at).copied().unwrap_or_default();
        let new = entries.len();
        self.entries.splice(start..start + length, entries);
        match owner {
            Some(_) => self.lengths.iter_mut().skip(at).take(1).for_each(|l| *l = new),
            None => {
                self.keys.remove(at);
                self.lengths.remove(at);
            }
        }
    }
}

fn append(entries: &mut Vec<u8>, part: &Part, key: &PodKey, owner: &Owner) {
    for held in owner.held.iter().filter(|held| part.has(held.card)) {
        entries.push(b',');
        append_entry(entries, key, &owner.meta, held);
    }
}
