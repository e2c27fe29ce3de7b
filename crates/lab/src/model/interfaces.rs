//! Interfaces come into being and go, and every change of one passes through here.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::error::ApiError;
use super::ids::{EniId, GroupId, InstanceId, Mac, SubnetId};
use super::ipv6::Ipv6;
use super::request::{CreateNetworkInterface, InterfaceKind, Wanted};
use super::response::Response;
use super::rights::Caller;
use super::space::Unusable;
use super::state::{Interface, InterfaceStatus};
use super::vpc::{Due, Vpc};

/// Security groups an interface may have ("Amazon VPC quotas", the default).
const GROUPS_PER_INTERFACE: usize = 5;

impl Vpc {
    /// Changes an interface; where its link or what IMDS shows of it changes, the fabric and IMDS get to know.
    pub(crate) fn change_interface(&mut self, eni: &EniId, change: impl FnOnce(&mut Interface)) {
        let before = self.interfaces.get(eni).cloned();
        self.interfaces.change(self.now, eni, change);
        let after = self.interfaces.get(eni).cloned();
        if before != after {
            self.noticed(before.as_deref(), after.as_deref());
        }
    }

    /// Tells the fabric and IMDS of a change of an interface whose link was or is in an instance.
    fn noticed(&mut self, before: Option<&Interface>, after: Option<&Interface>) {
        let holders: BTreeSet<InstanceId> = [before, after]
            .into_iter()
            .flatten()
            .filter_map(|i| i.linked().map(|a| a.instance.clone()))
            .collect();
        for instance in &holders {
            self.imds_change(instance);
        }
        if !holders.is_empty() {
            self.fabric_generation += 1;
        }
    }

    pub(crate) fn interface(&self, eni: &EniId) -> Result<&Arc<Interface>, ApiError> {
        if !eni.well_formed() {
            return Err(ApiError::malformed(
                "InvalidNetworkInterfaceId.Malformed",
                eni.as_str(),
                EniId::PREFIX,
            ));
        }
        self.interfaces
            .get(eni)
            .ok_or_else(|| ApiError::no_interface(eni.as_str()))
    }

    /// The groups a request names, each known, none twice; the default group where it names none.
    pub(crate) fn resolve_groups(&self, wanted: &[GroupId]) -> Result<Vec<GroupId>, ApiError> {
        if wanted.is_empty() {
            let default = self
                .groups
                .values()
                .find(|g| g.name == "default")
                .map(|g| g.id.clone());
            return Ok(default.into_iter().collect());
        }
        let mut groups = Vec::new();
        for id in wanted {
            if !id.well_formed() {
                return Err(ApiError::malformed(
                    "InvalidGroupId.Malformed",
                    id.as_str(),
                    GroupId::PREFIX,
                ));
            }
            if !self.groups.contains_key(id) {
                return Err(ApiError::no_group(id.as_str()));
            }
            if !groups.contains(id) {
                groups.push(id.clone());
            }
        }
        if groups.len() > GROUPS_PER_INTERFACE {
            return Err(ApiError::client(
                "SecurityGroupsPerInterfaceLimitExceeded",
                format!(
                    "You have exceeded the maximum number of security groups ({GROUPS_PER_INTERFACE}) per interface"
                ),
            ));
        }
        Ok(groups)
    }

    pub(crate) fn create_interface(
        &mut self,
        caller: &Caller,
        wanted: CreateNetworkInterface,
    ) -> Result<Response, ApiError> {
        if let Some(token) = &wanted.client_token
            && let Some((before, eni)) = self.tokens.get(token)
        {
            if *before != wanted {
                return Err(ApiError::client(
                    "IdempotentParameterMismatch",
                    "The client token you have provided is already associated with a resource that has different parameters. \
                     If you want to create a new resource, please use a different client token",
                ));
            }
            let interface = self.interface(eni)?.clone();
            return Ok(Response::Created {
                interface,
                client_token: wanted.client_token,
            });
        }
        let eni = self.make_interface(&caller.role, &wanted)?;
        if let Some(token) = &wanted.client_token {
            self.tokens.insert(token.clone(), (wanted.clone(), eni.clone()));
        }
        let interface = self.interface(&eni)?.clone();
        Ok(Response::Created {
            interface,
            client_token: wanted.client_token,
        })
    }

