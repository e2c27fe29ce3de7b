//! A lab VPC in tests, and short ways to ask it things.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::time::Duration;

use vpcnet_lab::model::*;

/// `n` milliseconds of lab time.
pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A VPC with one node, and a clock that stands still unless moved.
pub(crate) struct Lab {
    pub(crate) vpc: Vpc,
    pub(crate) node: InstanceId,
    pub(crate) now: Duration,
}

impl Lab {
    /// A VPC in which everything happens at once, with an m5.large in the first subnet.
    pub(crate) fn instant() -> Self {
        Self::with(VpcConfig::instant(), "m5.large")
    }

    pub(crate) fn with(config: VpcConfig, instance_type: &str) -> Self {
        let mut vpc = Vpc::new(config, 42);
        let node = vpc
            .run_instance(Duration::ZERO, &NodeSpec::new("node-1", instance_type))
            .unwrap();
        Self {
            vpc,
            node,
            now: Duration::ZERO,
        }
    }

    pub(crate) fn subnet(&self, name: &str) -> SubnetId {
        self.vpc.subnet_named(name).unwrap().clone()
    }

    /// A call as administrator; its outcome.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Response, ApiError> {
        let outcome = self.reply(&Caller::admin(), request).outcome;
        assert_eq!(self.vpc.check(), Vec::<String>::new());
        outcome
    }

    pub(crate) fn reply(&mut self, caller: &Caller, request: Request) -> Reply {
        self.vpc.call(self.now, caller, request)
    }

    /// The error code of a call that must be refused.
    pub(crate) fn refused(&mut self, request: Request) -> String {
        match self.ask(request) {
            Ok(response) => panic!("expected a refusal, got {response:?}"),
            Err(error) => error.code,
        }
    }

    pub(crate) fn create(
        &mut self,
        change: impl FnOnce(&mut CreateNetworkInterface),
    ) -> Result<Arc<Interface>, ApiError> {
        let mut wanted = CreateNetworkInterface::new(self.subnet("subnet-a"));
        change(&mut wanted);
        match self.ask(Request::CreateNetworkInterface(wanted))? {
            Response::Created { interface, .. } => Ok(interface),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn attach(&mut self, eni: &EniId, device_index: u32) -> Result<AttachmentId, ApiError> {
        let instance = self.node.clone();
        let wanted = AttachNetworkInterface {
            eni: eni.clone(),
            instance,
            device_index,
            card: 0,
        };
        match self.ask(Request::AttachNetworkInterface(wanted))? {
            Response::Attached { attachment, .. } => Ok(attachment),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn detach(&mut self, attachment: &AttachmentId) -> Result<Response, ApiError> {
        self.ask(Request::DetachNetworkInterface {
            attachment: attachment.clone(),
            force: false,
        })
    }

    pub(crate) fn assign(
        &mut self,
        eni: &EniId,
        addresses: Wanted<std::net::Ipv4Addr>,
    ) -> Result<Vec<std::net::Ipv4Addr>, ApiError> {
        let wanted = AssignPrivateIpAddresses {
            eni: eni.clone(),
            addresses,
            prefixes: Wanted::Count(0),
            allow_reassignment: false,
        };
        match self.ask(Request::AssignPrivateIpAddresses(wanted))? {
            Response::Assigned { addresses, .. } => Ok(addresses),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn assign_prefixes(&mut self, eni: &EniId, n: u32) -> Result<Vec<ipnet::Ipv4Net>, ApiError> {
        let wanted = AssignPrivateIpAddresses {
            eni: eni.clone(),
            addresses: Wanted::Count(0),
            prefixes: Wanted::Count(n),
            allow_reassignment: false,
        };
        match self.ask(Request::AssignPrivateIpAddresses(wanted))? {
            Response::Assigned { prefixes, .. } => Ok(prefixes),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn interfaces(&mut self, query: Describe) -> Result<Vec<Arc<Interface>>, ApiError> {
        match self.ask(Request::DescribeNetworkInterfaces(query))? {
            Response::Interfaces(page) => Ok(page.items),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn interface(&mut self, eni: &EniId) -> Arc<Interface> {
        self.interfaces(Describe::ids([eni])).unwrap().remove(0)
    }

    pub(crate) fn primary(&mut self) -> Arc<Interface> {
        let node = self.node.clone();
        let query = Describe::all()
            .filter("attachment.instance-id", &[node.as_str()])
            .filter("attachment.device-index", &["0"]);
        self.interfaces(query).unwrap().remove(0)
    }

    pub(crate) fn free(&mut self, subnet: &str) -> u32 {
        let id = self.subnet(subnet);
        match self.ask(Request::DescribeSubnets(Describe::ids([id]))).unwrap() {
            Response::Subnets(page) => page.items[0].free,
            other => panic!("{other:?}"),
        }
    }

    /// What IMDS says at a path below `/latest/meta-data/`.
    pub(crate) fn imds(&mut self, path: &str) -> Option<String> {
        let node = self.node.clone();
        let reply = self
            .vpc
            .imds(self.now, &node, &format!("/latest/meta-data/{path}"));
        match (reply.status, reply.body) {
            (200, ImdsBody::Text(text)) => Some(text),
            (404, _) => None,
            (status, body) => panic!("{status} {body:?}"),
        }
    }
}

/// A small subnet beside the usual ones, in the zone of the first.
pub(crate) fn small_subnet(cidr: &str) -> SubnetConfig {
    SubnetConfig {
        name: "small".to_owned(),
        cidr: cidr.parse().unwrap(),
        ipv6: None,
        zone: 'a',
        route: SubnetRoute::Public,
        tags: Tags::new(),
        reservations: Vec::new(),
    }
}
