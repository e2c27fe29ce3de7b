//! When faults stop: all comes to rest within a bound, every pod that fits has its address, and the books agree.

use vpcnet_ipam::{Blocked, CardIndex, FailureClass, Mode, SubnetId, plan};
use vpcnet_lab::model as ec2;

use super::setup::timing;
use super::world::World;

/// Rounds of a minute until all has to be at rest: longer than the longest pauses, of warm addresses that stand back after EC2 was
/// asked too much (an hour), of refused deletions (10 minutes) and a busy hour's memory (10), and as long again.
const ROUNDS: usize = 130;

impl World {
    /// Faults stop.
    pub(crate) fn calm_down(&mut self) {
        self.vpc.clear_faults();
        self.vpc.set_timing(timing(20, 100, 0, 200));
        for node in &mut self.nodes {
            (node.bad_checkpoints, node.bad_journals, node.hides_next) = (0, 0, false);
            node.hidden.clear();
            node.doom = None;
        }
        for _ in 0..self.foreign.len() {
            self.take_back();
        }
        // Nothing lags any more.
        self.pass(70_000);
        let mut restless = None;
        for round in 0..ROUNDS {
            // What others did, and what a list did not show yet, comes to light by a link's message or a start.
            if matches!(round, 0 | 3 | 12) {
                for n in 0..self.nodes.len() {
                    if self.nodes[n].meddled && self.broken.is_none() {
                        self.look_closely(n);
                    }
                }
            }
            self.pass(60_000);
            if self.broken.is_some() {
                return;
            }
            restless = (0..self.nodes.len()).find_map(|n| self.unrest(n));
            if restless.is_none() {
                break;
            }
        }
        if let Some((law, detail)) = restless {
            return self.wrong(law, detail);
        }
        self.check_fully();
        for node in &mut self.nodes {
            node.meddled = false;
        }
        let held: std::collections::BTreeSet<_> = self
            .nodes
            .iter()
            .flat_map(|n| n.sandboxes.values().flat_map(|s| s.addresses.iter().copied()))
            .collect();
        let nodes = &self.nodes;
        let owned = |at| {
            nodes
                .iter()
                .filter_map(|n| n.life.as_ref())
                .any(|l| l.pool.holder(at).is_some())
        };
        self.robbed.retain(|at| held.contains(at) || owned(*at));
        let now = self.at;
        self.rests.retain(|_, until| *until > now);
        self.vpc.set_timing(self.weather);
    }

    /// What is not as it should be on a node where nothing goes wrong.
    fn unrest(&self, n: usize) -> Option<(&'static str, String)> {
        let node = &self.nodes[n];
        if node.gone {
            return None;
        }
        let Some(life) = &node.life else {
            return Some(("the agent starts", format!("node {n} has no agent")));
        };
        let now = self.now(n);
        let explain = || format!("node {n}: {:#?}", life.pool.explain(now));
        if !life.tasks.is_empty() {
            return Some(("calls end", format!("{:?}", life.tasks)));
        }
        let plan = plan(&life.pool, now);
        if !plan.steps.is_empty() {
            return Some(("the plan is carried out", explain()));
        }
        let view = life.pool.view(now);
        if !view.intents.is_empty() {
            return Some(("intents are settled", explain()));
        }
        let unserved = self.unserved(n);
        if let Some(how) = self.could_serve(n, &unserved) {
            let pods: Vec<u8> = unserved.iter().map(|(pod, _)| *pod).collect();
            let detail = format!(
                "node {n}: pods {pods:?} have no address, though {how}\n{}",
                explain()
            );
            return Some(("every pod that fits has an address", detail));
        }
        let waits = !plan.blocked.is_empty() && plan.blocked.iter().all(|b| self.is_dry(n, b));
        // Where EC2 gave a pod's stolen address to another interface of the node, that has a place less than is thought, and is asked
        // in vain once a minute.
        let robbed = life.pool.owners().any(|o| self.robbed.contains(&o.address));
        if life.pool.next_wake().is_some() && !waits && !robbed && unserved.is_empty() {
            let wake = life.pool.next_wake();
            return Some((
                "a pool at rest wants nothing",
                format!("{wake:?} at {:?}, {}", now.mono, explain()),
            ));
        }
        let kept = life.pool.owners().find(|o| {
            node.vanished
                .get(&o.key)
                .is_some_and(|life_then| *life_then < life.number)
        });
        if let Some(kept) = kept {
            let detail = format!(
                "node {n}: {} of {}, whose sandbox vanished before the last start",
                kept.address, kept.key
            );
            return Some(("owners that are gone are given up", detail));
        }
        self.unexplained(n, true)
    }