    /// Makes an interface, all of it or nothing.
    pub(crate) fn make_interface(
        &mut self,
        role: &str,
        wanted: &CreateNetworkInterface,
    ) -> Result<EniId, ApiError> {
        let subnet = self.subnet(&wanted.subnet)?.id.clone();
        let groups = self.resolve_groups(&wanted.groups)?;
        one_kind_of_secondary(&wanted.secondary, &wanted.prefixes)?;
        super::tags::valid(&wanted.tags)?;
        let eni = EniId(format!("{}{}", EniId::PREFIX, self.hex()));
        let mac = self.new_mac();
        let mut primary = None;
        let (mut secondary, mut prefixes, mut ipv6) = (Vec::new(), Vec::new(), Ipv6::default());
        if wanted.kind != InterfaceKind::EfaOnly {
            let first = wanted
                .primary
                .map_or(Wanted::Count(1), |a| Wanted::These(vec![a]));
            let (addresses, _) = self.take(&subnet, &eni, &first, &Wanted::Count(0))?;
            match self.take(&subnet, &eni, &wanted.secondary, &wanted.prefixes) {
                Ok(more) => (secondary, prefixes) = more,
                Err(error) => {
                    self.give_back(&subnet, &addresses, &[]);
                    return Err(error);
                }
            }
            match self.ipv6_of_new(&subnet, &eni, &wanted.ipv6) {
                Ok(got) => ipv6 = got,
                Err(error) => {
                    self.give_back(&subnet, &addresses, &[]);
                    self.give_back(&subnet, &secondary, &prefixes);
                    return Err(error);
                }
            }
            primary = addresses.first().copied();
        } else if wanted.primary.is_some()
            || !is_none(&wanted.secondary)
            || !is_none(&wanted.prefixes)
            || !wanted.ipv6.is_nothing()
        {
            return Err(ApiError::combination(
                "An efa-only network interface cannot have an IP address",
            ));
        }
        let delay = self.weather.delay(self.config.timing.create);
        let due = self.schedule(delay, Due::Interface(eni.clone()));
        let interface = Interface {
            id: eni.clone(),
            subnet,
            mac,
            description: wanted.description.clone(),
            kind: wanted.kind,
            groups,
            source_dest_check: true,
            tags: wanted.tags.clone(),
            primary,
            secondary,
            prefixes,
            ipv6,
            public: None,
            tracking: wanted.tracking,
            status: InterfaceStatus::Pending,
            attachment: None,
            requester: role.to_owned(),
            due: Some(due),
        };
        self.interfaces.insert(self.now, eni.clone(), interface);
        Ok(eni)
    }

    fn new_mac(&mut self) -> Mac {
        loop {
            let [a, b, c, d, e, ..] = self.rng.word().to_be_bytes();
            // 0x02: locally administered, unicast, as EC2's are.
            let mac = Mac([0x02, a, b, c, d, e]);
            if !self.interfaces.values().any(|i| i.mac == mac) {
                return mac;
            }
        }
    }

    pub(crate) fn delete_interface(&mut self, eni: &EniId) -> Result<Response, ApiError> {
        let interface = self.interface(eni)?;
        if interface.attachment.is_some() {
            return Err(ApiError::invalid_value(format!(
                "Network interface '{eni}' is currently in use."
            )));
        }
        self.remove_interface(eni);
        Ok(Response::Done)
    }

    /// Takes an interface out of the VPC, whatever it is attached to, and frees what it owns.
    pub(crate) fn remove_interface(&mut self, eni: &EniId) {
        let Some(gone) = self.interfaces.remove(self.now, eni) else {
            return;
        };
        let addresses: Vec<Ipv4Addr> = gone.addresses().collect();
        self.give_back(&gone.subnet, &addresses, &gone.prefixes);
        self.give_back_ipv6(&gone.subnet, &gone.ipv6);
        if let Some(public) = gone.public {
            self.public.remove(&public);
        }
        if let Some(attachment) = &gone.attachment {
            self.attachments.remove(&attachment.id);
        }
        self.noticed(Some(&gone), None);
    }

