//! The executor: carries orders out as typed requests to the VPC, one call after the other, and reports how they ended. It
//! does what the agent's does, in the same order, with the same patience; and it decides nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use vpcnet_ipam::{
    Action, ActionId, CardIndex, DeviceIndex, EniId, Event, FailureClass, InterfaceFacts, InterfaceKind,
    Outcome, Stage, SubnetId,
};
use vpcnet_lab::model as ec2;

use super::node::id_of;
use super::world::{Due, World};

/// A call whose answer never comes is given up after so many milliseconds.
const TIMEOUT: u64 = 10_000;
/// A detachment may.
const DETACH_WITHIN: u64 = 120_000;
/// A call that fails in passing is made so often.
const TRIES: u32 = 3;
/// The tag with the time of a creation.
const CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";
/// The tag that makes an interface ours.
pub(crate) const INSTANCE_TAG: &str = "node.k8s.amazonaws.com/instance_id";

/// How a call failed.
#[derive(Clone, Debug)]
pub(crate) struct CallError {
    pub(crate) class: FailureClass,
    pub(crate) code: String,
    pub(crate) message: String,
    /// It may have been carried out.
    pub(crate) unknown: bool,
}

/// What comes back.
#[derive(Clone, Debug)]
pub(crate) enum Answered {
    Call(Result<ec2::Response, CallError>),
    /// A pause is over.
    Time,
}

/// An order under way.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) action: Option<Action>,
    pub(crate) step: Step,
    pub(crate) tries: u32,
    pub(crate) made: Option<Arc<ec2::Interface>>,
    pub(crate) attachment: Option<ec2::AttachmentId>,
    pub(crate) deadline: u64,
    /// Why an attachment is in doubt.
    pub(crate) doubt: Option<CallError>,
}

/// The call that is out, or the pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Create,
    Look,
    Attach,
    WasItAttached,
    Link,
    Only,
    Detach,
    IsItFree,
    Delete,
    /// Of no order: an interface is to go with its instance.
    GoWithInstance,
}

/// What is known of an interface, as facts.
pub(crate) fn facts_of(
    i: &ec2::Interface,
    (card, device): (u32, u32),
    cidr: ipnet::Ipv4Net,
    instance: &ec2::InstanceId,
) -> Option<InterfaceFacts> {
    let is_primary = (card, device) == (0, 0);
    Some(InterfaceFacts {
        id: EniId(i.id.to_string()),
        mac: i.mac.to_string(),
        device: DeviceIndex(device),
        card: CardIndex(card),
        subnet: SubnetId(i.subnet.to_string()),
        subnet_cidr: cidr,
        primary_address: i.primary?,
        is_primary,
        kind: match i.kind {
            ec2::InterfaceKind::Trunk => InterfaceKind::Trunk,
            ec2::InterfaceKind::Efa => InterfaceKind::Efa,
            ec2::InterfaceKind::EfaOnly => InterfaceKind::EfaOnly,
            _ => InterfaceKind::Interface,
        },
        managed: is_primary || i.tags.get(INSTANCE_TAG).is_some_and(|t| t == instance.as_str()),
        addresses: i.secondary.clone(),
        prefixes: i.prefixes.clone(),
        ipv6_prefixes: Vec::new(),
        table: None,
    })
}

/// EC2's codes by class, as the agent's client sorts them.
fn class_of(code: &str, message: &str) -> FailureClass {
    match code {
        "InvalidParameterValue" if message.contains("currently in use") => FailureClass::Retry,
        "RequestLimitExceeded" => FailureClass::Throttled,
        "InsufficientFreeAddressesInSubnet" | "InsufficientCidrBlocks" => FailureClass::SubnetExhausted,
        "AttachmentLimitExceeded" | "PrivateIpAddressLimitExceeded" => FailureClass::LimitReached,
        "IncorrectState" | "InvalidNetworkInterface.InUse" | "InternalError" | "Unavailable" => {
            FailureClass::Retry
        }
        _ if code.ends_with(".NotFound") => FailureClass::Gone,
        _ => FailureClass::Refused,
    }
}

