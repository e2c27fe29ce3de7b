//! How the agent gets to its pool: from its own files and the kernel, or by asking IMDS and EC2, which lag.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use vpcnet_ipam::{
    CardIndex, Checkpoint, DeviceIndex, EniId, Event, Evidence, InterfaceFacts, InterfaceKind, Pool,
    Restored, SubnetId,
};
use vpcnet_lab::model as ec2;

use super::calls::facts_of;
use super::files::from_files;
use super::node::{Life, StateFile};
use super::world::{Due, World};

/// The kernel is looked at again so many milliseconds after a start: within the grace of owners in doubt.
const LOOK_AGAIN: u64 = 25_000;

/// Pauses between looks for links that the pool does not know, milliseconds.
const NEWCOMERS: [u64; 5] = [1_000, 2_000, 5_000, 10_000, 20_000];

/// What IMDS says of an interface.
struct Listed {
    id: String,
    mac: String,
    device: u32,
    card: u32,
    subnet: String,
    cidr: ipnet::Ipv4Net,
    addresses: Vec<Ipv4Addr>,
    prefixes: Vec<ipnet::Ipv4Net>,
}

impl Listed {
    fn facts(&self, managed: bool) -> Option<InterfaceFacts> {
        let (primary, others) = self.addresses.split_first()?;
        let is_primary = (self.card, self.device) == (0, 0);
        Some(InterfaceFacts {
            id: EniId(self.id.clone()),
            mac: self.mac.clone(),
            device: DeviceIndex(self.device),
            card: CardIndex(self.card),
            subnet: SubnetId(self.subnet.clone()),
            subnet_cidr: self.cidr,
            primary_address: *primary,
            is_primary,
            kind: InterfaceKind::Interface,
            managed: managed || is_primary,
            addresses: others.to_vec(),
            prefixes: self.prefixes.clone(),
            ipv6_prefixes: Vec::new(),
            table: None,
        })
    }

    fn has(&self, at: Ipv4Addr) -> bool {
        self.addresses.contains(&at) || self.prefixes.iter().any(|p| p.contains(&at))
    }
}

/// An interface and who says so.
type Seen = (InterfaceFacts, Evidence);

fn tell_all(seen: Vec<Seen>, by: Evidence) -> Vec<Event> {
    let ids = seen.iter().map(|(facts, _)| facts.id.clone()).collect();
    let mut events: Vec<Event> = seen
        .into_iter()
        .map(|(facts, evidence)| Event::InterfaceSeen { facts, evidence })
        .collect();
    events.push(Event::InterfacesListed { ids, evidence: by });
    events
}

impl World {
    /// The agent starts.
    pub(crate) fn start(&mut self, n: usize) {
        if self.nodes[n].gone || self.nodes[n].life.is_some() {
            return;
        }
        let checkpoint = self.nodes[n].disk.checkpoint.as_ref().map(|c| from_files(c));
        let state = self.nodes[n].disk.state.clone();
        if checkpoint.as_ref().is_some_and(|c| !c.ours) {
            // A life that could not overwrite another agent's checkpoint wrote its journal in vain.
            self.disregard_journal(n);
        }
        if let Some(state) = &state
            && self.live_from_files(n, checkpoint.clone(), state)
        {
            return;
        }
        if !self.live_from_a_list(n, checkpoint, state) {
            self.queue(self.at + 2_000, Due::Start { node: n });
        }
    }

    /// Through JSON, as it is on a disk.
    fn restored(&self, n: usize, checkpoint: Option<Checkpoint>, state: Option<&StateFile>) -> Restored {
        let journal = state.map(|s| {
            let written = serde_json::to_string(&s.pool).unwrap();
            serde_json::from_str(&written).unwrap()
        });
        Restored {
            checkpoint,
            journal,
            kernel: self.kernel(n),
        }
    }