    /// Takes addresses and prefixes of a subnet for an interface: all that is wanted, or nothing.
    pub(crate) fn take(
        &mut self,
        subnet: &SubnetId,
        eni: &EniId,
        addresses: &Wanted<Ipv4Addr>,
        prefixes: &Wanted<Ipv4Net>,
    ) -> Result<(Vec<Ipv4Addr>, Vec<Ipv4Net>), ApiError> {
        let choice = self.config.addresses;
        let (mut got, mut got_prefixes) = (Vec::new(), Vec::new());
        let Some(space) = self.spaces.get_mut(subnet) else {
            return Err(ApiError::no_subnet(subnet.as_str()));
        };
        let mut failure = None;
        match addresses {
            Wanted::Count(n) => {
                if *n > space.free() {
                    return Err(no_free_addresses());
                }
                for _ in 0..*n {
                    let Some(address) = space.choose_address(choice, &mut self.rng) else {
                        failure = Some(no_free_addresses());
                        break;
                    };
                    space.take_address(address, eni);
                    got.push(address);
                }
            }
            Wanted::These(list) => {
                for address in list {
                    if let Err(why) = space.usable_address(*address) {
                        failure = Some(refuse_address(&address.to_string(), why));
                        break;
                    }
                    space.take_address(*address, eni);
                    got.push(*address);
                }
            }
        }
        if failure.is_none() {
            let count = match prefixes {
                Wanted::Count(n) => usize::try_from(*n).unwrap_or(usize::MAX),
                Wanted::These(list) => list.len(),
            };
            for position in 0..count {
                let next = match prefixes {
                    Wanted::Count(_) => space
                        .choose_prefix(choice, &mut self.rng)
                        .ok_or_else(no_free_blocks),
                    Wanted::These(list) => {
                        list.get(position)
                            .copied()
                            .ok_or_else(no_free_blocks)
                            .and_then(|p| {
                                space
                                    .usable_prefix(p)
                                    .map(|()| p)
                                    .map_err(|why| refuse_address(&p.to_string(), why))
                            })
                    }
                };
                match next {
                    Ok(prefix) => {
                        space.take_prefix(prefix, eni);
                        got_prefixes.push(prefix);
                    }
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
        }
        match failure {
            None => Ok((got, got_prefixes)),
            Some(error) => {
                self.give_back(subnet, &got, &got_prefixes);
                Err(error)
            }
        }
    }

    /// Frees addresses and prefixes of a subnet.
    pub(crate) fn give_back(&mut self, subnet: &SubnetId, addresses: &[Ipv4Addr], prefixes: &[Ipv4Net]) {
        let Some(space) = self.spaces.get_mut(subnet) else {
            return;
        };
        for address in addresses {
            space.release_address(*address);
        }
        for prefix in prefixes {
            space.release_prefix(*prefix);
        }
    }
}

const fn is_none<T>(wanted: &Wanted<T>) -> bool {
    match wanted {
        Wanted::Count(n) => *n == 0,
        Wanted::These(list) => list.is_empty(),
    }
}

/// EC2 takes either addresses or prefixes in one call (CreateNetworkInterface, "Ipv4PrefixCount").
pub(crate) fn one_kind_of_secondary(
    addresses: &Wanted<Ipv4Addr>,
    prefixes: &Wanted<Ipv4Net>,
) -> Result<(), ApiError> {
    if is_none(addresses) || is_none(prefixes) {
        Ok(())
    } else {
        Err(ApiError::combination(
            "Only one of secondary private IP addresses and IPv4 prefixes can be specified in a request",
        ))
    }
}

pub(crate) fn no_free_addresses() -> ApiError {
    super::faults::fault_error("InsufficientFreeAddressesInSubnet", 400)
}

pub(crate) fn no_free_blocks() -> ApiError {
    super::faults::fault_error("InsufficientCidrBlocks", 400)
}

pub(crate) fn refuse_address(what: &str, why: Unusable) -> ApiError {
    match why {
        Unusable::Outside => ApiError::invalid_value(format!(
            "Address {what} does not fall within the subnet's address range"
        )),
        Unusable::Kept => {
            ApiError::invalid_value(format!("Address {what} is in subnet's reserved address range"))
        }
        Unusable::Owned => ApiError::client("InvalidIPAddress.InUse", format!("Address {what} is in use.")),
    }
}
