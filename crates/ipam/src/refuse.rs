//! Refusals: when a pod's wait is over or of no use, and what it is told.

use crate::action::{Action, Answer, Refusal, RefusalCause};
use crate::backoff::Block;
use crate::event::{Cards, FailureClass};
use crate::ids::CardIndex;
use crate::intent::{Intent, What};
use crate::interface::Interface;
use crate::kind::Kind;
use crate::owner::{Asker, Wait};
use crate::plan::{Ceiling, Place, Tally, candidates, ceiling, count};
use crate::pool::Pool;
use crate::subnets::CustomNetwork;
use crate::targets::Mode;
use crate::time::{Mono, Now};

impl Pool {
    /// Refuses those whose deadline has come.
    pub(crate) fn end_waits(&mut self, now: Now, out: &mut Vec<Action>) {
        let due = |a: &Asker| a.deadline <= now.mono;
        if !self.waiting.values().any(|w| w.askers.iter().any(due)) {
            return;
        }
        let mut refused = Vec::new();
        for wait in self.waiting.values().filter(|w| w.askers.iter().any(due)) {
            let refusal = why(self, wait, now.mono);
            refused.extend(
                wait.askers
                    .iter()
                    .filter(|a| due(a))
                    .map(|a| (a.request, refusal.clone())),
            );
        }
        for wait in self.waiting.values_mut() {
            wait.askers.retain(|a| !due(a));
        }
        for wait in self.waiting.values().filter(|w| w.askers.is_empty()) {
            self.backoffs.pressure.sent_away(&wait.meta, now.mono);
        }
        self.waiting.retain(|_, w| !w.askers.is_empty());
        for (request, refusal) in refused {
            out.push(Action::Reply {
                request,
                answer: Answer::Refused(refusal),
            });
        }
    }

    /// Refuses at once those whom nothing can serve before their deadline: `of` every card only those who want one of each, of any
    /// all who wait. True if there were any.
    pub(crate) fn end_hopeless(&mut self, now: Now, of: Cards, out: &mut Vec<Action>) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let mut supplies: Vec<Supply> = self.cards().map(|card| self.supply(card, now.mono)).collect();
        let mut hopeless = Vec::new();
        for (turn, wait) in &self.waiting {
            let in_time = |s: &Supply| s.next().filter(|at| *at < wait.deadline());
            let served = match wait.cards {
                Cards::Every => supplies.iter().all(|s| in_time(s).is_some()),
                Cards::Any => supplies.iter().any(|s| in_time(s).is_some()),
            };
            if !served && of == Cards::Every && wait.cards == Cards::Any {
                continue;
            }
            if !served {
                hopeless.push((*turn, no_use(self, wait, now.mono)));
                continue;
            }
            match wait.cards {
                Cards::Every => supplies.iter_mut().for_each(Supply::take),
                Cards::Any => {
                    let soonest = supplies.iter_mut().filter(|s| in_time(s).is_some());
                    soonest
                        .min_by_key(|s| s.next())
                        .into_iter()
                        .for_each(Supply::take);
                }
            }
        }
        let any = !hopeless.is_empty();
        for (turn, refusal) in hopeless {
            let Some(wait) = self.waiting.remove(&turn) else {
                continue;
            };
            self.backoffs.pressure.sent_away(&wait.meta, now.mono);
            for asker in wait.askers {
                out.push(Action::Reply {
                    request: asker.request,
                    answer: Answer::Refused(refusal.clone()),
                });
            }
        }
        // The same for all of them: it is the pool that lacks something.
        if let Some(cause) = self
            .waiting
            .values()
            .next()
            .map(|wait| why(self, wait, now.mono).cause)
        {
            self.waiting.values_mut().for_each(|wait| wait.cause = cause);
        }
        any
    }

    /// When how many addresses of a card can become free for those who wait, if all goes well. Calls under way and to
    /// come count as now: how long they take is not known.
    fn supply(&self, card: CardIndex, now: Mono) -> Supply {
        let mut supply: Vec<(Mono, u32)> = vec![(now, Tally::of_card(self, card, now).free)];
        supply.extend(self.growth(card, now));
        if self.targets.mode != Mode::Ipv6 {
            for interface in self.serving(card) {
                let usable = interface.addresses.values().filter(|a| !a.is_doubted());
                supply.extend(usable.filter_map(|a| Some((a.cooling_until(now)?, 1))));
                supply.extend(self.unsure_on(interface, now));
            }
        }
        Supply::of(supply)
    }

    /// When EC2 can say whether an interface has what only a list says, and how much that is.
    fn unsure_on(&self, interface: &Interface, now: Mono) -> Option<(Mono, u32)> {
        let unsure = interface.addresses.values().filter(|a| a.unsure && !a.disputed);
        let unsure = count(unsure.count());
        let asks = |i: &&Intent| matches!(&i.what, What::Describe { eni, .. } if *eni == interface.id);
        let asked = self.intents.values().find(asks).map(|i| i.ready_at(now));
        let at = asked.or(interface.verify_at)?;
        (unsure > 0).then_some((at.max(now), unsure))
    }

    /// The part of it that EC2 brings: when how many addresses can be there that the card does not have.
    pub(crate) fn growth(&self, card: CardIndex, now: Mono) -> Vec<(Mono, u32)> {
        if self.targets.mode == Mode::Ipv6 {
            return crate::ipv6::supply(self, card, now).into_iter().collect();
        }
        let tally = Tally::of_card(self, card, now);
        let mut supply = Vec::new();
        if !self.listed || ceiling(self, card) == Ceiling::NoPrimary {
            supply.push((now, u32::MAX)); // The agent is still finding out what there is.
        }
        let of_card = |i: &&Intent| self.card_of(i) == card;
        let intents = || self.intents.values().filter(of_card);
        supply.extend(intents().map(|i| (i.ready_at(now), i.brings())));
        if self.targets.provisions() && !self.targets.unschedulable {
            let mut headroom = self
                .targets
                .max_pods
                .saturating_sub(tally.total.saturating_add(tally.coming));
            // An interface in the making takes more once it is there.
            for intent in intents() {
                if let What::Create(create) = &intent.what {
                    let room = self.limits.per_eni().saturating_sub(create.count());
                    let room = room.saturating_mul(create.kind().size()).min(headroom);
                    supply.push((intent.ready_at(now), room));
                    headroom = headroom.saturating_sub(room);
                }
            }
            for c in candidates(self, card, now) {
                if headroom == 0 {
                    break;
                }
                supply.push((c.blocked.map_or(now, |(until, _)| until), c.brings()));
                // Single addresses from where there is no prefix come on top.
                if !c.is_dry() {
                    headroom = headroom.saturating_sub(c.brings());
                }
            }
        }
        supply.retain(|(_, brings)| *brings > 0);
        supply
    }

    /// The card an intent is about.
    pub(crate) fn card_of(&self, intent: &Intent) -> CardIndex {
        match &intent.what {
            What::Create(c) => c.card,
            _ => {
                let place = intent.eni().and_then(|eni| self.interfaces.get(eni));
                place.map_or(self.first_card(), |i| i.card)
            }
        }
    }
}

