//! A tiny EC2: one instance, a few subnets, interfaces with addresses and prefixes. It knows who has what, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use vpcnet_ipam::{
    CardIndex, CardLimits, DeviceIndex, EniId, FailureClass, InterfaceFacts, InterfaceKind, Limits, SubnetId,
};

#[derive(Clone, Debug)]
pub(crate) struct CloudEni {
    pub(crate) card: u32,
    pub(crate) device: Option<u32>,
    pub(crate) subnet: SubnetId,
    pub(crate) primary: Ipv4Addr,
    pub(crate) addresses: BTreeSet<Ipv4Addr>,
    pub(crate) prefixes: BTreeSet<Ipv4Net>,
    pub(crate) ipv6: BTreeSet<Ipv6Net>,
}

impl CloudEni {
    /// Every address for pods.
    pub(crate) fn all(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.addresses
            .iter()
            .copied()
            .chain(self.prefixes.iter().copied().flat_map(of_prefix))
    }

    fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(at) => self.addresses.contains(&at) || self.prefixes.iter().any(|p| p.contains(&at)),
            IpAddr::V6(at) => self.ipv6.iter().any(|p| p.contains(&at)),
        }
    }
}

pub(crate) fn of_prefix(prefix: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let first = prefix.network().to_bits();
    (0..16).map(move |n| Ipv4Addr::from_bits(first + n))
}

/// What the instance takes.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    /// Interfaces of each card.
    pub(crate) cards: Vec<u32>,
    /// IPv4 addresses of an interface, its own included.
    pub(crate) per_interface: u32,
}

impl Size {
    /// With one card.
    pub(crate) fn of(interfaces: u32, per_interface: u32) -> Self {
        Self {
            cards: vec![interfaces],
            per_interface,
        }
    }

    pub(crate) fn interfaces(&self) -> u32 {
        self.cards.iter().sum()
    }

    pub(crate) fn limits(&self) -> Limits {
        let card = |(n, interfaces): (u32, &u32)| CardLimits {
            card: CardIndex(n),
            interfaces: *interfaces,
        };
        Limits {
            cards: (0..).zip(&self.cards).map(card).collect(),
            ipv4_per_interface: self.per_interface,
        }
    }
}

/// How a subnet begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lay {
    /// Addresses that nobody has.
    pub(crate) free: u32,
    /// Each eighth address is somebody else's: no /28 is whole.
    pub(crate) fragmented: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Cloud {
    pub(crate) enis: BTreeMap<EniId, CloudEni>,
    pub(crate) free: BTreeMap<SubnetId, BTreeSet<Ipv4Addr>>,
    cards: Vec<u32>,
    per_eni: u32,
    tokens: BTreeMap<String, EniId>,
    made: u32,
    /// Calls denied because they went beyond the limits: the pool must never ask for that.
    pub(crate) beyond_limits: u32,
}

pub(crate) fn primary_eni() -> EniId {
    EniId::from("eni-0")
}

pub(crate) fn subnet(n: usize) -> SubnetId {
    SubnetId(format!("subnet-{}", n + 1))
}

impl Cloud {
    pub(crate) fn new(size: &Size, lays: &[Lay]) -> Self {
        let mut cloud = Self {
            enis: BTreeMap::new(),
            free: BTreeMap::new(),
            cards: size.cards.clone(),
            per_eni: size.per_interface - 1,
            tokens: BTreeMap::new(),
            made: 0,
            beyond_limits: 0,
        };
        for (n, lay) in lays.iter().enumerate() {
            let first = 0x0a00_0004 + 0x1_0000 * u32::try_from(n).expect("few subnets");
            let all = (0_u32..).filter(|at| !lay.fragmented || at % 8 != 0);
            let free = all.take(lay.free as usize);
            cloud
                .free
                .insert(subnet(n), free.map(|at| Ipv4Addr::from(first + at)).collect());
        }
        let given = cloud.give(&subnet(0), 1).expect("a subnet has an address");
        let eni = CloudEni {
            card: 0,
            device: Some(0),
            subnet: subnet(0),
            primary: *given.first().expect("one was asked for"),
            addresses: BTreeSet::new(),
            prefixes: BTreeSet::new(),
            ipv6: BTreeSet::new(),
        };
        cloud.enis.insert(primary_eni(), eni);
        cloud
    }

