//! What became of actions.

mod failed;

use std::net::Ipv4Addr;

use crate::backoff::{Block, Failure};
use crate::event::{ActionId, FailureClass, InterfaceFacts, Outcome, Stage};
use crate::evidence::EC2_LAG;
use crate::ids::{EniId, SubnetId};
use crate::intent::{Intent, IntentId, Phase, What};
use crate::kind::Kind;
use crate::plan::count;
use crate::pool::Pool;
use crate::time::{Mono, Now};

impl Pool {
    /// The executor waits to make a call of it again: that is what those are told who wait meanwhile.
    pub(crate) fn stalled(&mut self, now: Mono, id: ActionId, failure: &Failure) {
        if self.intent_of(id).is_some() {
            let block = Block::after(self.stalls.get(&id), failure, now);
            self.stalls.insert(id, block);
        }
    }

    pub(crate) fn resumed(&mut self, id: ActionId) {
        self.stalls.remove(&id);
    }

    pub(crate) fn progress(&mut self, id: ActionId, stage: Stage) {
        self.resumed(id);
        let intent = self
            .intent_of(id)
            .and_then(|intent| self.intents.get_mut(&intent));
        if let Some(What::Create(create)) = intent.map(|i| &mut i.what)
            && !create.done.contains(&stage)
        {
            create.done.push(stage);
            self.changed_state();
        }
    }

    pub(crate) fn action_done(&mut self, now: Now, id: ActionId, outcome: Outcome) {
        self.resumed(id);
        let intent = self
            .intent_of(id)
            .and_then(|i| Some((i, self.intents.remove(&i)?)));
        let Some((intent_id, intent)) = intent else {
            // Nobody waits for it; a finished interface is no less finished.
            if let Outcome::InterfaceReady(facts) = outcome {
                self.made(now, &facts);
            }
            return;
        };
        self.changed_state();
        match (intent.what, outcome) {
            (What::Create(create), Outcome::InterfaceReady(facts)) => {
                self.backoffs.create = None;
                self.accept_device(create.card, create.device);
                self.backoffs.gave(&create.lies_in, create.kind());
                self.made(now, &facts);
                self.written(now, &facts.id);
            }
            (What::Assign { eni, kind, .. }, Outcome::Assigned { addresses, prefixes }) => {
                self.backoffs.assign = None;
                self.gave(&eni, kind);
                let again = self.is_leaving(&eni, &addresses, &prefixes);
                let mut new = 0_usize;
                for at in addresses {
                    new += usize::from(self.add_address(now.mono, &eni, at));
                }
                for prefix in prefixes {
                    new += self.add_prefix(now.mono, &eni, prefix);
                }
                self.assigned(now, &eni, new);
                if let Some(interface) = self.interfaces.get_mut(&eni).filter(|_| again) {
                    // Given back and given to us again, and the answers came in the other order: EC2 knows how it ended.
                    interface.verify_at = Some(now.mono.plus(EC2_LAG));
                }
            }
            (What::AssignIpv6 { eni }, Outcome::AssignedIpv6 { prefixes }) => {
                self.backoffs.assign = None;
                let new = prefixes
                    .into_iter()
                    .filter(|p| self.add_ipv6_prefix(&eni, *p))
                    .count();
                self.assigned(now, &eni, new);
            }
            (
                What::Release {
                    eni,
                    addresses,
                    prefixes,
                    ..
                },
                Outcome::Gone,
            ) => {
                self.backoffs.release = None;
                self.departed(now.mono, &eni, &addresses, &prefixes);
            }
            (What::Delete { eni, .. }, Outcome::Gone) => self.forget(now, &eni),
            (
                What::Describe {
                    eni,
                    unsure,
                    unsure_prefixes,
                    ..
                },
                Outcome::Described(Some(facts)),
            ) => {
                let unsure = (unsure, unsure_prefixes);
                self.answered(now, intent_id, intent.since, eni, unsure, &facts);
            }
            (what @ What::Describe { .. }, Outcome::Described(None)) => {
                let trouble = intent.trouble;
                self.unknown_to_ec2(now, intent_id, what, intent.since, trouble);
            }
            (what, _) => {
                let message = "the executor reported an outcome of another kind of action".to_owned();
                let failure = Failure {
                    class: FailureClass::Retry,
                    message,
                    retry_at: None,
                };
                let block = Block::after(None, &failure, now.mono);
                let phase = Phase::Paused(block.until);
                let intent = Intent {
                    what,
                    since: intent.since,
                    phase,
                    trouble: Some(block),
                };
                self.intents.insert(intent_id, intent);
            }
        }
    }

