//! Instances start, change their metadata options, and go.

use std::sync::Arc;

use super::config::{HttpTokens, NodeSpec, SubnetRoute};
use super::error::ApiError;
use super::ids::{EniId, GroupId, InstanceId, SubnetId};
use super::ipv6::WantedIpv6;
use super::request::{CreateNetworkInterface, RunInstances, Tags, Wanted};
use super::response::{InstanceView, Response};
use super::state::{Instance, InstanceState, InterfaceStatus};
use super::vpc::{Due, Vpc};

impl Vpc {
    /// Starts a node of the lab. Unlike RunInstances it takes names for subnet and groups, and is neither throttled
    /// nor logged: it is the hand of whoever runs the lab, not a client.
    ///
    /// # Errors
    /// `InvalidParameterValue` where a running node has that name or the type is not in the limits table, and
    /// whatever RunInstances refuses.
    pub fn run_instance(
        &mut self,
        now: std::time::Duration,
        spec: &NodeSpec,
    ) -> Result<InstanceId, ApiError> {
        self.advance(now);
        if self
            .instances
            .values()
            .any(|i| i.exists() && i.name() == spec.name)
        {
            return Err(ApiError::invalid_value(format!(
                "A running node is already called '{}'",
                spec.name
            )));
        }
        let subnet = match &spec.subnet {
            None => None,
            Some(wanted) => Some(
                self.subnet_named(wanted)
                    .cloned()
                    .ok_or_else(|| ApiError::no_subnet(wanted))?,
            ),
        };
        let node = ["node".to_owned()];
        let names: &[String] = if spec.groups.is_empty() {
            &node
        } else {
            &spec.groups
        };
        let groups: Result<Vec<GroupId>, ApiError> = names
            .iter()
            .map(|name| {
                self.group_named(name)
                    .cloned()
                    .ok_or_else(|| ApiError::no_group(name))
            })
            .collect();
        let request = RunInstances {
            instance_type: spec.instance_type.clone(),
            count: 1,
            subnet,
            groups: groups?,
            profile: Some(spec.role.clone()),
            tags: Tags::from([("Name".to_owned(), spec.name.clone())]),
            interface_tags: Tags::new(),
            hop_limit: spec.hop_limit,
            http_tokens: spec.http_tokens,
            secondary: Wanted::Count(0),
            ipv6: WantedIpv6::default(),
            primary: None,
            client_token: None,
            image: "ami-00000000000000001".to_owned(),
        };
        let started = self.start(&request)?;
        self.advance(now);
        started
            .first()
            .cloned()
            .ok_or_else(|| ApiError::invalid_value("No instance was started"))
    }

    /// Ends a node of the lab, as TerminateInstances does but by the lab's own hand.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`.
    pub fn terminate_instance(&mut self, now: std::time::Duration, id: &InstanceId) -> Result<(), ApiError> {
        self.advance(now);
        self.terminate_instances(std::slice::from_ref(id))?;
        self.advance(now);
        Ok(())
    }

    pub(crate) fn instance(&self, id: &InstanceId) -> Result<&Arc<Instance>, ApiError> {
        if !id.well_formed() {
            return Err(ApiError::malformed(
                "InvalidInstanceID.Malformed",
                id.as_str(),
                InstanceId::PREFIX,
            ));
        }
        self.instances
            .get(id)
            .ok_or_else(|| ApiError::no_instance(id.as_str()))
    }

    pub(crate) fn run_instances(&mut self, request: RunInstances) -> Result<Response, ApiError> {
        if let Some(token) = &request.client_token
            && let Some((before, ids)) = self.run_tokens.get(token)
        {
            if *before != request {
                return Err(ApiError::client(
                    "IdempotentParameterMismatch",
                    "The client token you have provided is already associated with instances that have different parameters",
                ));
            }
            return Ok(Response::Started(self.views(ids)));
        }
        let started = self.start(&request)?;
        if let Some(token) = request.client_token.clone() {
            self.run_tokens.insert(token, (request, started.clone()));
        }
        Ok(Response::Started(self.views(&started)))
    }

    /// Instances as they are now, whatever lagging readers see.
    fn views(&self, ids: &[InstanceId]) -> Vec<InstanceView> {
        ids.iter()
            .filter_map(|id| self.instances.get(id))
            .map(|i| InstanceView {
                instance: i.clone(),
                interfaces: self.attached_to(&i.id),
            })
            .collect()
    }

    /// Starts as many instances as asked for, or none.
    fn start(&mut self, request: &RunInstances) -> Result<Vec<InstanceId>, ApiError> {
        if vpcnet_limits::lookup(&request.instance_type).is_none() {
            return Err(ApiError::invalid_value(format!(
                "Invalid value '{}' for InstanceType.",
                request.instance_type
            )));
        }
        if request.count == 0 {
            return Err(ApiError::invalid_value(
                "Value (0) for parameter minCount is invalid. Minimum is 1.",
            ));
        }
        if !(1..=64).contains(&request.hop_limit) {
            return Err(bad_hop_limit(request.hop_limit));
        }
        super::tags::valid(&request.tags)?;
        let role = request
            .profile
            .as_deref()
            .map(|p| p.rsplit('/').next().unwrap_or(p).to_owned());
        let reservation = format!("r-{}", self.hex());
        let mut started = Vec::new();
        for launch_index in 0..request.count {
            match self.start_one(request, &reservation, launch_index, role.as_deref()) {
                Ok(id) => started.push(id),
                Err(error) => {
                    for id in started {
                        self.release_interfaces(&id);
                        self.instances.remove(self.now, &id);
                    }
                    return Err(error);
                }
            }
        }
        Ok(started)
    }