    fn live_from_files(&mut self, n: usize, checkpoint: Option<Checkpoint>, state: &StateFile) -> bool {
        let restored = self.restored(n, checkpoint, Some(state));
        let node = &self.nodes[n];
        let identity = node.identity(&state.salt);
        let made = Pool::restore(
            identity,
            node.limits(),
            node.targets.clone(),
            restored,
            self.now(n),
        );
        let (pool, notes, actions) = made.unwrap();
        if !pool.interfaces().any(|i| i.is_primary) {
            return false;
        }
        self.note(|| format!("n{n} starts from its files: {notes:?}"));
        let links = pool.interfaces().map(|i| ec2::EniId(i.id.0));
        let missing = links.filter(|eni| !self.has_link(n, eni)).count() > 0;
        self.live(n, pool, actions, state.salt.clone(), state.begun.clone(), missing);
        true
    }

    fn live_from_a_list(
        &mut self,
        n: usize,
        checkpoint: Option<Checkpoint>,
        state: Option<StateFile>,
    ) -> bool {
        let in_use: Vec<IpAddr> = {
            let owned = checkpoint
                .iter()
                .flat_map(|c| c.allocations.iter().map(|a| a.address));
            owned
                .chain(self.kernel(n).pods.iter().map(|p| p.address))
                .collect()
        };
        let Some(seen) = self.list(n, &in_use) else {
            return false;
        };
        if !seen.iter().any(|(facts, _)| facts.is_primary) {
            return false;
        }
        let restored = self.restored(n, checkpoint, state.as_ref());
        self.nodes[n].lives += 1; // For the salt.
        let node = &self.nodes[n];
        let salt = state
            .as_ref()
            .map_or_else(|| format!("salt-{}", node.lives), |s| s.salt.clone());
        let begun = state.map(|s| s.begun).unwrap_or_default();
        let identity = node.identity(&salt);
        let now = self.now(n);
        let made = Pool::restore(identity, node.limits(), node.targets.clone(), restored, now);
        let (mut pool, notes, mut actions) = made.unwrap();
        self.note(|| format!("n{n} starts from a list: {notes:?} {seen:?}"));
        for event in tell_all(seen, Evidence::Imds) {
            self.steps += 1;
            actions.extend(pool.handle(now, event));
        }
        // What of it lags shows when nothing can any more.
        self.nodes[n].meddled = true;
        self.live(n, pool, actions, salt, begun, false);
        self.newcomers(n, 0);
        true
    }

    fn live(
        &mut self,
        n: usize,
        pool: Pool,
        actions: Vec<vpcnet_ipam::Action>,
        salt: String,
        begun: BTreeMap<String, (i64, bool)>,
        missing: bool,
    ) {
        // Answers of the life before were read by nobody.
        let begun = begun
            .into_iter()
            .map(|(token, (at, _))| (token, (at, true)))
            .collect();
        let node = &mut self.nodes[n];
        node.lives += 1;
        let number = node.lives;
        node.life = Some(Life::new(number, pool, salt, begun));
        self.rewrite(n);
        self.check_step(n);
        let mut events = std::collections::VecDeque::new();
        self.commit(n, actions, &mut events);
        if !events.is_empty() {
            self.tell(n, events.into());
        }
        self.queue(
            self.at + LOOK_AGAIN,
            Due::LookAgain {
                node: n,
                life: number,
            },
        );
        if missing {
            self.queue(
                self.at,
                Due::Relist {
                    node: n,
                    life: number,
                    pause: 2_000,
                },
            );
        }
    }

    /// What is attached, from IMDS and, where that is not enough, from EC2. `None`: IMDS says nothing.
    fn list(&mut self, n: usize, in_use: &[IpAddr]) -> Option<Vec<Seen>> {
        let listed = self.by_imds(n)?;
        let alone = listed.iter().all(|i| (i.card, i.device) == (0, 0));
        let has = |at: &IpAddr| match at {
            IpAddr::V4(at) => listed.iter().any(|i| i.has(*at)),
            IpAddr::V6(_) => true,
        };
        let imds = |i: &Listed, managed| Some((i.facts(managed)?, Evidence::Imds));
        if alone && in_use.iter().all(has) {
            return Some(listed.iter().filter_map(|i| imds(i, true)).collect());
        }
        if let Some(seen) = self.by_ec2(n, &listed) {
            return Some(seen);
        }
        let ours = |i: &Listed| {
            in_use
                .iter()
                .any(|at| matches!(at, IpAddr::V4(at) if i.addresses.contains(at)))
        };
        Some(listed.iter().filter_map(|i| imds(i, ours(i))).collect())
    }

