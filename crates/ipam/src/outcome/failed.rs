//! Actions that failed: what is tried again, what is given up, and what EC2 is asked about.

use crate::action::Action;
use crate::backoff::{Block, Failure};
use crate::event::{ActionId, FailureClass};
use crate::evidence::EC2_LAG;
use crate::ids::EniId;
use crate::intent::{Create, Intent, IntentId, Phase, What};
use crate::interface::State;
use crate::kind::Kind;
use crate::pool::Pool;
use crate::time::Now;

impl Pool {
    pub(crate) fn action_failed(&mut self, now: Now, id: ActionId, failure: &Failure, out: &mut Vec<Action>) {
        self.resumed(id);
        let Some(id) = self.intent_of(id) else { return };
        let Some(what) = self.intents.get(&id).map(|i| i.what.clone()) else {
            return;
        };
        self.changed_state();
        if matches!(
            what,
            What::Create(_) | What::Assign { .. } | What::AssignIpv6 { .. }
        ) {
            self.pressed(now, failure);
        }
        match what {
            What::Create(create) => self.create_failed(now, id, create, failure, out),
            What::Assign { eni, count, kind } => self.assign_failed(now, id, eni, count, kind, failure),
            What::AssignIpv6 { eni } => self.assign_ipv6_failed(now, id, eni, failure),
            What::Release { eni, unsure, .. } => self.release_failed(now, id, eni, unsure, failure),
            What::Delete { eni, .. } if failure.class == FailureClass::Gone => {
                self.intents.remove(&id);
                self.forget(now, &eni);
            }
            What::Describe { .. } if failure.class == FailureClass::Gone => {
                if let Some(Intent {
                    what, since, trouble, ..
                }) = self.intents.remove(&id)
                {
                    self.unknown_to_ec2(now, id, what, since, trouble);
                }
            }
            What::Delete { .. } => self.pause(now, id, failure, true),
            What::Describe { .. } => {
                self.pause(now, id, failure, true);
                let Some(intent) = self.intents.get_mut(&id) else {
                    return;
                };
                let hopeful = intent.hopeful();
                if let (
                    What::Describe {
                        unsure,
                        unsure_prefixes,
                        ..
                    },
                    false,
                ) = (&mut intent.what, hopeful)
                {
                    (*unsure, *unsure_prefixes) = (0, 0);
                }
            }
        }
    }

    /// Keeps an intent, to be tried again.
    fn pause(&mut self, now: Now, id: IntentId, failure: &Failure, growing: bool) {
        if let Some(intent) = self.intents.get_mut(&id) {
            let before = intent.trouble.as_ref();
            let block = if growing {
                Block::growing(before, failure, now.mono)
            } else {
                Block::after(before, failure, now.mono)
            };
            intent.phase = Phase::Paused(block.until);
            intent.trouble = Some(block);
        }
    }

    fn create_failed(
        &mut self,
        now: Now,
        id: IntentId,
        create: Create,
        failure: &Failure,
        out: &mut Vec<Action>,
    ) {
        let begun = !create.done.is_empty();
        match failure.class {
            // Repeated with the same token: whether or not it took effect, there will be one interface.
            FailureClass::Retry => {
                self.pause(now, id, failure, false);
                if let Some(What::Create(create)) = self.intents.get_mut(&id).map(|i| &mut i.what) {
                    create.unsure = true;
                }
            }
            FailureClass::Overtaken if !begun && !create.unsure => {
                self.intents.remove(&id);
            }
            FailureClass::SubnetExhausted if !begun => {
                self.intents.remove(&id);
                self.backoffs
                    .denied(&create.lies_in, create.kind(), create.count(), failure, now.mono);
            }
            FailureClass::LimitReached | FailureClass::DeviceTaken => {
                self.intents.remove(&id);
                // Where somebody else sits there is no place; there may be one beside.
                if failure.class == FailureClass::LimitReached {
                    self.block_creation(now, failure);
                }
                let before = self.refused_device(create.card, create.device);
                let block = Block::growing(before, failure, now.mono);
                self.refuse_device(create.card, create.device, block);
                if let Some(eni) = create.created().cloned() {
                    // It exists and cannot be attached: there is no room for it after all.
                    self.intend(
                        What::Delete {
                            eni,
                            card: create.card,
                            device: Some(create.device),
                        },
                        now,
                        out,
                    );
                }
            }
            // A read that lags misses what was just made: believed only when it is said again, later than any read can lag.
            FailureClass::Gone if begun && !self.was_gone(id) => {
                let retry_at = Some(now.mono.plus(EC2_LAG));
                self.pause(
                    now,
                    id,
                    &Failure {
                        retry_at,
                        ..failure.clone()
                    },
                    false,
                );
            }
            FailureClass::Gone => {
                self.intents.remove(&id);
                self.block_creation(now, failure);
            }
            FailureClass::Throttled
            | FailureClass::NotBegun
            | FailureClass::Refused
            | FailureClass::Overtaken
            | FailureClass::SubnetExhausted => {
                if begun || create.unsure {
                    self.pause(now, id, failure, false);
                } else {
                    self.intents.remove(&id);
                }
                self.block_creation(now, failure);
            }
        }
    }

