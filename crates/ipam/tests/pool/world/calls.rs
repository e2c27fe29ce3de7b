//! What becomes of calls: carried out in full, in part or not at all; and what is left when the agent dies.

use vpcnet_ipam::{
    Action, ActionId, Checkpoint, CheckpointWriter, Event, FailureClass, HostRoute, Journal, KernelEvidence,
    Outcome, Pool, Restored, Stage, SubnetId,
};

use super::super::cloud::subnet;
use super::super::rig::{id_of, identity, veth};
use super::{Crash, Fault, Job, World};

impl World {
    /// Carries an action out, as far as its fault allows.
    pub(super) fn perform(&mut self, job: &Job) -> Event {
        let id = id_of(&job.action);
        if let Some(Fault::Before(class)) = job.fault {
            let repeat = match &job.action {
                Action::CreateInterface { client_token, .. } => self.cloud.knows(client_token),
                _ => false,
            };
            // EC2 answers a repeated token with what it made for it: never that there is no room for it.
            let no_room = matches!(class, FailureClass::SubnetExhausted | FailureClass::LimitReached);
            return failed(
                id,
                if repeat && no_room {
                    FailureClass::Retry
                } else {
                    class
                },
            );
        }
        let calls = if let Some(Fault::Lost { calls }) = job.fault {
            Some(calls)
        } else {
            None
        };
        let result = self.effect(&job.action, calls);
        self.remember();
        match result {
            Err(class) => failed(id, class),
            Ok(_) if calls.is_some() => failed(id, FailureClass::Retry),
            Ok(outcome) => Event::ActionDone { id, outcome },
        }
    }

    fn effect(&mut self, action: &Action, calls: Option<u8>) -> Result<Outcome, FailureClass> {
        match action {
            Action::CreateInterface {
                id,
                card,
                device,
                subnet,
                addresses,
                prefixes,
                client_token,
                done,
                ..
            } => {
                let subnet = subnet.clone().unwrap_or_else(first_subnet);
                let known = done.iter().find_map(|s| match s {
                    Stage::Created { eni } => Some(eni.clone()),
                    Stage::Attached { .. } => None,
                });
                let eni = match known {
                    Some(eni) => eni,
                    None => {
                        let eni = self.cloud.create(client_token, &subnet, *addresses, *prefixes)?;
                        if calls == Some(1) {
                            return Err(FailureClass::Retry);
                        }
                        self.tell(vec![Event::Progress {
                            id: *id,
                            stage: Stage::Created { eni: eni.clone() },
                        }]);
                        eni
                    }
                };
                if calls == Some(2) {
                    return Err(FailureClass::Retry);
                }
                self.cloud.attach(&eni, *card, device.0)?;
                Ok(Outcome::InterfaceReady(
                    self.cloud.facts(&eni).ok_or(FailureClass::Gone)?,
                ))
            }
            Action::AssignAddresses { eni, count, .. } => Ok(Outcome::Assigned {
                addresses: self.cloud.assign(eni, *count)?,
                prefixes: Vec::new(),
            }),
            Action::AssignPrefixes { eni, count, .. } => Ok(Outcome::Assigned {
                addresses: Vec::new(),
                prefixes: self.cloud.assign_prefixes(eni, *count)?,
            }),
            Action::AssignIpv6Prefix { eni, .. } => Ok(Outcome::AssignedIpv6 {
                prefixes: self.cloud.assign_ipv6(eni)?,
            }),
            Action::ReleaseAddresses { eni, addresses, .. } => {
                self.cloud.release(eni, addresses, &[])?;
                Ok(Outcome::Gone)
            }
            Action::ReleasePrefixes { eni, prefixes, .. } => {
                self.cloud.release(eni, &[], prefixes)?;
                Ok(Outcome::Gone)
            }
            Action::DeleteInterface { eni, .. } => {
                self.cloud.delete(eni)?;
                Ok(Outcome::Gone)
            }
            Action::Describe { eni, .. } => Ok(Outcome::Described(self.cloud.facts(eni))),
            other => panic!("not an order to EC2: {other:?}"),
        }
    }

    /// `kill -9`, and the agent starts again.
    pub(crate) fn crash(&mut self, how: Crash) {
        self.note(format!("crash {how:?}"));
        let jobs = std::mem::take(&mut self.jobs);
        if how.calls_land {
            for job in &jobs {
                // Its answer reaches nobody.
                let calls = if let Some(Fault::Lost { calls }) = job.fault {
                    calls
                } else {
                    1
                };
                if !matches!(job.fault, Some(Fault::Before(_))) {
                    let _ = match &job.action {
                        Action::CreateInterface {
                            client_token,
                            subnet,
                            addresses,
                            prefixes,
                            card,
                            device,
                            done,
                            ..
                        } => {
                            let subnet = subnet.clone().unwrap_or_else(first_subnet);
                            let known = done.iter().find_map(|s| match s {
                                Stage::Created { eni } => Some(eni.clone()),
                                Stage::Attached { .. } => None,
                            });
                            let eni = known.map_or_else(
                                || self.cloud.create(client_token, &subnet, *addresses, *prefixes),
                                Ok,
                            );
                            if calls > 1 {
                                eni.and_then(|eni| self.cloud.attach(&eni, *card, device.0))
                            } else {
                                Ok(())
                            }
                        }
                        other => self.effect(other, None).map(|_| ()),
                    };
                }
            }
            self.remember();
        }
        self.asked.clear();
        self.journal_was_lost |= how.lose_journal;
        if how.lose_checkpoint {
            // Whose veth is gone is nobody's any more; no DEL for it finds anything.
            let kernel = &self.kernel;
            let plugins = &self.plugins;
            self.sandboxes.retain(|(k, _)| {
                kernel.values().any(|l| l.key == *k && !l.dead)
                    || plugins.iter().any(|(_, l)| l.key == *k && !l.dead)
            });
            // A plugin between its answer and its veth loses its address with the file: it is let finish first.
            for (_, live) in std::mem::take(&mut self.plugins) {
                if !live.dead {
                    self.kernel.insert(veth(&live.meta), live);
                }
            }
        }
        let checkpoint = (!how.lose_checkpoint).then(|| Checkpoint::parse(&self.checkpoint_file).unwrap());
        let journal: Option<Journal> =
            (!how.lose_journal).then(|| serde_json::from_str(&self.journal_file).unwrap());
        let pods = self.kernel_pods();
        let veths = pods.iter().map(|(name, _)| name.clone()).collect();
        let route = |(host_veth, address)| HostRoute { address, host_veth };
        let kernel = KernelEvidence {
            pods: pods.into_iter().map(route).collect(),
            from_rules: Vec::new(),
            veths,
        };
        let restored = Restored {
            checkpoint,
            journal,
            kernel,
        };
        let targets = self.pool.targets().clone();
        let (pool, _, actions) =
            Pool::restore(identity(), self.size.limits(), targets, restored, self.now()).unwrap();
        self.pool = pool;
        self.writer = CheckpointWriter::default();
        self.checkpoint_generation = self.pool.checkpoint_generation().wrapping_sub(1);
        self.journal_generation = None;
        self.failing_writes = 0;
        self.commit(actions);
        self.check_step();
        if !how.imds_down || how.lose_journal {
            self.imds(0);
        }
    }
}

fn first_subnet() -> SubnetId {
    subnet(0)
}

fn failed(id: ActionId, class: FailureClass) -> Event {
    Event::ActionFailed {
        id,
        class,
        message: format!("{class:?} in this test"),
        retry_at: None,
    }
}