    fn start_one(
        &mut self,
        request: &RunInstances,
        reservation: &str,
        launch_index: u32,
        role: Option<&str>,
    ) -> Result<InstanceId, ApiError> {
        let subnet = match &request.subnet {
            Some(id) => id.clone(),
            None => self.next_subnet().ok_or_else(|| ApiError::missing("subnetId"))?,
        };
        let id = InstanceId(format!("{}{}", InstanceId::PREFIX, self.hex()));
        let mut primary = CreateNetworkInterface::new(subnet.clone());
        primary.groups.clone_from(&request.groups);
        primary.secondary = request.secondary.clone();
        primary.primary = request.primary;
        primary.ipv6 = request.ipv6.clone();
        primary.tags.clone_from(&request.interface_tags);
        let eni = self.make_interface("ec2.amazonaws.com", &primary)?;
        if let Err(error) = self
            .interface(&eni)
            .map(|i| i.slots().max(i.ipv6.slots()))
            .and_then(|slots| self.slots_fit(&request.instance_type, slots))
        {
            self.remove_interface(&eni);
            return Err(error);
        }
        let delay = self.weather.delay(self.config.timing.launch);
        let due = self.schedule(delay, Due::Instance(id.clone()));
        let instance = Instance {
            id: id.clone(),
            reservation: reservation.to_owned(),
            launch_index,
            instance_type: request.instance_type.clone(),
            image: request.image.clone(),
            subnet: subnet.clone(),
            primary: eni.clone(),
            state: InstanceState::Pending,
            launched: self.now,
            role: role.map(str::to_owned),
            tags: request.tags.clone(),
            hop_limit: request.hop_limit,
            http_tokens: request.http_tokens,
            client_token: request.client_token.clone(),
            due: Some(due),
        };
        self.instances.insert(self.now, id.clone(), instance);
        self.bond(&eni, &id, 0, 0, true);
        let public = self.new_public(&subnet, &eni);
        // An instance comes up with its primary interface in place, and IMDS knows it from the first moment.
        self.change_interface(&eni, |i| {
            i.status = InterfaceStatus::InUse;
            i.due = None;
            i.public = public;
        });
        self.imds_shows.remove(&id);
        Ok(id)
    }

    /// The configured node subnets by turns.
    fn next_subnet(&mut self) -> Option<SubnetId> {
        let count = self.config.node_subnets.min(self.subnet_order.len());
        let position = self.turn.checked_rem(count)?;
        self.turn += 1;
        self.subnet_order.get(position).cloned()
    }

    /// A public address for an interface in a public subnet; the pool's first is the NAT gateway's.
    fn new_public(&mut self, subnet: &SubnetId, eni: &EniId) -> Option<std::net::Ipv4Addr> {
        if self.subnets.get(subnet)?.route != SubnetRoute::Public {
            return None;
        }
        let free = self
            .config
            .public_pool
            .hosts()
            .skip(1)
            .find(|a| !self.public.contains_key(a))?;
        self.public.insert(free, eni.clone());
        Some(free)
    }

    pub(crate) fn terminate_instances(&mut self, ids: &[InstanceId]) -> Result<Response, ApiError> {
        let mut instances = Vec::new();
        for id in ids {
            instances.push(self.instance(id)?.clone());
        }
        let mut changes = Vec::new();
        for instance in instances {
            let before = instance.state;
            if matches!(before, InstanceState::Pending | InstanceState::Running) {
                let delay = self.weather.delay(self.config.timing.terminate);
                let due = self.schedule(delay, Due::Instance(instance.id.clone()));
                self.change_instance(&instance.id, |i| {
                    i.state = InstanceState::ShuttingDown;
                    i.due = Some(due);
                });
            }
            let after = self.instance(&instance.id)?.state;
            changes.push((instance.id.clone(), before, after));
        }
        Ok(Response::Terminating(changes))
    }

    pub(crate) fn modify_metadata_options(
        &mut self,
        id: &InstanceId,
        hop_limit: Option<u8>,
        http_tokens: Option<HttpTokens>,
    ) -> Result<Response, ApiError> {
        self.instance(id)?;
        if let Some(bad) = hop_limit.filter(|h| !(1..=64).contains(h)) {
            return Err(bad_hop_limit(bad));
        }
        self.change_instance(id, |i| {
            i.hop_limit = hop_limit.unwrap_or(i.hop_limit);
            i.http_tokens = http_tokens.unwrap_or(i.http_tokens);
        });
        Ok(Response::MetadataOptions(self.instance(id)?.clone()))
    }

    /// Changes an instance; where nodes come or go the fabric gets to know.
    pub(crate) fn change_instance(&mut self, id: &InstanceId, change: impl FnOnce(&mut Instance)) {
        let existed = self.instances.get(id).is_some_and(|i| i.exists());
        self.instances.change(self.now, id, change);
        if existed != self.instances.get(id).is_some_and(|i| i.exists()) {
            self.fabric_generation += 1;
        }
    }

    /// The running instance that owns an address: who sent a packet from it.
    #[must_use]
    pub fn instance_at(&self, address: std::net::Ipv4Addr) -> Option<InstanceId> {
        let owner = self.spaces.values().find_map(|s| s.owner(address))?;
        self.interfaces.get(owner)?.linked().map(|a| a.instance.clone())
    }

    /// An instance that is not terminated, by its name or id.
    #[must_use]
    pub fn instance_named(&self, wanted: &str) -> Option<&Arc<Instance>> {
        self.instances
            .values()
            .find(|i| i.exists() && (i.name() == wanted || i.id.as_str() == wanted))
    }
}

fn bad_hop_limit(value: u8) -> ApiError {
    ApiError::invalid_value(format!(
        "Value ({value}) for parameter HttpPutResponseHopLimit is invalid. Expecting a value from 1 to 64."
    ))
}