    /// Like EC2, gives the lowest free ones; all or none.
    fn give(&mut self, subnet: &SubnetId, count: u32) -> Result<BTreeSet<Ipv4Addr>, FailureClass> {
        let free = self.free.get_mut(subnet).ok_or(FailureClass::Refused)?;
        if (free.len() as u64) < u64::from(count) {
            return Err(FailureClass::SubnetExhausted);
        }
        Ok((0..count).filter_map(|_| free.pop_first()).collect())
    }

    /// Whole /28s of a subnet.
    pub(crate) fn whole(&self, subnet: &SubnetId) -> Vec<Ipv4Net> {
        let free = &self.free[subnet];
        let starts = free.iter().filter(|at| at.to_bits().is_multiple_of(16));
        let nets = starts.map(|at| Ipv4Net::new(*at, 28).expect("a length"));
        nets.filter(|net| of_prefix(*net).all(|at| free.contains(&at)))
            .collect()
    }

    fn give_prefixes(&mut self, subnet: &SubnetId, count: u32) -> Result<BTreeSet<Ipv4Net>, FailureClass> {
        let whole = self.whole(subnet);
        if (whole.len() as u64) < u64::from(count) {
            return Err(FailureClass::SubnetExhausted);
        }
        let given: BTreeSet<Ipv4Net> = whole.into_iter().take(count as usize).collect();
        let free = self.free.get_mut(subnet).ok_or(FailureClass::Refused)?;
        for at in given.iter().copied().flat_map(of_prefix) {
            free.remove(&at);
        }
        Ok(given)
    }

    fn take_back(&mut self, subnet: &SubnetId, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        if let Some(free) = self.free.get_mut(subnet) {
            free.extend(addresses);
        }
    }

    pub(crate) fn knows(&self, token: &str) -> bool {
        self.tokens.contains_key(token)
    }

    pub(crate) fn create(
        &mut self,
        token: &str,
        subnet: &SubnetId,
        count: u32,
        prefixes: u32,
    ) -> Result<EniId, FailureClass> {
        if let Some(eni) = self.tokens.get(token) {
            return Ok(eni.clone());
        }
        if count + prefixes > self.per_eni {
            self.beyond_limits += 1;
            return Err(FailureClass::LimitReached);
        }
        let mut addresses = self.give(subnet, count + 1)?;
        let prefixes = match self.give_prefixes(subnet, prefixes) {
            Ok(prefixes) => prefixes,
            Err(class) => {
                self.take_back(subnet, addresses);
                return Err(class);
            }
        };
        let primary = addresses.pop_first().expect("one more was given");
        self.made += 1;
        let id = EniId(format!("eni-{}", self.made));
        let eni = CloudEni {
            card: 0,
            device: None,
            subnet: subnet.clone(),
            primary,
            addresses,
            prefixes,
            ipv6: BTreeSet::new(),
        };
        self.enis.insert(id.clone(), eni);
        self.tokens.insert(token.to_owned(), id.clone());
        Ok(id)
    }

    pub(crate) fn attach(&mut self, eni: &EniId, card: CardIndex, device: u32) -> Result<(), FailureClass> {
        let of_card = self.enis.values().filter(|e| e.card == card.0);
        let attached: Vec<u32> = of_card.filter_map(|e| e.device).collect();
        let Some(it) = self.enis.get_mut(eni) else {
            return Err(FailureClass::Gone);
        };
        if (it.card, it.device) == (card.0, Some(device)) {
            return Ok(());
        }
        if attached.contains(&device) {
            self.beyond_limits += 1;
            return Err(FailureClass::DeviceTaken);
        }
        let limit = self.cards.get(card.0 as usize).copied().unwrap_or(0);
        if attached.len() as u64 >= u64::from(limit) {
            self.beyond_limits += 1;
            return Err(FailureClass::LimitReached);
        }
        (it.card, it.device) = (card.0, Some(device));
        Ok(())
    }

    /// The subnet of an interface that has room for so many more.
    fn room(&mut self, eni: &EniId, count: u32) -> Result<SubnetId, FailureClass> {
        let Some(it) = self.enis.get(eni) else {
            return Err(FailureClass::Gone);
        };
        if (it.addresses.len() + it.prefixes.len()) as u64 + u64::from(count) > u64::from(self.per_eni) {
            self.beyond_limits += 1;
            return Err(FailureClass::LimitReached);
        }
        Ok(it.subnet.clone())
    }

