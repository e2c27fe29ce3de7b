//! A tiny EC2: one instance, one subnet, interfaces with addresses. It knows who has what, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use vpcnet_ipam::{CardIndex, DeviceIndex, EniId, FailureClass, InterfaceFacts, InterfaceKind, SubnetId};

#[derive(Clone, Debug)]
pub(crate) struct CloudEni {
    pub(crate) device: Option<u32>,
    pub(crate) primary: Ipv4Addr,
    pub(crate) addresses: BTreeSet<Ipv4Addr>,
}

#[derive(Clone, Debug)]
pub(crate) struct Cloud {
    pub(crate) enis: BTreeMap<EniId, CloudEni>,
    pub(crate) free: BTreeSet<Ipv4Addr>,
    interfaces: u32,
    per_eni: u32,
    tokens: BTreeMap<String, EniId>,
    made: u32,
    /// Calls denied because they went beyond the limits: the pool must never ask for that.
    pub(crate) beyond_limits: u32,
}

pub(crate) fn primary_eni() -> EniId {
    EniId::from("eni-0")
}

impl Cloud {
    pub(crate) fn new(interfaces: u32, ipv4_per_interface: u32, subnet: u32) -> Self {
        let mut cloud = Self {
            enis: BTreeMap::new(),
            free: (0..subnet).map(|n| Ipv4Addr::from(0x0a00_0004 + n)).collect(),
            interfaces,
            per_eni: ipv4_per_interface - 1,
            tokens: BTreeMap::new(),
            made: 0,
            beyond_limits: 0,
        };
        let primary = cloud.free.pop_first().expect("a subnet has an address");
        let eni = CloudEni {
            device: Some(0),
            primary,
            addresses: BTreeSet::new(),
        };
        cloud.enis.insert(primary_eni(), eni);
        cloud
    }

    /// Like EC2, gives the lowest free ones; all or none.
    fn give(&mut self, count: u32) -> Result<BTreeSet<Ipv4Addr>, FailureClass> {
        if (self.free.len() as u64) < u64::from(count) {
            return Err(FailureClass::SubnetExhausted);
        }
        Ok((0..count).filter_map(|_| self.free.pop_first()).collect())
    }

    pub(crate) fn knows(&self, token: &str) -> bool {
        self.tokens.contains_key(token)
    }

    pub(crate) fn create(&mut self, token: &str, count: u32) -> Result<EniId, FailureClass> {
        if let Some(eni) = self.tokens.get(token) {
            return Ok(eni.clone());
        }
        if count > self.per_eni {
            self.beyond_limits += 1;
            return Err(FailureClass::LimitReached);
        }
        let mut addresses = self.give(count + 1)?;
        let primary = addresses.pop_first().expect("one more was given");
        self.made += 1;
        let id = EniId(format!("eni-{}", self.made));
        self.enis.insert(
            id.clone(),
            CloudEni {
                device: None,
                primary,
                addresses,
            },
        );
        self.tokens.insert(token.to_owned(), id.clone());
        Ok(id)
    }

    pub(crate) fn attach(&mut self, eni: &EniId, device: u32) -> Result<(), FailureClass> {
        let attached: Vec<u32> = self.enis.values().filter_map(|e| e.device).collect();
        let Some(it) = self.enis.get_mut(eni) else {
            return Err(FailureClass::Gone);
        };
        if it.device == Some(device) {
            return Ok(());
        }
        if attached.contains(&device) {
            self.beyond_limits += 1;
            return Err(FailureClass::DeviceTaken);
        }
        if attached.len() as u64 >= u64::from(self.interfaces) {
            self.beyond_limits += 1;
            return Err(FailureClass::LimitReached);
        }
        it.device = Some(device);
        Ok(())
    }

    pub(crate) fn assign(&mut self, eni: &EniId, count: u32) -> Result<Vec<Ipv4Addr>, FailureClass> {
        let Some(held) = self.enis.get(eni).map(|e| e.addresses.len()) else {
            return Err(FailureClass::Gone);
        };
        if held as u64 + u64::from(count) > u64::from(self.per_eni) {
            self.beyond_limits += 1;
            return Err(FailureClass::LimitReached);
        }
        let given = self.give(count)?;
        if let Some(eni) = self.enis.get_mut(eni) {
            eni.addresses.extend(&given);
        }
        Ok(given.into_iter().collect())
    }

    /// Like EC2, refuses all when one is not assigned.
    pub(crate) fn release(&mut self, eni: &EniId, addresses: &[Ipv4Addr]) -> Result<(), FailureClass> {
        let Some(it) = self.enis.get_mut(eni) else {
            return Err(FailureClass::Gone);
        };
        if !addresses.iter().all(|a| it.addresses.contains(a)) {
            return Err(FailureClass::Refused);
        }
        for address in addresses {
            it.addresses.remove(address);
            self.free.insert(*address);
        }
        Ok(())
    }

    pub(crate) fn delete(&mut self, eni: &EniId) -> Result<(), FailureClass> {
        let Some(it) = self.enis.remove(eni) else {
            return Err(FailureClass::Gone);
        };
        self.free.insert(it.primary);
        self.free.extend(it.addresses);
        Ok(())
    }

    pub(crate) fn facts(&self, eni: &EniId) -> Option<InterfaceFacts> {
        let it = self.enis.get(eni)?;
        let device = it.device?;
        Some(InterfaceFacts {
            id: eni.clone(),
            mac: format!("02:00:00:00:00:{device:02x}"),
            device: DeviceIndex(device),
            card: CardIndex(0),
            subnet: SubnetId::from("subnet-1"),
            subnet_cidr: "10.0.0.0/16".parse().expect("a CIDR"),
            primary_address: it.primary,
            is_primary: *eni == primary_eni(),
            kind: InterfaceKind::Interface,
            managed: true,
            addresses: it.addresses.iter().copied().collect(),
            prefixes: Vec::new(),
            ipv6_prefixes: Vec::new(),
        })
    }

    /// What IMDS shows when it is up to date.
    pub(crate) fn attached(&self) -> Vec<InterfaceFacts> {
        self.enis.keys().filter_map(|eni| self.facts(eni)).collect()
    }

    pub(crate) fn owner_of(&self, address: Ipv4Addr) -> Option<&EniId> {
        self.enis
            .iter()
            .find(|(_, e)| e.addresses.contains(&address))
            .map(|(id, _)| id)
    }
}
