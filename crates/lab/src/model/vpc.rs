//! The VPC's value and the way every call goes: fault plan, throttle, rights, then the operation, then the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::calls::CallLog;
use super::config::{RoleConfig, VpcConfig};
use super::error::ApiError;
use super::faults::{ActiveFault, FaultKind, FaultRule, Faults, Subject, fault_error};
use super::ids::{AttachmentId, EniId, GroupId, InstanceId, SubnetId, VpcId};
use super::lagging::Lagging;
use super::policy::Policy;
use super::request::{Request, Tags};
use super::response::Response;
use super::rights::{Caller, Credentials, Rights};
use super::rng::Rng;
use super::space::Space;
use super::space6::Space6;
use super::state::{Group, Instance, Interface, Subnet};
use super::throttle::Throttle;

/// What becomes of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is delivered.
    Deliver,
    /// The connection is closed without it.
    Lose,
    /// It never comes, and the connection stays open.
    Hang,
}

/// What comes of a call.
#[derive(Clone, PartialEq, Debug)]
pub struct Reply {
    /// The answer or the refusal. Meaningless to the client unless the fate is [`Fate::Deliver`].
    pub outcome: Result<Response, ApiError>,
    /// How long the client waits for it.
    pub latency: Duration,
    /// Whether it gets there.
    pub fate: Fate,
    /// The request id, as EC2 gives each call one.
    pub request_id: String,
}

/// How long replaced values are kept for lagging readers at least.
const HISTORY: Duration = Duration::from_secs(60);

/// Something that ends by itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Due {
    Interface(EniId),
    Instance(InstanceId),
}

/// The whole VPC.
#[derive(Clone, Debug)]
pub struct Vpc {
    pub(crate) config: VpcConfig,
    pub(crate) id: VpcId,
    pub(crate) tags: Tags,
    pub(crate) now: Duration,
    /// For ids and addresses.
    pub(crate) rng: Rng,
    /// For delays and faults, apart: a read more or less must not move addresses.
    pub(crate) weather: Rng,
    pub(crate) subnets: BTreeMap<SubnetId, Arc<Subnet>>,
    /// Subnets in the order of the configuration.
    pub(crate) subnet_order: Vec<SubnetId>,
    pub(crate) spaces: BTreeMap<SubnetId, Space>,
    /// Of the subnets with an IPv6 CIDR.
    pub(crate) ipv6_spaces: BTreeMap<SubnetId, Space6>,
    pub(crate) groups: BTreeMap<GroupId, Arc<Group>>,
    pub(crate) interfaces: Lagging<EniId, Interface>,
    pub(crate) instances: Lagging<InstanceId, Instance>,
    pub(crate) attachments: BTreeMap<AttachmentId, EniId>,
    pub(crate) public: BTreeMap<Ipv4Addr, EniId>,
    pub(crate) timeline: BTreeSet<(Duration, Due)>,
    /// Client tokens of creations, with the parameters they came with.
    pub(crate) tokens: BTreeMap<String, (super::request::CreateNetworkInterface, EniId)>,
    pub(crate) run_tokens: BTreeMap<String, (super::request::RunInstances, Vec<InstanceId>)>,
    /// By instance: when a change was made and when it shows in IMDS.
    pub(crate) imds_shows: BTreeMap<InstanceId, VecDeque<(Duration, Duration)>>,
    /// IMDS session tokens.
    pub(crate) sessions: super::imds::Sessions,
    pub(crate) rights: Rights,
    throttle: Throttle,
    faults: Faults,
    pub(crate) log: CallLog,
    /// How many nodes were put into subnets by turns.
    pub(crate) turn: usize,
    pub(crate) fabric_generation: u64,
}

