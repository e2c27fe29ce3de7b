//! Writing the checkpoint again and again.

use std::net::IpAddr;

use crate::checkpoint::{append_entry, frame};
use crate::ids::{PodKey, PodMeta};
use crate::owner::Owner;
use crate::pool::Pool;

/// Writes the owners as [`crate::Checkpoint::to_json`] of [`Pool::checkpoint`] does, and remembers how it wrote each: the file is
/// written whole before every answer to an ADD or DEL, and from one to the next a single owner differs.
#[derive(Clone, Debug, Default)]
pub struct CheckpointWriter {
    /// As last written, by key.
    written: Vec<Written>,
}

/// An owner's entries, and what they were made from.
#[derive(Clone, Debug)]
struct Written {
    key: PodKey,
    meta: PodMeta,
    held: Vec<(IpAddr, i64)>,
    /// One for each address, with commas between.
    entries: Vec<u8>,
}

impl Written {
    fn of(key: &PodKey, owner: &Owner) -> Self {
        let mut entries = Vec::with_capacity(320);
        for held in &owner.held {
            if !entries.is_empty() {
                entries.push(b',');
            }
            append_entry(&mut entries, key, &owner.meta, held);
        }
        entries.shrink_to_fit();
        Self {
            key: key.clone(),
            meta: owner.meta.clone(),
            held: owner.held.iter().map(|h| (h.address, h.allocated_ns)).collect(),
            entries,
        }
    }

    /// Whether it would be written the same now.
    fn is_of(&self, owner: &Owner) -> bool {
        let held = owner.held.iter().map(|h| (h.address, h.allocated_ns));
        self.meta == owner.meta && self.held.iter().copied().eq(held)
    }
}

impl CheckpointWriter {
    /// The file's content for the owners there are now.
    pub fn json(&mut self, pool: &Pool) -> Vec<u8> {
        let mut before = std::mem::take(&mut self.written).into_iter().peekable();
        self.written.reserve_exact(pool.owners.len());
        let (head, tail) = frame();
        let mut bytes = Vec::with_capacity(256 + 320 * pool.owners.len());
        bytes.extend_from_slice(head.as_bytes());
        let mut first = true;
        // Both are in the order of the keys.
        for (key, owner) in &pool.owners {
            while before.next_if(|w| w.key < *key).is_some() {}
            let known = before.next_if(|w| w.key == *key).filter(|w| w.is_of(owner));
            let written = known.unwrap_or_else(|| Written::of(key, owner));
            if !written.entries.is_empty() {
                if !std::mem::take(&mut first) {
                    bytes.push(b',');
                }
                bytes.extend_from_slice(&written.entries);
            }
            self.written.push(written);
        }
        bytes.extend_from_slice(tail.as_bytes());
        bytes
    }
}