    /// EC2 gave an interface more, so many of it new to us.
    fn assigned(&mut self, now: Now, eni: &EniId, new: usize) {
        if let Some(interface) = self.interfaces.get_mut(eni) {
            interface.block = None;
            if new == 0 {
                let message = format!("EC2 confirmed an assignment to {eni} without a new address");
                let failure = Failure {
                    class: FailureClass::LimitReached,
                    message,
                    retry_at: None,
                };
                interface.block = Some(Block::after(None, &failure, now.mono));
                interface.verify_at = Some(now.mono);
            }
        }
        self.written(now, eni);
    }

    /// EC2 said what an interface has. `unsure`: how many addresses and prefixes an assignment may have brought.
    fn answered(
        &mut self,
        now: Now,
        id: IntentId,
        since: Mono,
        eni: EniId,
        unsure: (u32, u32),
        facts: &InterfaceFacts,
    ) {
        let held = |pool: &Self| {
            let interface = pool.interfaces.get(&eni);
            interface.map_or((0, 0), |i| {
                let listed = |at: &&Ipv4Addr| i.addresses.contains_key(at) && i.prefix_of(**at).is_none();
                let addresses = facts.addresses.iter().filter(listed).count();
                let prefixes = facts.prefixes.iter().filter(|p| i.prefixes.contains(p)).count();
                (count(addresses), count(prefixes))
            })
        };
        let before = held(self);
        let disputed = self.disputed_of(&eni);
        self.described(now, since, facts);
        let clear_at = since.plus(EC2_LAG);
        let early = now.mono < clear_at;
        let doubted = early && self.dispute_again(&eni, &disputed);
        if doubted || (early && self.lists_leaving(&eni, id, facts)) {
            // It lists what a release may have given back a moment ago. A read that lags, or a release that failed? Nobody gets
            // it before that is clear.
            let what = What::Describe {
                eni,
                unsure: unsure.0,
                unsure_prefixes: unsure.1,
                doubt: true,
            };
            let intent = Intent {
                what,
                since,
                phase: Phase::Paused(clear_at),
                trouble: None,
            };
            self.intents.insert(id, intent);
            return;
        }
        self.settle_leaving(now.mono, &eni, id, facts);
        let after = held(self);
        let missing = (
            unsure.0.saturating_sub(after.0.saturating_sub(before.0)),
            unsure.1.saturating_sub(after.1.saturating_sub(before.1)),
        );
        if missing == (0, 0) {
            return;
        }
        if let Some(clear_at) = self.unclear_until(now, facts) {
            // It lists what was given back a moment ago. A read that lags, or given to us again by the call in
            // question? Known for sure when nothing can lag any more; until then none are asked for.
            let what = What::Describe {
                eni,
                unsure: missing.0,
                unsure_prefixes: missing.1,
                doubt: true,
            };
            let intent = Intent {
                what,
                since: now.mono,
                phase: Phase::Paused(clear_at),
                trouble: None,
            };
            self.intents.insert(id, intent);
        } else if let Some(interface) = self.interfaces.get_mut(&eni) {
            // Its read may lag, or the call may yet take effect: asked once more when neither can be.
            interface.verify_at = interface.verify_at.max(Some(now.mono.plus(EC2_LAG)));
        }
    }

    /// EC2 says that it does not know an interface. It may not know it *yet*: a read that lags misses what was made, or
    /// attached, a moment ago. Then it is asked again when no read can lag that far.
    fn unknown_to_ec2(&mut self, now: Now, id: IntentId, what: What, since: Mono, trouble: Option<Block>) {
        let What::Describe { eni, .. } = &what else { return };
        if self.going(eni) {
            return; // Not attached any more, it may be there all the same: its deletion tells when it is gone.
        }
        let interface = self.interfaces.get(eni);
        let known_at = interface.map(|i| i.sure_at.unwrap_or(i.since).max(i.since));
        match known_at.map(|at| at.plus(EC2_LAG)).filter(|at| *at > now.mono) {
            Some(at) => {
                let phase = Phase::Paused(at);
                let intent = Intent {
                    what,
                    since,
                    phase,
                    trouble,
                };
                self.intents.insert(id, intent);
            }
            None => {
                let eni = eni.clone();
                self.forget(now, &eni);
            }
        }
    }

    /// EC2 just confirmed a change of this interface.
    fn written(&mut self, now: Now, eni: &EniId) {
        if let Some(interface) = self.interfaces.get_mut(eni) {
            interface.sure_at = Some(now.mono);
        }
    }

    fn subnet_of(&self, eni: &EniId) -> Option<SubnetId> {
        self.interfaces.get(eni).map(|i| i.subnet.clone())
    }

    fn gave(&mut self, eni: &EniId, kind: Kind) {
        if let Some(subnet) = self.subnet_of(eni) {
            self.backoffs.gave(&subnet, kind);
        }
    }
}