    pub(crate) fn assign(&mut self, eni: &EniId, count: u32) -> Result<Vec<Ipv4Addr>, FailureClass> {
        let subnet = self.room(eni, count)?;
        let given = self.give(&subnet, count)?;
        if let Some(eni) = self.enis.get_mut(eni) {
            eni.addresses.extend(&given);
        }
        Ok(given.into_iter().collect())
    }

    pub(crate) fn assign_prefixes(&mut self, eni: &EniId, count: u32) -> Result<Vec<Ipv4Net>, FailureClass> {
        let subnet = self.room(eni, count)?;
        let given = self.give_prefixes(&subnet, count)?;
        if let Some(eni) = self.enis.get_mut(eni) {
            eni.prefixes.extend(&given);
        }
        Ok(given.into_iter().collect())
    }

    pub(crate) fn assign_ipv6(&mut self, eni: &EniId) -> Result<Vec<Ipv6Net>, FailureClass> {
        self.made += 1;
        let first = 0xfd00_u128 << 112 | u128::from(self.made) << 48;
        let prefix = Ipv6Net::new(first.into(), 80).expect("a length");
        let it = self.enis.get_mut(eni).ok_or(FailureClass::Gone)?;
        it.ipv6.insert(prefix);
        Ok(vec![prefix])
    }

    /// Like EC2, refuses all when one is not assigned.
    pub(crate) fn release(
        &mut self,
        eni: &EniId,
        addresses: &[Ipv4Addr],
        prefixes: &[Ipv4Net],
    ) -> Result<(), FailureClass> {
        let Some(it) = self.enis.get_mut(eni) else {
            return Err(FailureClass::Gone);
        };
        if !addresses.iter().all(|a| it.addresses.contains(a))
            || !prefixes.iter().all(|p| it.prefixes.contains(p))
        {
            return Err(FailureClass::Refused);
        }
        it.addresses.retain(|a| !addresses.contains(a));
        it.prefixes.retain(|p| !prefixes.contains(p));
        let subnet = it.subnet.clone();
        self.take_back(&subnet, addresses.iter().copied());
        self.take_back(&subnet, prefixes.iter().copied().flat_map(of_prefix));
        Ok(())
    }

    pub(crate) fn delete(&mut self, eni: &EniId) -> Result<(), FailureClass> {
        let Some(it) = self.enis.remove(eni) else {
            return Err(FailureClass::Gone);
        };
        let all: Vec<Ipv4Addr> = it.all().chain([it.primary]).collect();
        self.take_back(&it.subnet, all);
        Ok(())
    }

    pub(crate) fn facts(&self, eni: &EniId) -> Option<InterfaceFacts> {
        let it = self.enis.get(eni)?;
        let device = it.device?;
        Some(InterfaceFacts {
            id: eni.clone(),
            mac: format!("02:00:00:00:{:02x}:{device:02x}", it.card),
            device: DeviceIndex(device),
            card: CardIndex(it.card),
            subnet: it.subnet.clone(),
            subnet_cidr: Ipv4Net::new(it.primary, 16).expect("a length").trunc(),
            primary_address: it.primary,
            is_primary: *eni == primary_eni(),
            kind: InterfaceKind::Interface,
            managed: true,
            addresses: it.addresses.iter().copied().collect(),
            prefixes: it.prefixes.iter().copied().collect(),
            ipv6_prefixes: it.ipv6.iter().copied().collect(),
            table: None,
        })
    }

    /// What IMDS shows when it is up to date.
    pub(crate) fn attached(&self) -> Vec<InterfaceFacts> {
        self.enis.keys().filter_map(|eni| self.facts(eni)).collect()
    }

    pub(crate) fn owner_of(&self, address: IpAddr) -> Option<&EniId> {
        let it = self.enis.iter().find(|(_, e)| e.has(address));
        it.map(|(id, _)| id)
    }

    /// It has not enough for a new interface.
    pub(crate) fn is_dry(&self, subnet: &SubnetId) -> bool {
        self.free[subnet].len() < 2
    }
}
