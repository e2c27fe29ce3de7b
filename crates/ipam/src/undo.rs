//! Undoing what could not be written down: a checkpoint that is not on disk did not happen.

use std::time::Duration;

use crate::graces::GRACE;
use crate::ids::PodKey;
use crate::interface::State;
use crate::journal::Released;
use crate::owner::Standing;
use crate::pool::Pool;
use crate::time::Now;

/// After a checkpoint that could not be written, pods that already wait are served again after this time.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(250);

impl Pool {
    /// The checkpoint could not be written: what it would have held is undone. The callers are refused by the executor,
    /// which knows them.
    pub(crate) fn checkpoint_failed(&mut self, now: Now, keys: &[PodKey], released: &[PodKey]) {
        for key in keys {
            let Some(owner) = self.owners.remove(key) else {
                continue;
            };
            for held in owner.held {
                self.by_address.remove(&held.address);
                let place = self.interfaces.get_mut(&held.eni);
                if let Some(a) = place.and_then(|i| i.address_mut(held.address)) {
                    a.state = State::Free { since: now.mono };
                }
            }
            for owner in self.owners.values_mut() {
                if let Standing::Rebuilt { superseded } = &mut owner.standing {
                    *superseded = superseded.take().filter(|s| s.by != *key);
                }
            }
        }
        for key in released {
            self.give_back(now, key);
        }
        self.refresh_grace();
        self.changed_owners();
        self.changed_state();
        self.serve_at = Some(now.mono.plus(CHECKPOINT_PAUSE));
    }

    /// Undoes the release of an owner.
    fn give_back(&mut self, now: Now, key: &PodKey) {
        // The sandbox may have had another address before: the latest is meant.
        let Some(at) = self.released.iter().rposition(|r| r.key == *key) else {
            return;
        };
        let Released { mut owner, .. } = self.released.remove(at);
        if self.owners.contains_key(key) {
            return;
        }
        for held in &owner.held {
            self.limbo.remove(&held.address);
            self.by_address.insert(held.address, key.clone());
            if let Some(interface) = self.interfaces.get_mut(&held.eni) {
                interface.own(held.address, now.mono);
            }
        }
        // A grace that has just ended starts again, or it would end again in the same breath.
        match &mut owner.standing {
            Standing::Unconfirmed { until } => *until = now.mono.plus(GRACE),
            Standing::Rebuilt { superseded: Some(s) } => s.at = now.mono.plus(GRACE),
            Standing::Rebuilt { superseded: None } | Standing::Confirmed | Standing::Seen => {}
        }
        self.owners.insert(key.clone(), owner);
    }
}