impl World {
    /// One call of a node's agent. Its effect is there at once; when the answer comes is the first of what is given back.
    pub(crate) fn call(
        &mut self,
        n: usize,
        request: ec2::Request,
    ) -> (u64, Result<ec2::Response, CallError>) {
        self.check_call(n, &request);
        let action = request.action();
        let token = self.sure_token(n, &request);
        let repeats = self.repeats(&request);
        let caller = ec2::Caller::node(&self.nodes[n].instance);
        let reply = self.vpc.call(self.time(), &caller, request);
        let latency = u64::try_from(reply.latency.as_millis()).unwrap();
        let lost = |code: &str| CallError {
            class: FailureClass::Retry,
            code: code.to_owned(),
            message: format!("{action}: {code}"),
            unknown: true,
        };
        let (latency, outcome) = match (reply.fate, reply.outcome) {
            (ec2::Fate::Hang, _) => (TIMEOUT, Err(lost("RequestTimeout"))),
            (ec2::Fate::Lose, _) => (latency, Err(lost("ConnectionBroken"))),
            (ec2::Fate::Deliver, _) if latency > TIMEOUT => (TIMEOUT, Err(lost("RequestTimeout"))),
            (ec2::Fate::Deliver, Ok(response)) => (latency, Ok(response)),
            // EC2 answers a repeat with what it made before: never that there is no room for it.
            (ec2::Fate::Deliver, Err(error))
                if repeats && error.status == 400 && error.code != "IdempotentParameterMismatch" =>
            {
                (latency, Err(lost("InternalError")))
            }
            (ec2::Fate::Deliver, Err(error)) => {
                let error = CallError {
                    class: class_of(&error.code, &error.message),
                    message: format!("{action}: {error}"),
                    unknown: error.status >= 500 && error.code != "RequestLimitExceeded",
                    code: error.code,
                };
                (latency, Err(error))
            }
        };
        if let Err(CallError { unknown: false, .. }) = &outcome
            && let Some(token) = token.filter(|_| !repeats)
        {
            // It was carried out twice, and only the second time refused: whoever is told so has made nothing.
            let made = self
                .vpc
                .interfaces_now()
                .filter(|i| i.description.ends_with(&token));
            let made: Vec<ec2::EniId> = made.map(|i| i.id.clone()).collect();
            self.unrecorded.extend(made);
        }
        self.note(|| match &outcome {
            Ok(_) => format!("n{n} {action} ok"),
            Err(e) => format!("n{n} {action} {}", e.code),
        });
        (latency, outcome)
    }

    /// The token of a creation of which no answer was lost so far: a refusal of it is the end of it.
    fn sure_token(&self, n: usize, request: &ec2::Request) -> Option<String> {
        let ec2::Request::CreateNetworkInterface(wanted) = request else {
            return None;
        };
        let token = wanted.client_token.as_ref()?;
        let (_, unsure) = self.nodes[n].life.as_ref()?.begun.get(token)?;
        (!unsure).then(|| token.clone())
    }

    /// A creation that was made before.
    fn repeats(&self, request: &ec2::Request) -> bool {
        let ec2::Request::CreateNetworkInterface(wanted) = request else {
            return false;
        };
        let token = wanted.client_token.as_ref();
        token.is_some_and(|t| self.vpc.interfaces_now().any(|i| i.description.ends_with(t)))
    }