    fn get(&mut self, n: usize, path: &str) -> Option<Option<String>> {
        let instance = self.nodes[n].instance.clone();
        let reply = self
            .vpc
            .imds(self.time(), &instance, &format!("/latest/meta-data/{path}"));
        match (reply.fate, reply.status, reply.body) {
            (ec2::Fate::Deliver, 200, ec2::ImdsBody::Text(text)) => Some(Some(text)),
            (ec2::Fate::Deliver, 404, _) => Some(None),
            _ => None,
        }
    }

    /// `None`: it does not answer. An interface that it lists and does not describe is left out.
    fn by_imds(&mut self, n: usize) -> Option<Vec<Listed>> {
        let macs = self.get(n, "network/interfaces/macs/")?.unwrap_or_default();
        let mut all = Vec::new();
        for mac in macs.lines().map(|l| l.trim_end_matches('/')) {
            let mut field = |name: &str| self.get(n, &format!("network/interfaces/macs/{mac}/{name}"));
            let (id, device, subnet) = (
                field("interface-id")?,
                field("device-number")?,
                field("subnet-id")?,
            );
            let (cidr, ips) = (field("subnet-ipv4-cidr-block")?, field("local-ipv4s")?);
            let (card, prefixes) = (field("network-card")?, field("ipv4-prefix")?);
            let (Some(id), Some(device), Some(subnet), Some(cidr), Some(ips)) =
                (id, device, subnet, cidr, ips)
            else {
                continue;
            };
            all.push(Listed {
                id,
                mac: mac.to_owned(),
                device: device.parse().unwrap(),
                card: card.map_or(0, |c| c.parse().unwrap()),
                subnet,
                cidr: cidr.parse().unwrap(),
                addresses: ips.lines().map(|l| l.parse().unwrap()).collect(),
                prefixes: prefixes
                    .iter()
                    .flat_map(|p| p.lines())
                    .map(|l| l.parse().unwrap())
                    .collect(),
            });
        }
        Some(all)
    }

    /// What EC2 says is attached; and of what only IMDS lists, what EC2 at least knows.
    fn by_ec2(&mut self, n: usize, listed: &[Listed]) -> Option<Vec<Seen>> {
        let instance = self.nodes[n].instance.clone();
        let attached = ec2::Describe::all().filter("attachment.instance-id", &[instance.as_str()]);
        let (_, answer) = self.call(n, ec2::Request::DescribeNetworkInterfaces(attached));
        let Ok(ec2::Response::Interfaces(page)) = answer else {
            return None;
        };
        let mut seen = Vec::new();
        let mut ids = Vec::new();
        for i in page
            .items
            .iter()
            .filter(|i| i.status != ec2::InterfaceStatus::Detaching)
        {
            let Some(a) = &i.attachment else { continue };
            ids.push(i.id.to_string());
            let cidr = self.cidr_of(&i.subnet);
            seen.extend(facts_of(i, (a.card, a.device_index), cidr, &instance).map(|f| (f, Evidence::Ec2)));
        }
        for listed in listed.iter().filter(|l| !ids.contains(&l.id)) {
            let (_, answer) = self.call(
                n,
                ec2::Request::DescribeNetworkInterfaces(ec2::Describe::ids([&listed.id])),
            );
            match answer {
                Ok(ec2::Response::Interfaces(page)) => {
                    let ours = |i: &ec2::Interface| {
                        i.tags
                            .get(super::calls::INSTANCE_TAG)
                            .is_some_and(|t| t == instance.as_str())
                    };
                    let known = page.items.first().map(|i| ours(i));
                    let facts = known.and_then(|managed| listed.facts(managed));
                    seen.extend(facts.map(|f| (f, Evidence::Imds)));
                }
                Err(e) if e.class == vpcnet_ipam::FailureClass::Gone => {}
                _ => return None,
            }
        }
        Some(seen)
    }

