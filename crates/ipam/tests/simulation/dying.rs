//! The agent dies, and what becomes of its files while it is away.

use vpcnet_lab::model as ec2;

use super::files::from_files;
use super::node::Doom;
use super::pods::Sandbox;
use super::script::{Kept, Point};
use super::world::{Due, World};

impl World {
    /// How and where the agent is to die.
    pub(crate) fn doom(&mut self, n: usize, point: Point, checkpoint: Kept, journal: Kept, down_ms: u64) {
        if self.nodes[n].life.is_none() || self.nodes[n].gone {
            return;
        }
        self.nodes[n].doom = Some(Doom {
            point,
            checkpoint,
            journal,
            down_ms,
        });
        self.dies(n, Point::Now);
    }

    /// Is this where it dies? Then it does.
    pub(crate) fn dies(&mut self, n: usize, point: Point) -> bool {
        if self.nodes[n].life.is_none() {
            return true; // It died while it was doing this.
        }
        let Some(doom) = self.nodes[n].doom.filter(|d| d.point == point) else {
            return false;
        };
        self.kill(n);
        match doom.checkpoint {
            Kept::Whole => {}
            Kept::Lost => self.lose_checkpoint(n),
            Kept::Stale(back) => self.find_older(n, usize::from(back)),
        }
        if doom.journal != Kept::Whole {
            self.lose_journal(n);
        }
        self.queue(self.at + doom.down_ms, Due::Start { node: n });
        true
    }

    /// `kill -9`. What was called is done; nobody reads the answers.
    pub(crate) fn kill(&mut self, n: usize) {
        self.note(|| format!("n{n} dies"));
        self.nodes[n].doom = None;
        let Some(life) = self.nodes[n].life.take() else {
            return;
        };
        for (_, caller) in life.asked {
            self.nodes[n].may_be_done(caller.sandbox);
            self.unanswered(n, caller.sandbox);
        }
    }

    /// Owners are then known by their veths alone: a plugin that has its answer and no veth yet is let finish, and for a sandbox
    /// that left nothing on the machine no DEL will find anything.
    pub(crate) fn lose_checkpoint(&mut self, n: usize) {
        self.nodes[n].disk.checkpoint = None;
        self.nodes[n].disk.older.clear();
        self.finish_plugins(n);
        for sandbox in self.nodes[n].sandboxes.values_mut().filter(|s| !s.veth) {
            sandbox.forgotten = true;
        }
    }

    /// The file is as it was some writes ago.
    fn find_older(&mut self, n: usize, back: usize) {
        self.finish_plugins(n);
        self.rests.retain(|(node, _), _| *node != n);
        let node = &mut self.nodes[n];
        // An earlier sandbox of the same pod with the same address cannot be told from the present one.
        let alike = |c: &[u8]| {
            let all = from_files(c).allocations;
            all.iter().any(|a| {
                let is = |s: &Sandbox| {
                    s.veth && s.meta.name == a.meta.name && s.key != a.key && s.addresses.contains(&a.address)
                };
                node.sandboxes.values().any(is)
            })
        };
        for _ in 0..back {
            if let Some(older) = node.disk.older.pop_back().filter(|c| !alike(c)) {
                node.disk.checkpoint = Some(older);
            }
        }
        for sandbox in self.nodes[n].sandboxes.values_mut().filter(|s| !s.veth) {
            sandbox.forgotten = true;
        }
    }

    /// Interfaces in the making are then on no record. Nor is what was given back a moment ago, and until when it rests.
    pub(crate) fn lose_journal(&mut self, n: usize) {
        self.nodes[n].disk.state = None;
        self.disregard_journal(n);
    }

    /// The file is there, and what it says is not used.
    pub(crate) fn disregard_journal(&mut self, n: usize) {
        self.rests.retain(|(node, _), _| *node != n);
        let instance = self.nodes[n].instance.clone();
        let loose: Vec<ec2::EniId> = self
            .made_for(&instance)
            .filter(|i| i.status != ec2::InterfaceStatus::InUse)
            .map(|i| i.id.clone())
            .collect();
        self.unrecorded.extend(loose);
    }
}