    /// What a Describe call says of one interface.
    fn found(outcome: Result<ec2::Response, CallError>) -> Result<Option<Arc<ec2::Interface>>, CallError> {
        match outcome {
            Ok(ec2::Response::Interfaces(page)) => Ok(page.items.into_iter().next()),
            Ok(_) => Ok(None),
            Err(error) if error.class == FailureClass::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts an order.
    pub(crate) fn begin(&mut self, n: usize, action: Action) {
        let created = |done: &[Stage]| done.iter().any(|s| matches!(s, Stage::Created { .. }));
        let step = match &action {
            Action::CreateInterface { done, .. } if created(done) => Step::Look,
            Action::CreateInterface { .. } => Step::Create,
            Action::DeleteInterface { .. } => Step::Look,
            _ => Step::Only,
        };
        let number = id_of(&action).0 * 2;
        let task = Task {
            action: Some(action),
            step,
            tries: 0,
            made: None,
            attachment: None,
            deadline: 0,
            doubt: None,
        };
        self.go_on(n, number, task);
    }

    /// Makes the call of a task's step, or begins its pause.
    pub(crate) fn go_on(&mut self, n: usize, number: u64, task: Task) {
        let Some(life) = self.nodes[n].life.as_ref().map(|l| l.number) else {
            return;
        };
        let (after, answer) = match self.call_of(n, &task) {
            Some(request) => {
                let (latency, outcome) = self.call(n, request);
                (latency, Answered::Call(outcome))
            }
            None => (200, Answered::Time),
        };
        if let Some(l) = &mut self.nodes[n].life {
            l.tasks.insert(number, task);
        }
        self.queue(
            self.at + after,
            Due::Answer {
                node: n,
                life,
                task: number,
                answer,
            },
        );
    }

    pub(crate) fn pause(&mut self, n: usize, number: u64, task: Task, ms: u64) {
        let Some(l) = &mut self.nodes[n].life else { return };
        l.tasks.insert(number, task);
        let life = l.number;
        self.queue(
            self.at + ms,
            Due::Answer {
                node: n,
                life,
                task: number,
                answer: Answered::Time,
            },
        );
    }

    fn call_of(&self, n: usize, task: &Task) -> Option<ec2::Request> {
        let describe = |eni: &ec2::EniId| ec2::Request::DescribeNetworkInterfaces(ec2::Describe::ids([eni]));
        let of_action = || task.action.as_ref().and_then(eni_of);
        Some(match task.step {
            Step::Create => self.creation(n, task.action.as_ref()?)?,
            Step::Look | Step::IsItFree => describe(&of_action()?),
            Step::WasItAttached => describe(&task.made.as_ref()?.id),
            Step::Attach => {
                let Some(Action::CreateInterface { card, device, .. }) = &task.action else {
                    return None;
                };
                ec2::Request::AttachNetworkInterface(ec2::AttachNetworkInterface {
                    eni: task.made.as_ref()?.id.clone(),
                    instance: self.nodes[n].instance.clone(),
                    device_index: device.0,
                    card: card.0,
                })
            }
            Step::Link => return None,
            Step::Only => only(task.action.as_ref()?)?,
            Step::Detach => ec2::Request::DetachNetworkInterface {
                attachment: task.attachment.clone()?,
                force: false,
            },
            Step::Delete => ec2::Request::DeleteNetworkInterface(of_action()?),
            Step::GoWithInstance => ec2::Request::ModifyNetworkInterfaceAttribute {
                eni: task.made.as_ref()?.id.clone(),
                change: ec2::AttributeChange::DeleteOnTermination {
                    attachment: task.attachment.clone()?,
                    delete: true,
                },
            },
        })
    }

    fn creation(&self, n: usize, action: &Action) -> Option<ec2::Request> {
        let Action::CreateInterface {
            subnet,
            addresses,
            prefixes,
            client_token,
            ..
        } = action
        else {
            return None;
        };
        let node = &self.nodes[n];
        let begun = node.life.as_ref()?.begun.get(client_token).map_or(0, |b| b.0);
        let own = self.subnets[node.subnet].clone();
        let subnet = subnet.as_ref().map_or(own, |s| ec2::SubnetId(s.0.clone()));
        let mut wanted = ec2::CreateNetworkInterface::new(subnet);
        // The token is in it for `repeats`.
        wanted.description = format!("aws-K8S-{} {client_token}", node.instance);
        if *prefixes > 0 {
            wanted.prefixes = ec2::Wanted::Count(*prefixes);
        } else {
            wanted.secondary = ec2::Wanted::Count(*addresses);
        }
        wanted.client_token = Some(client_token.clone());
        wanted.tags.insert(INSTANCE_TAG.into(), node.instance.to_string());
        wanted.tags.insert(CREATED_TAG.into(), begun.to_string());
        Some(ec2::Request::CreateNetworkInterface(wanted))
    }

    /// An answer, or the end of a pause, comes to a task.
    pub(crate) fn resume(&mut self, n: usize, number: u64, answer: Answered) {
        let Some(mut task) = self.nodes[n].life.as_mut().and_then(|l| l.tasks.remove(&number)) else {
            return;
        };
        let answer = match answer {
            Answered::Call(outcome) => outcome,
            Answered::Time if task.step == Step::Link => return self.wait_for_link(n, number, task),
            Answered::Time => return self.go_on(n, number, task),
        };
        match task.step {
            Step::Create => self.created(n, number, task, answer),
            Step::Link => {}
            Step::Attach => self.attach_answered(n, number, task, answer),
            Step::WasItAttached => match Self::found(answer) {
                Err(error) => self.fail(n, &task, error),
                Ok(found) => {
                    let Some(doubt) = task.doubt.take() else { return };
                    match found.as_ref().and_then(|i| self.own(n, i)) {
                        Some(attachment) => self.is_attached(n, number, task, attachment),
                        None if place_taken(&doubt) => {
                            self.fail_as(n, &task, FailureClass::DeviceTaken, &doubt)
                        }
                        None => self.again(n, number, task, Step::Attach, doubt),
                    }
                }
            },
            Step::Look => match Self::found(answer) {
                Err(error) => self.again(n, number, task, Step::Look, error),
                Ok(found) => self.looked(n, number, task, found),
            },
            Step::Only => self.only_done(n, &task, answer),
            Step::Detach => match answer {
                Err(e) if e.class != FailureClass::Gone && e.code != "IncorrectState" => {
                    self.again(n, number, task, Step::Detach, e);
                }
                _ => {
                    (task.step, task.deadline) = (Step::IsItFree, self.at + DETACH_WITHIN);
                    self.go_on(n, number, task);
                }
            },
            Step::IsItFree => match Self::found(answer) {
                Err(error) => self.again(n, number, task, Step::IsItFree, error),
                Ok(Some(i)) if i.attachment.is_some() || i.status != ec2::InterfaceStatus::Available => {
                    if self.at >= task.deadline {
                        let error = CallError {
                            class: FailureClass::Retry,
                            code: "still detaching".into(),
                            message: "it is not free".into(),
                            unknown: false,
                        };
                        return self.fail(n, &task, error);
                    }
                    self.pause(n, number, task, 1_000);
                }
                Ok(_) => {
                    task.step = Step::Delete;
                    self.go_on(n, number, task);
                }
            },
            Step::Delete => match answer {
                Err(e) if e.class != FailureClass::Gone => self.again(n, number, task, Step::Delete, e),
                _ => self.done(n, &task, Outcome::Gone),
            },
            Step::GoWithInstance => {
                if let Err(e) = answer {
                    self.again(n, number, task, Step::GoWithInstance, e);
                }
            }
        }
    }

    fn only_done(&mut self, n: usize, task: &Task, answer: Result<ec2::Response, CallError>) {
        if let Some(Action::Describe { .. }) = task.action {
            return match Self::found(answer) {
                Err(error) => self.fail(n, task, error),
                Ok(found) => {
                    let found = found.and_then(|i| {
                        let a = i
                            .attachment
                            .as_ref()
                            .filter(|a| a.instance == self.nodes[n].instance)?;
                        facts_of(
                            &i,
                            (a.card, a.device_index),
                            self.cidr_of(&i.subnet),
                            &self.nodes[n].instance,
                        )
                    });
                    self.done(n, task, Outcome::Described(found));
                }
            };
        }
        match answer {
            Err(error) => self.fail(n, task, error),
            Ok(ec2::Response::Assigned {
                addresses, prefixes, ..
            }) => {
                self.done(n, task, Outcome::Assigned { addresses, prefixes });
            }
            Ok(_) => self.done(n, task, Outcome::Gone),
        }
    }

    /// Makes a call again, or gives up.
    pub(crate) fn again(&mut self, n: usize, number: u64, mut task: Task, step: Step, error: CallError) {
        task.tries += 1;
        let passes = matches!(error.class, FailureClass::Retry | FailureClass::Throttled);
        if !passes || task.tries >= TRIES {
            return self.fail(n, &task, error);
        }
        task.step = step;
        let ms = 250 * u64::from(task.tries);
        self.pause(n, number, task, ms);
    }

    pub(crate) fn fail(&mut self, n: usize, task: &Task, error: CallError) {
        self.fail_as(n, task, error.class, &error);
    }

    pub(crate) fn fail_as(&mut self, n: usize, task: &Task, class: FailureClass, error: &CallError) {
        let Some(id) = task.action.as_ref().map(id_of) else {
            return;
        };
        let now = self.now(n).mono;
        // The agent's back-off of an EC2 action that throttles.
        let retry_at = (class == FailureClass::Throttled).then(|| now.plus(Duration::from_millis(1_500)));
        let message = error.message.clone();
        self.tell(
            n,
            vec![Event::ActionFailed {
                id,
                class,
                message,
                retry_at,
            }],
        );
        if matches!(class, FailureClass::LimitReached | FailureClass::DeviceTaken)
            && let Some(life) = self.nodes[n].life.as_ref().map(|l| l.number)
        {
            self.queue(
                self.at,
                Due::Relist {
                    node: n,
                    life,
                    pause: 2_000,
                },
            );
        }
    }

    pub(crate) fn done(&mut self, n: usize, task: &Task, outcome: Outcome) {
        let Some(id) = task.action.as_ref().map(id_of) else {
            return;
        };
        self.report(n, id, outcome);
    }

    fn report(&mut self, n: usize, id: ActionId, outcome: Outcome) {
        self.tell(n, vec![Event::ActionDone { id, outcome }]);
    }
}

pub(crate) fn place_taken(error: &CallError) -> bool {
    error.code == "InvalidParameterValue" && error.message.contains("device index")
}

fn eni_of(action: &Action) -> Option<ec2::EniId> {
    match action {
        Action::DeleteInterface { eni, .. } | Action::Describe { eni, .. } => Some(ec2::EniId(eni.0.clone())),
        Action::CreateInterface { done, .. } => done.iter().find_map(|s| match s {
            Stage::Created { eni } => Some(ec2::EniId(eni.0.clone())),
            Stage::Attached { .. } => None,
        }),
        _ => None,
    }
}

/// The call of an order that is one.
fn only(action: &Action) -> Option<ec2::Request> {
    let assign = |eni: &EniId, addresses: u32, prefixes: u32| {
        ec2::Request::AssignPrivateIpAddresses(ec2::AssignPrivateIpAddresses {
            eni: ec2::EniId(eni.0.clone()),
            addresses: ec2::Wanted::Count(addresses),
            prefixes: ec2::Wanted::Count(prefixes),
            allow_reassignment: false,
        })
    };
    let unassign = |eni: &EniId, addresses: &[Ipv4Addr], prefixes: &[ipnet::Ipv4Net]| {
        ec2::Request::UnassignPrivateIpAddresses {
            eni: ec2::EniId(eni.0.clone()),
            addresses: addresses.to_vec(),
            prefixes: prefixes.to_vec(),
        }
    };
    Some(match action {
        Action::AssignAddresses { eni, count, .. } => assign(eni, *count, 0),
        Action::AssignPrefixes { eni, count, .. } => assign(eni, 0, *count),
        Action::ReleaseAddresses { eni, addresses, .. } => unassign(eni, addresses, &[]),
        Action::ReleasePrefixes { eni, prefixes, .. } => unassign(eni, &[], prefixes),
        Action::Describe { eni, .. } => ec2::Request::DescribeNetworkInterfaces(ec2::Describe::ids([&eni.0])),
        other => panic!("{other:?} is not one call"),
    })
}
