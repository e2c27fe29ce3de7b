//! The executor's longest order: an interface is made, attached, and waited for until its link is there.

use std::sync::Arc;

use vpcnet_ipam::{Action, EniId, Event, FailureClass, Outcome, Stage};
use vpcnet_lab::model as ec2;

use super::calls::{CallError, Step, Task, facts_of, place_taken};
use super::node::id_of;
use super::world::World;

/// A link may take this long, milliseconds.
const LINK_WITHIN: u64 = 60_000;

impl World {
    pub(crate) fn created(
        &mut self,
        n: usize,
        number: u64,
        mut task: Task,
        answer: Result<ec2::Response, CallError>,
    ) {
        let Some(Action::CreateInterface { id, client_token, .. }) = task.action.clone() else {
            return;
        };
        let Some(life) = &mut self.nodes[n].life else {
            return;
        };
        match answer {
            Ok(ec2::Response::Created { interface, .. }) => {
                life.begun.remove(&client_token);
                let eni = EniId(interface.id.to_string());
                if std::mem::take(&mut self.nodes[n].hides_next) {
                    self.nodes[n].hidden.insert(interface.id.clone());
                }
                task.made = Some(interface);
                task.step = Step::Attach;
                self.tell(
                    n,
                    vec![Event::Progress {
                        id,
                        stage: Stage::Created { eni },
                    }],
                );
                self.go_on(n, number, task);
            }
            Ok(other) => panic!("CreateNetworkInterface answered {other:?}"),
            Err(error) => {
                let unsure = life.begun.get_mut(&client_token).map(|b| {
                    b.1 |= error.unknown;
                    b.1
                });
                if unsure == Some(false) {
                    life.begun.remove(&client_token);
                }
                self.fail(n, &task, error);
            }
        }
    }

    /// The interface that an earlier life made, or that is to go.
    pub(crate) fn looked(
        &mut self,
        n: usize,
        number: u64,
        mut task: Task,
        found: Option<Arc<ec2::Interface>>,
    ) {
        let deletes = matches!(task.action, Some(Action::DeleteInterface { .. }));
        let Some(found) = found else {
            if deletes {
                // The read may lag: the deletion itself tells.
                task.step = Step::Delete;
                return self.go_on(n, number, task);
            }
            let error = CallError {
                class: FailureClass::Gone,
                code: "gone".into(),
                message: "what an earlier life of the agent made is gone".into(),
                unknown: false,
            };
            return self.fail(n, &task, error);
        };
        let own = self.own(n, &found);
        if deletes {
            if found.attachment.is_some() && own.is_none() {
                let error = CallError {
                    class: FailureClass::Refused,
                    code: "attached elsewhere".into(),
                    message: "it is left alone".into(),
                    unknown: false,
                };
                return self.fail(n, &task, error);
            }
            task.step = if own.is_some() { Step::Detach } else { Step::Delete };
            task.attachment = own;
            return self.go_on(n, number, task);
        }
        task.made = Some(found);
        match own {
            Some(attachment) => {
                task.attachment = Some(attachment);
                self.begin_link(n, number, task);
            }
            None => {
                task.step = Step::Attach;
                self.go_on(n, number, task);
            }
        }
    }

    pub(crate) fn own(&self, n: usize, i: &ec2::Interface) -> Option<ec2::AttachmentId> {
        let own = i
            .attachment
            .as_ref()
            .filter(|a| a.instance == self.nodes[n].instance);
        own.map(|a| a.id.clone())
    }

    pub(crate) fn attach_answered(
        &mut self,
        n: usize,
        number: u64,
        mut task: Task,
        answer: Result<ec2::Response, CallError>,
    ) {
        match answer {
            Ok(ec2::Response::Attached { attachment, .. }) => self.is_attached(n, number, task, attachment),
            Ok(other) => panic!("AttachNetworkInterface answered {other:?}"),
            Err(e) if e.unknown || e.code == "InvalidNetworkInterface.InUse" => {
                task.doubt = Some(e);
                task.step = Step::WasItAttached;
                self.go_on(n, number, task);
            }
            Err(e) if place_taken(&e) => self.fail_as(n, &task, FailureClass::DeviceTaken, &e),
            Err(e) => self.again(n, number, task, Step::Attach, e),
        }
    }

    pub(crate) fn is_attached(
        &mut self,
        n: usize,
        number: u64,
        mut task: Task,
        attachment: ec2::AttachmentId,
    ) {
        let id = task.action.as_ref().map(id_of);
        task.attachment = Some(attachment.clone());
        if let Some(id) = id {
            let stage = Stage::Attached {
                attachment: attachment.to_string(),
            };
            self.tell(n, vec![Event::Progress { id, stage }]);
        }
        self.begin_link(n, number, task);
    }

    fn begin_link(&mut self, n: usize, number: u64, mut task: Task) {
        let beside = Task {
            action: None,
            step: Step::GoWithInstance,
            tries: 0,
            doubt: None,
            deadline: 0,
            ..task.clone()
        };
        self.go_on(n, number + 1, beside);
        (task.step, task.deadline) = (Step::Link, self.at + LINK_WITHIN);
        self.wait_for_link(n, number, task);
    }

    pub(crate) fn wait_for_link(&mut self, n: usize, number: u64, task: Task) {
        let Some(made) = task.made.clone() else { return };
        if self.has_link(n, &made.id) {
            let place = match &task.action {
                Some(Action::CreateInterface { card, device, .. }) => (card.0, device.0),
                _ => return,
            };
            let cidr = self.cidr_of(&made.subnet);
            let facts = facts_of(&made, place, cidr, &self.nodes[n].instance);
            let Some(facts) = facts else { return };
            return self.done(n, &task, Outcome::InterfaceReady(facts));
        }
        if self.at >= task.deadline {
            let error = CallError {
                class: FailureClass::Retry,
                code: "no link".into(),
                message: "its link did not appear".into(),
                unknown: false,
            };
            return self.fail(n, &task, error);
        }
        self.pause(n, number, task, 250);
    }

    /// Does the kernel of a node show an interface?
    pub(crate) fn has_link(&self, n: usize, eni: &ec2::EniId) -> bool {
        let node = &self.nodes[n];
        let linked = self
            .vpc
            .interface_now(eni)
            .and_then(|i| i.linked().map(|a| a.instance == node.instance));
        linked == Some(true) && !node.hidden.contains(eni)
    }

    pub(crate) fn cidr_of(&self, subnet: &ec2::SubnetId) -> ipnet::Ipv4Net {
        let config = self.vpc.config();
        let at = self.subnets.iter().position(|s| s == subnet).unwrap();
        config.subnets[at].cidr
    }
}
