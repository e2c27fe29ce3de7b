//! The owners on disk: a file for each network card, as agents keep them, held here as one.

use vpcnet_ipam::{CardIndex, Checkpoint, CheckpointWriter, Part, Pool};

/// Nodes here have two cards at most.
const SECOND: CardIndex = CardIndex(1);

/// Writes both files.
pub(crate) struct Writers {
    first: CheckpointWriter,
    second: CheckpointWriter,
}

impl Default for Writers {
    fn default() -> Self {
        Self {
            first: CheckpointWriter::of(Part::AllBut([SECOND].into())),
            second: CheckpointWriter::of(Part::Card(SECOND)),
        }
    }
}

impl Writers {
    pub(crate) fn write(&mut self, pool: &Pool) -> Vec<u8> {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        self.first.write(pool, &mut first);
        self.second.write(pool, &mut second);
        together(first, second)
    }
}

/// Of another agent.
pub(crate) fn to_files(all: &Checkpoint) -> Vec<u8> {
    let part = |second: bool| {
        let mut part = all.clone();
        part.allocations.retain(|a| (a.card == SECOND) == second);
        part.to_json()
    };
    together(part(false), part(true))
}

fn together(first: Vec<u8>, second: Vec<u8>) -> Vec<u8> {
    serde_json::to_vec(&[first, second].map(|f| String::from_utf8(f).unwrap())).unwrap()
}

pub(crate) fn from_files(content: &[u8]) -> Checkpoint {
    let [first, second]: [String; 2] = serde_json::from_slice(content).unwrap();
    let mut all = Checkpoint::parse(first.as_bytes()).unwrap();
    let second = Checkpoint::parse(second.as_bytes()).unwrap();
    all.merge(second.on_card(SECOND)).unwrap();
    all
}