impl Vpc {
    /// A VPC with no instances.
    #[must_use]
    pub fn new(config: VpcConfig, seed: u64) -> Self {
        let mut vpc = Self {
            id: VpcId::from("vpc-"),
            tags: Tags::from([("Name".to_owned(), "lab".to_owned())]),
            now: Duration::ZERO,
            rng: Rng::new(seed),
            weather: Rng::new(seed ^ 0x5eed_0fda_15ea_5e00),
            subnets: BTreeMap::new(),
            subnet_order: Vec::new(),
            spaces: BTreeMap::new(),
            ipv6_spaces: BTreeMap::new(),
            groups: BTreeMap::new(),
            interfaces: Lagging::new(),
            instances: Lagging::new(),
            attachments: BTreeMap::new(),
            public: BTreeMap::new(),
            timeline: BTreeSet::new(),
            tokens: BTreeMap::new(),
            run_tokens: BTreeMap::new(),
            imds_shows: BTreeMap::new(),
            sessions: BTreeMap::new(),
            rights: Rights::new(&config.roles, seed ^ 0x0c4e_d5ee_d000_0001),
            throttle: Throttle::new(),
            faults: Faults::new(&config.faults),
            log: CallLog::new(config.call_log),
            turn: 0,
            fabric_generation: 1,
            config,
        };
        vpc.found();
        vpc
    }

    /// Carries out a call of the EC2 API at `now`.
    ///
    /// The order is EC2's: a throttled caller does not learn that it lacks the right, and one that lacks the right
    /// does not learn that its parameters are wrong.
    pub fn call(&mut self, now: Duration, caller: &Caller, request: Request) -> Reply {
        self.advance(now);
        let action = request.action();
        let fault = self.strike(Some(action), None, caller.instance.as_ref());
        let mut latency = self.weather.delay(self.config.timing.ec2_latency);
        let mut fate = Fate::Deliver;
        let mut stale = None;
        let mut twice = false;
        let mut after = None;
        let mut before = None;
        match fault {
            None => {}
            Some(FaultKind::Error { code, status }) => before = Some(fault_error(&code, status)),
            Some(FaultKind::ErrorAfter { code, status }) => after = Some(fault_error(&code, status)),
            Some(FaultKind::Hang) => (before, fate) = (Some(unanswered()), Fate::Hang),
            Some(FaultKind::HangAfter) => fate = Fate::Hang,
            Some(FaultKind::Drop) => (before, fate) = (Some(unanswered()), Fate::Lose),
            Some(FaultKind::LoseAnswer) => fate = Fate::Lose,
            Some(FaultKind::Slow(spread)) => latency += self.weather.delay(spread),
            Some(FaultKind::Duplicate) => twice = true,
            Some(FaultKind::Stale(by)) => stale = Some(by),
        }
        let outcome = match before {
            Some(error) => Err(error),
            None => {
                let lag = stale.unwrap_or_else(|| self.weather.delay(self.config.timing.read_lag));
                if twice {
                    // The first answer goes nowhere: the client never sees it.
                    let _ = self.admit_and_run(caller, action, request.clone(), lag);
                }
                let outcome = self.admit_and_run(caller, action, request, lag);
                after.map_or(outcome, Err)
            }
        };
        // What takes no time is done now, not at the next call.
        self.advance(now);
        let request_id = self.request_id();
        self.log_call(caller, action, &outcome, fate, latency, &request_id);
        Reply {
            outcome,
            latency,
            fate,
            request_id,
        }
    }

    fn admit_and_run(
        &mut self,
        caller: &Caller,
        action: &'static str,
        request: Request,
        lag: Duration,
    ) -> Result<Response, ApiError> {
        if !self.throttle.admit(self.now, &self.config.buckets, action) {
            return Err(fault_error("RequestLimitExceeded", 503));
        }
        self.authorize(caller, &request)?;
        let as_of = self.now.saturating_sub(lag);
        match request {
            Request::Malformed { error, .. } => Err(error),
            Request::DescribeInstances(d) => self.describe_instances(as_of, &d),
            Request::DescribeInstanceTypes(d) => super::types::describe(&d),
            Request::DescribeSubnets(d) => self.describe_subnets(&d),
            Request::DescribeVpcs(d) => self.describe_vpcs(&d),
            Request::DescribeSecurityGroups(d) => self.describe_groups(&d),
            Request::DescribeNetworkInterfaces(d) => self.describe_interfaces(as_of, &d),
            Request::CreateNetworkInterface(c) => self.create_interface(caller, c),
            Request::AttachNetworkInterface(a) => self.attach(&a),
            Request::DetachNetworkInterface { attachment, .. } => self.detach(&attachment),
            Request::DeleteNetworkInterface(eni) => self.delete_interface(&eni),
            Request::ModifyNetworkInterfaceAttribute { eni, change } => self.modify_interface(&eni, change),
            Request::AssignPrivateIpAddresses(a) => self.assign(&a),
            Request::UnassignPrivateIpAddresses {
                eni,
                addresses,
                prefixes,
            } => self.unassign(&eni, &addresses, &prefixes),
            Request::AssignIpv6Addresses(a) => self.assign_ipv6(&a),
            Request::UnassignIpv6Addresses { eni, ipv6 } => self.unassign_ipv6(&eni, &ipv6),
            Request::CreateTags { resources, tags } => self.create_tags(&resources, &tags),
            Request::DeleteTags { resources, tags } => self.delete_tags(&resources, &tags),
            Request::RunInstances(r) => self.run_instances(r),
            Request::TerminateInstances(ids) => self.terminate_instances(&ids),
            Request::ModifyInstanceMetadataOptions {
                instance,
                hop_limit,
                http_tokens,
            } => self.modify_metadata_options(&instance, hop_limit, http_tokens),
        }
    }