    /// Tells the pool what is there, after somebody showed that it is wrong about it.
    pub(crate) fn relist(&mut self, n: usize, pause: u64) {
        let Some(life) = &self.nodes[n].life else { return };
        let number = life.number;
        let seen = match self.by_imds(n) {
            Some(listed) => self.by_ec2(n, &listed),
            None => None,
        };
        let Some(seen) = seen else {
            let again = (pause * 2).min(60_000);
            self.queue(
                self.at + pause,
                Due::Relist {
                    node: n,
                    life: number,
                    pause: again,
                },
            );
            return;
        };
        let Some(life) = &self.nodes[n].life else { return };
        let known: Vec<EniId> = life.pool.interfaces().map(|i| i.id).collect();
        let ids = seen.iter().map(|(f, _)| f.id.clone()).collect();
        let new = seen.into_iter().filter(|(f, _)| !known.contains(&f.id));
        let mut events: Vec<Event> = new
            .map(|(facts, evidence)| Event::InterfaceSeen { facts, evidence })
            .collect();
        events.push(Event::InterfacesListed {
            ids,
            evidence: Evidence::Ec2,
        });
        self.tell(n, events);
    }

    /// Some link is of no interface that the pool knows: as soon as IMDS lists one, all is listed anew.
    pub(crate) fn newcomers(&mut self, n: usize, nth: usize) {
        let Some(life) = &self.nodes[n].life else { return };
        let number = life.number;
        let known: Vec<String> = life.pool.interfaces().map(|i| i.id.0).collect();
        let instance = self.nodes[n].instance.clone();
        let new: Vec<String> = self
            .attached(&instance)
            .filter(|i| !known.contains(&i.id.to_string()) && self.has_link(n, &i.id))
            .map(|i| i.id.to_string())
            .collect();
        if new.is_empty() {
            return;
        }
        let listed = self.by_imds(n).unwrap_or_default();
        if listed.iter().any(|i| new.contains(&i.id)) {
            self.relist(n, 2_000);
        } else if let Some(pause) = NEWCOMERS.get(nth) {
            self.queue(
                self.at + pause,
                Due::Newcomers {
                    node: n,
                    life: number,
                    nth: nth + 1,
                },
            );
        }
    }

    /// All that IMDS lists, also of what is known.
    pub(crate) fn look(&mut self, n: usize) {
        if self.nodes[n].life.is_none() {
            return;
        }
        let Some(listed) = self.by_imds(n) else { return };
        let instance = self.nodes[n].instance.clone();
        let ours = |i: &Listed| {
            let there = self.vpc.interface_now(&ec2::EniId(i.id.clone()));
            there.is_some_and(|i| {
                i.tags
                    .get(super::calls::INSTANCE_TAG)
                    .is_some_and(|t| t == instance.as_str())
            })
        };
        let seen: Vec<Seen> = listed
            .iter()
            .filter_map(|i| Some((i.facts(ours(i))?, Evidence::Imds)))
            .collect();
        self.tell(n, tell_all(seen, Evidence::Imds));
    }

    /// All that EC2 knows, also of what is known: what a start without files is told.
    pub(crate) fn look_closely(&mut self, n: usize) {
        if self.nodes[n].life.is_none() {
            return;
        }
        let Some(listed) = self.by_imds(n) else { return };
        if let Some(seen) = self.by_ec2(n, &listed) {
            self.tell(n, tell_all(seen, Evidence::Ec2));
        }
    }

    /// Somebody counted the subnets.
    pub(crate) fn count(&mut self, n: usize) {
        if self.nodes[n].life.is_none() {
            return;
        }
        let all = self.subnets.clone();
        let facts = all.iter().filter_map(|s| {
            let (addresses, prefixes) = self.vpc.left_now(s)?;
            Some(Event::SubnetFacts {
                subnet: SubnetId(s.to_string()),
                free_addresses: addresses,
                free_prefixes: Some(prefixes),
            })
        });
        let events = facts.collect();
        self.tell(n, events);
    }
}