    /// Pods without an address, and whether each wants one of every card.
    fn unserved(&self, n: usize) -> Vec<(u8, bool)> {
        let node = &self.nodes[n];
        let has = |pod: &u8| {
            let name = format!("web-{pod}");
            node.sandboxes.values().any(|s| s.meta.name == name && s.lives())
        };
        let without = node.pods.iter().filter(|(pod, _)| !has(pod));
        without.map(|(pod, wanted)| (*pod, wanted.every)).collect()
    }

    /// Where an address for one of them could come from.
    fn could_serve(&self, n: usize, unserved: &[(u8, bool)]) -> Option<String> {
        let cards = self.managed_cards(n);
        // For those who want one of each, what one card has is kept while another has none.
        if unserved.iter().any(|(_, every)| *every) {
            let all: Option<Vec<String>> = cards.iter().map(|card| self.could_bring(n, *card)).collect();
            return all.map(|all| all.join(", "));
        }
        let one = cards.iter().find_map(|card| self.could_bring(n, *card));
        one.filter(|_| !unserved.is_empty())
    }

    /// Where another address of a card could come from.
    fn could_bring(&self, n: usize, card: CardIndex) -> Option<String> {
        let node = &self.nodes[n];
        let pool = &node.life.as_ref()?.pool;
        let (t, limits) = (pool.targets(), node.limits());
        let plan = plan(pool, self.now(n));
        let sums = plan.cards.iter().find(|c| c.card == card)?.tally;
        if sums.free > 0 && t.cooldown.as_secs() < 60 {
            return Some(format!("{} addresses of card {card} are free", sums.free));
        }
        if !t.provisions() || t.unschedulable || sums.total + sums.coming >= t.max_pods || sums.cooling > 0 {
            return None;
        }
        let left = |s: &SubnetId| {
            self.vpc
                .choosable_now(&ec2::SubnetId(s.0.clone()))
                .unwrap_or_default()
        };
        for i in pool.interfaces().filter(|i| i.card == card) {
            // What was taken from a pod takes room in the pool; what EC2 gave of it to another interface takes room there.
            let there = self.vpc.interface_now(&ec2::EniId(i.id.0.clone()));
            let used = there.map_or(0, |there| there.secondary.len() + there.prefixes.len());
            let used = used.max(i.addresses.len() + i.prefixes.len());
            let barred =
                t.subnets.excluded.contains(&i.subnet) || (t.subnets.custom.is_some() && i.is_primary);
            let room = used < usize::try_from(limits.per_eni()).unwrap();
            if i.managed && !barred && room && left(&i.subnet).0 > 0 {
                return Some(format!("{} has room", i.id));
            }
        }
        let instance = &node.instance;
        let there =
            |i: &&std::sync::Arc<ec2::Interface>| i.attachment.as_ref().is_some_and(|a| a.card == card.0);
        let first = limits.cards.first()?.card == card;
        let taken =
            self.attached(instance).filter(there).count() + usize::from(t.reserve_trunk_slot && first);
        let most = limits.cards.iter().find(|c| c.card == card)?.interfaces;
        let most = t.max_eni.filter(|m| *m >= 1).map_or(most, |m| m.min(most));
        if taken >= usize::try_from(most).unwrap() {
            return None;
        }
        let named = match &t.subnets.custom {
            Some(custom) => custom.subnets.clone(),
            None if t.subnets.candidates.is_empty() => vec![SubnetId(self.subnets[node.subnet].to_string())],
            None => t.subnets.candidates.clone(),
        };
        let open = named
            .iter()
            .find(|s| !t.subnets.excluded.contains(s) && left(s).0 > 1)?;
        Some(format!("an interface in {open} on card {card} could be made"))
    }

    /// A step waits for a subnet that has really nothing.
    fn is_dry(&self, n: usize, blocked: &Blocked) -> bool {
        if blocked.class != FailureClass::SubnetExhausted {
            return false;
        }
        let mut words = blocked.what.split(' ');
        let Some(subnet) = words.find(|w| w.starts_with("subnet-")) else {
            return false;
        };
        let (addresses, blocks) = self
            .vpc
            .choosable_now(&ec2::SubnetId(subnet.to_owned()))
            .unwrap_or_default();
        let prefixes = self.nodes[n].targets.mode == Mode::Prefixes;
        addresses <= 1 || (prefixes && blocks == 0)
    }
}
