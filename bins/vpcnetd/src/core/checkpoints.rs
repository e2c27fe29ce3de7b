//! The checkpoint's files: one for each network card, as the AWS VPC CNI keeps them, so mostly one.
//!
//! A pod of several cards is in several files, and no two files change at once. They are written one after the other, the first
//! card's last, and no caller is answered before all are written; so what a crash between two of them leaves is an owner with
//! fewer addresses than its entry counts, whom nobody was answered about. The pool sees that at the next start: it gives the addresses up
//! when the sandbox's DEL comes, or its next ADD, or when no link of the pod shows up; and if a link is there (a DEL that
//! was not finished), its address goes with the others.
//!
//! When a file cannot be written those before it hold what did not happen. They are written back at once, and if that fails too,
//! again at the next occasion.
//!
//! Only files that differ are written: an ADD of an ordinary pod is one write, however many cards there are.

use std::collections::BTreeSet;

use vpcnet_ipam::{CardIndex, Checkpoint, CheckpointWriter, Part, PodKey, Pool};

use crate::cards;
use crate::store::{FileStore, StoreError};

/// All files of one pool.
pub(super) struct Checkpoints {
    /// The first card's is the last.
    files: Vec<OneFile>,
}

struct OneFile {
    store: FileStore,
    writer: CheckpointWriter,
    /// Its content in the last state of the pool that is written in all files.
    committed: Vec<u8>,
    to_write: Vec<u8>,
    /// What lies on disk is not `committed`.
    astray: bool,
}

impl Checkpoints {
    /// Of a pool that was just restored; nothing is written yet. There are files for the cards it manages, and for those that have one: pods of
    /// an earlier setting may live on them.
    pub(super) fn of(pool: &Pool, first: &FileStore) -> Self {
        let mut all: BTreeSet<CardIndex> = pool.limits().cards.iter().map(|c| c.card).collect();
        // The first one's file is also that of cards which have none.
        all.pop_first();
        all.extend(cards::checkpoints_beside(first));
        let mut parts: Vec<(FileStore, Part)> = all
            .iter()
            .map(|card| (cards::checkpoint(first, *card), Part::Card(*card)))
            .collect();
        parts.push((first.clone(), Part::AllBut(all)));
        let file = |(store, part)| {
            let mut writer = CheckpointWriter::of(part);
            let mut committed = Vec::new();
            writer.write(pool, &mut committed);
            OneFile {
                store,
                writer,
                committed,
                to_write: Vec::new(),
                astray: true,
            }
        };
        Self {
            files: parts.into_iter().map(file).collect(),
        }
    }

    /// What is on disk is what the pool was restored to.
    pub(super) fn are_on_disk(&mut self) {
        self.files.iter_mut().for_each(|file| file.astray = false);
    }

    /// Writes what changed.
    ///
    /// # Errors
    /// The first file's that could not be written. What is in force is then as before, but [`Self::write_back`] is to be called.
    pub(super) fn write(&mut self, pool: &Pool) -> Result<(), StoreError> {
        for file in &mut self.files {
            file.writer.write(pool, &mut file.to_write);
        }
        for file in &mut self.files {
            if file.astray || file.to_write != file.committed {
                file.store.write(&file.to_write)?;
                file.astray = true;
            }
        }
        for file in &mut self.files {
            std::mem::swap(&mut file.committed, &mut file.to_write);
            file.astray = false;
        }
        Ok(())
    }

    /// After a failed [`Self::write`]: the owners who would have come, and those who would have gone.
    pub(super) fn difference(&self) -> (Vec<PodKey>, Vec<PodKey>) {
        let before = owners(self.files.iter().map(|file| &file.committed));
        let after = owners(self.files.iter().map(|file| &file.to_write));
        (
            after.difference(&before).cloned().collect(),
            before.difference(&after).cloned().collect(),
        )
    }

    /// After a failed [`Self::write`] that was undone in the pool: puts back what was in force. Whether the files hold it, and it
    /// is what the pool has.
    pub(super) fn write_back(&mut self, pool: &Pool) -> bool {
        let mut agree = true;
        for file in &mut self.files {
            if file.astray {
                match file.store.write(&file.committed) {
                    Ok(()) => file.astray = false,
                    Err(error) => tracing::error!(%error, "a checkpoint holds what did not happen"),
                }
            }
            file.writer.write(pool, &mut file.to_write);
            agree &= !file.astray;
        }
        let (came, went) = self.difference();
        agree && came.is_empty() && went.is_empty()
    }
}

/// The owners that files hold. What we wrote ourselves can be read.
fn owners<'a>(files: impl Iterator<Item = &'a Vec<u8>>) -> BTreeSet<PodKey> {
    files
        .filter_map(|bytes| Checkpoint::parse(bytes).ok())
        .flat_map(|checkpoint| checkpoint.keys().collect::<Vec<_>>())
        .collect()
}