/// What can become free when, the soonest last.
struct Supply(Vec<(Mono, u32)>);

impl Supply {
    fn of(mut all: Vec<(Mono, u32)>) -> Self {
        all.retain(|(_, brings)| *brings > 0);
        all.sort_unstable();
        all.reverse();
        Self(all)
    }

    /// When the next address can be free.
    fn next(&self) -> Option<Mono> {
        self.0.last().map(|(at, _)| *at)
    }

    /// It is spoken for.
    fn take(&mut self) {
        if let Some((_, left)) = self.0.last_mut() {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.0.pop();
            }
        }
    }
}

/// What a pod is told whom nothing can serve in time.
fn no_use(pool: &Pool, wait: &Wait, now: Mono) -> Refusal {
    let refusal = why(pool, wait, now);
    let (card, tally) = lacking(pool, wait, now);
    let coming = tally.coming;
    if refusal.cause != RefusalCause::StillWorking || coming == 0 {
        return refusal;
    }
    // It is not the calls under way that it lacks.
    let (cause, reason) = full(pool, card, &tally);
    let message = format!(
        "{} of {} addresses are assigned and the {coming} that are coming are for pods that waited before; {reason}",
        tally.assigned, tally.total
    );
    Refusal {
        cause,
        message,
        retry_in: None,
    }
}