    pub(crate) fn strike(
        &mut self,
        ec2_action: Option<&str>,
        imds_path: Option<&str>,
        instance: Option<&InstanceId>,
    ) -> Option<FaultKind> {
        let node = instance.and_then(|i| self.instances.get(i)).cloned();
        let subject = Subject {
            ec2_action,
            imds_path,
            node: node.as_ref().map(|n| (n.name(), n.id.as_str())),
        };
        self.faults.strike(self.now, &subject, &mut self.weather)
    }

    /// Adds a fault; its number removes it.
    pub fn add_fault(&mut self, rule: FaultRule) -> u64 {
        self.faults.add(rule)
    }

    /// Removes a fault; false: there is none of that number.
    pub fn remove_fault(&mut self, id: u64) -> bool {
        self.faults.remove(id)
    }

    /// Removes all faults.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> &[ActiveFault] {
        self.faults.list()
    }

    /// Adds a role, or replaces what it may do.
    pub fn set_role(&mut self, role: &RoleConfig) {
        self.rights.set_role(role);
    }

    /// What a role may do, if there is such a role.
    #[must_use]
    pub fn policy(&self, role: &str) -> Option<&Policy> {
        self.rights.policy(role)
    }

    /// The long-lived key of a role, for clients outside the nodes.
    #[must_use]
    pub fn role_credentials(&self, role: &str) -> Option<Credentials> {
        self.rights.role_key(role).cloned()
    }

    /// Whose key this is, if it is known and good at `now`.
    #[must_use]
    pub fn credentials(&self, now: Duration, access_key: &str) -> Option<Credentials> {
        self.rights
            .find(access_key)
            .filter(|c| c.expires.is_none_or(|e| now < e))
            .cloned()
    }

    /// What it was made from, with the changes made since.
    #[must_use]
    pub const fn config(&self) -> &VpcConfig {
        &self.config
    }

    /// Changes how long things take from now on.
    pub fn set_timing(&mut self, timing: super::config::Timing) {
        self.config.timing = timing;
    }

    /// Says which Unix time in seconds the lab's time began at, for the timestamps in answers.
    pub const fn set_epoch(&mut self, unix: u64) {
        self.config.epoch = unix;
    }

    /// The VPC's id.
    #[must_use]
    pub const fn id(&self) -> &VpcId {
        &self.id
    }

    /// The time it was last told.
    #[must_use]
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// Moves the clock; time never goes back.
    pub(crate) fn tell_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let lag = self
            .config
            .timing
            .read_lag
            .max
            .max(self.config.timing.imds_lag.max)
            .max(HISTORY);
        let horizon = self.now.saturating_sub(lag);
        self.interfaces.forget(horizon);
        self.instances.forget(horizon);
    }

    /// Sets when the next step of something is due.
    pub(crate) fn schedule(&mut self, delay: Duration, what: Due) -> Duration {
        let at = self.now + delay;
        self.timeline.insert((at, what));
        at
    }

    pub(crate) fn hex(&mut self) -> String {
        format!("0{:016x}", self.rng.word())
    }

    pub(crate) fn request_id(&mut self) -> String {
        let (a, b) = (self.weather.word(), self.weather.word());
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
    }
}

/// Stands for the answer that never comes.
fn unanswered() -> ApiError {
    ApiError::with_status(
        503,
        "Unavailable",
        "The lab's fault plan took this request; nothing was done",
    )
}