    /// Did the attempt before end so?
    fn was_gone(&self, id: IntentId) -> bool {
        let trouble = self.intents.get(&id).and_then(|i| i.trouble.as_ref());
        trouble.is_some_and(|t| t.class == FailureClass::Gone)
    }

    fn block_creation(&mut self, now: Now, failure: &Failure) {
        self.backoffs.create = Some(Block::after(self.backoffs.create.as_ref(), failure, now.mono));
    }

    fn assign_failed(
        &mut self,
        now: Now,
        id: IntentId,
        eni: EniId,
        count: u32,
        kind: Kind,
        failure: &Failure,
    ) {
        self.intents.remove(&id);
        let block = Block::after(self.backoffs.assign.as_ref(), failure, now.mono);
        match failure.class {
            FailureClass::Retry => {
                let unsure = match kind {
                    Kind::Address => (count, 0),
                    Kind::Prefix => (0, count),
                };
                self.ask_again(now, id, eni, unsure);
                self.backoffs.assign = Some(block);
            }
            FailureClass::Throttled
            | FailureClass::NotBegun
            | FailureClass::Refused
            | FailureClass::Overtaken => {
                self.backoffs.assign = Some(block);
            }
            FailureClass::SubnetExhausted => {
                if let Some(subnet) = self.subnet_of(&eni) {
                    self.backoffs.denied(&subnet, kind, count, failure, now.mono);
                }
            }
            FailureClass::LimitReached | FailureClass::DeviceTaken | FailureClass::Gone => {
                self.disagree(now, id, eni, failure);
            }
        }
    }

    fn assign_ipv6_failed(&mut self, now: Now, id: IntentId, eni: EniId, failure: &Failure) {
        self.intents.remove(&id);
        match failure.class {
            FailureClass::LimitReached | FailureClass::DeviceTaken | FailureClass::Gone => {
                self.disagree(now, id, eni, failure);
            }
            class => {
                if class == FailureClass::Retry {
                    self.ask_again(now, id, eni, (0, 0));
                }
                let block = Block::after(self.backoffs.assign.as_ref(), failure, now.mono);
                self.backoffs.assign = Some(block);
            }
        }
    }

    /// EC2 and we disagree on what is there: ask, and leave the interface alone meanwhile.
    fn disagree(&mut self, now: Now, id: IntentId, eni: EniId, failure: &Failure) {
        if let Some(interface) = self.interfaces.get_mut(&eni) {
            let mut block = Block::after(interface.block.as_ref(), failure, now.mono);
            block.until = block.until.max(now.mono.plus(crate::backoff::LONG));
            interface.block = Some(block);
        }
        self.ask_again(now, id, eni, (0, 0));
    }

    fn release_failed(&mut self, now: Now, id: IntentId, eni: EniId, unsure: bool, failure: &Failure) {
        self.intents.remove(&id);
        let block = Block::growing(self.backoffs.release.as_ref(), failure, now.mono);
        self.backoffs.release = Some(block);
        if matches!(failure.class, FailureClass::Throttled | FailureClass::NotBegun) && !unsure {
            // It had no effect.
            let addresses = self
                .interfaces
                .get_mut(&eni)
                .into_iter()
                .flat_map(|i| i.addresses.values_mut());
            for a in addresses.filter(|a| a.state == (State::Leaving { by: id })) {
                a.state = State::Free { since: now.mono };
            }
        } else {
            self.ask_again(now, id, eni, (0, 0));
        }
    }

    /// Turns an intent of unknown effect into a question to EC2, under the same name: addresses that were leaving by it
    /// are settled by the answer.
    fn ask_again(&mut self, now: Now, id: IntentId, eni: EniId, unsure: (u32, u32)) {
        let what = What::Describe {
            eni,
            unsure: unsure.0,
            unsure_prefixes: unsure.1,
            doubt: true,
        };
        let phase = Phase::Paused(now.mono);
        self.intents.insert(
            id,
            Intent {
                what,
                since: now.mono,
                phase,
                trouble: None,
            },
        );
    }
}