/// What a pod that waits would be told now.
pub(crate) fn why(pool: &Pool, wait: &Wait, now: Mono) -> Refusal {
    let (card, tally) = lacking(pool, wait, now);
    let of_card = if wait.cards == Cards::Every && pool.cards().nth(1).is_some() {
        format!("of network card {card}: ")
    } else {
        String::new()
    };
    let refusal = |cause, message: String, at: Option<Mono>| Refusal {
        cause,
        message: format!("{of_card}{message}"),
        retry_in: at.filter(|at| *at > now).map(|at| at.since(now)),
    };
    if !pool.listed {
        let message =
            "the agent does not know its interfaces yet: neither IMDS nor its own state told".to_owned();
        return refusal(RefusalCause::StillWorking, message, None);
    }
    if let Some(Trouble { what, block, until }) = trouble(pool, now) {
        let again = if until > now {
            format!("tried again in {}", span(now, until))
        } else {
            "being tried again".to_owned()
        };
        let message = format!("no free address; {what} failed: {} ({again})", block.message);
        return refusal(cause_of(block.class), message, Some(until));
    }
    if let Some(intent) = pool
        .intents
        .values()
        .filter(|i| i.brings() > 0 || matches!(i.what, What::AssignIpv6 { .. }))
        .filter(|i| wait.cards == Cards::Any || pool.card_of(i) == card)
        .min_by_key(|i| i.since)
    {
        let message = format!(
            "no free address after {}; the {} has been under way for {} without an answer",
            span(wait.since, now),
            intent.title(),
            span(intent.since, now)
        );
        return refusal(RefusalCause::StillWorking, message, None);
    }
    if tally.free > 0 && pool.serve_at.is_none() {
        let message = format!(
            "{} addresses are free and kept for pods of every network card that have waited longer",
            tally.free
        );
        return refusal(RefusalCause::StillWorking, message, None);
    }
    if tally.free > 0 {
        let message = "the checkpoint could not be written a moment ago".to_owned();
        return refusal(RefusalCause::CheckpointFailed, message, pool.serve_at);
    }
    let full = full(pool, card, &tally);
    let unsure = pool.cards().flat_map(|card| pool.serving(card));
    let unsure: Vec<(Mono, u32)> = unsure.filter_map(|i| pool.unsure_on(i, now)).collect();
    if let Some(at) = unsure.iter().map(|(at, _)| *at).min() {
        let sum: u32 = unsure.iter().map(|(_, sum)| sum).sum();
        let message = format!(
            "{} of {} addresses are assigned; {sum} were found by a start without own state, and EC2 is asked for them in {}, when \
             its reads cannot lag behind what was given back before; {}",
            tally.assigned,
            tally.total,
            span(now, at),
            full.1
        );
        return refusal(RefusalCause::StillWorking, message, Some(at));
    }
    let cool = pool.cards().filter_map(|card| pool.next_cool(card, now)).min();
    if let Some(at) = cool.filter(|_| pool.targets.mode != Mode::Ipv6) {
        let message = format!(
            "{} of {} addresses are assigned and {} cool down, the first for {} more; {}",
            tally.assigned,
            tally.total,
            tally.cooling,
            span(now, at),
            full.1
        );
        return refusal(RefusalCause::CoolingDown, message, Some(at));
    }
    let message = format!(
        "{} of {} addresses are assigned; {}",
        tally.assigned, tally.total, full.1
    );
    refusal(full.0, message, None)
}

/// The card that keeps a pod waiting, with its sums: the first that has nothing for one that wants an address of each. For
/// one that any card could serve, the sums are those of all.
fn lacking(pool: &Pool, wait: &Wait, now: Mono) -> (CardIndex, Tally) {
    if wait.cards == Cards::Every {
        let mut cards = pool.cards().map(|card| (card, Tally::of_card(pool, card, now)));
        if let Some(found) = cards.find(|(_, t)| t.free == 0) {
            return found;
        }
    }
    (pool.first_card(), Tally::of(pool, now))
}

/// Why the pool cannot grow, if EC2 is not the reason.
fn full(pool: &Pool, card: CardIndex, tally: &Tally) -> (RefusalCause, String) {
    let limit = pool.limits.max_interfaces(&pool.targets);
    if !pool.targets.provisions() {
        return (
            RefusalCause::TargetReached,
            "provisioning is off, so none is added".to_owned(),
        );
    }
    if pool.targets.unschedulable {
        let message =
            "the node is cordoned, so none is added (AWS_MANAGE_ENIS_NON_SCHEDULABLE would)".to_owned();
        return (RefusalCause::TargetReached, message);
    }
    if tally.total.saturating_add(tally.coming) >= pool.targets.max_pods {
        let message = format!("max-pods {} is reached, so none is added", pool.targets.max_pods);
        return (RefusalCause::TargetReached, message);
    }
    // Of several cards that could serve, the first stands for all.
    match ceiling(pool, card) {
        Ceiling::NoPrimary => (
            RefusalCause::StillWorking,
            "the primary interface is not known yet, so none can be added".to_owned(),
        ),
        Ceiling::NoSubnet => (
            RefusalCause::SubnetExhausted,
            match &pool.targets.subnets.custom {
                Some(custom) => no_custom_subnet(custom),
                None => "no subnet may be used for pods: all are excluded by their tags".to_owned(),
            },
        ),
        Ceiling::MaxEni => (
            RefusalCause::TargetReached,
            format!("all {limit} interfaces that MAX_ENI allows are full"),
        ),
        _ => {
            let instance = &pool.identity.instance_id;
            (
                RefusalCause::InstanceFull,
                format!("all {limit} interfaces that instance {instance} can have are full"),
            )
        }
    }
}

/// Something that failed and would have brought addresses.
struct Trouble<'a> {
    what: String,
    block: &'a Block,
    /// When it is tried again.
    until: Mono,
}

/// The latest of them, if what failed can still bring any.
fn trouble<'a>(pool: &'a Pool, now: Mono) -> Option<Trouble<'a>> {
    let mut all: Vec<Trouble<'a>> = Vec::new();
    let mut add = |what: String, block: Option<&'a Block>, until: Option<Mono>| {
        all.extend(block.map(|block| Trouble {
            what,
            block,
            until: until.unwrap_or(block.until),
        }));
    };
    let b = &pool.backoffs;
    let creating = ("creating an interface", b.create.as_ref());
    let assigning = ("assigning addresses", b.assign.as_ref());
    for intent in pool.intents.values().filter(|i| i.brings() > 0) {
        add(format!("the {}", intent.title()), intent.trouble.as_ref(), None);
        let stall = intent.running().and_then(|action| pool.stalls.get(&action));
        add(format!("the {}", intent.title()), stall, None);
        let (what, block) = if let What::Create(_) = intent.what {
            creating
        } else {
            assigning
        };
        add(what.to_owned(), block, None);
    }
    if pool.targets.mode == Mode::Ipv6 {
        add(assigning.0.to_owned(), assigning.1, None);
        add(creating.0.to_owned(), creating.1, None);
    }
    let tally = Tally::of(pool, now);
    let counts = pool.targets.mode != Mode::Ipv6 && !pool.targets.unschedulable;
    if counts && pool.targets.provisions() && tally.total.saturating_add(tally.coming) < pool.targets.max_pods
    {
        for place in pool.cards().flat_map(|card| candidates(pool, card, now)) {
            let subnet = b.subnet(place.subnet, place.kind);
            let full = subnet.and_then(|s| s.full.as_ref());
            // A pod that waits, or asks again, has it asked sooner.
            add(
                match place.kind {
                    Kind::Address => format!("taking an address of {}", place.subnet),
                    Kind::Prefix => format!("taking a prefix of {}", place.subnet),
                },
                full,
                subnet.and_then(|s| s.until(true)),
            );
            match place.place {
                Place::On(eni) => {
                    add(assigning.0.to_owned(), assigning.1, None);
                    let block = pool.interfaces.get(eni).and_then(|i| i.block.as_ref());
                    add(format!("adding addresses to {eni}"), block, None);
                }
                Place::New(card, device) => {
                    add(creating.0.to_owned(), creating.1, None);
                    let block = pool.refused_device(card, device);
                    add(format!("attaching an interface at device {device}"), block, None);
                }
            }
        }
    }
    all.into_iter().max_by_key(|t| t.block.at)
}

fn cause_of(class: FailureClass) -> RefusalCause {
    match class {
        FailureClass::Retry => RefusalCause::Ec2Unreachable,
        FailureClass::Throttled => RefusalCause::Throttled,
        FailureClass::NotBegun => RefusalCause::CheckpointFailed,
        FailureClass::SubnetExhausted => RefusalCause::SubnetExhausted,
        FailureClass::LimitReached
        | FailureClass::DeviceTaken
        | FailureClass::Overtaken
        | FailureClass::Refused
        | FailureClass::Gone => RefusalCause::Ec2Refused,
    }
}

/// For people: seconds, with one decimal below ten.
pub(crate) fn span(from: Mono, to: Mono) -> String {
    let ms = to.since(from).as_millis();
    if ms < 10_000 {
        format!("{}.{} s", ms / 1000, ms % 1000 / 100)
    } else {
        format!("{} s", ms / 1000)
    }
}

/// Why an ENIConfig is of no use.
fn no_custom_subnet(custom: &CustomNetwork) -> String {
    let name = &custom.name;
    match &custom.elsewhere[..] {
        _ if name.is_empty() => {
            "custom networking is on and this node has no ENIConfig, so there is no subnet that may be used"
                .to_owned()
        }
        [] => format!("ENIConfig {name:?} names no subnet that may be used"),
        elsewhere => {
            let ids: Vec<&str> = elsewhere.iter().map(|id| id.0.as_str()).collect();
            format!(
                "ENIConfig {name:?} names {}, which is no subnet of this node's zone and VPC, and no other",
                ids.join(", ")
            )
        }
    }
}
