//! The plan in sentences: for `vpcnet plan --why`.

use serde::{Deserialize, Serialize};

use super::{CardPlan, Ceiling, Plan, Step, make};
use crate::arithmetic;
use crate::kind::Kind;
use crate::pool::Pool;
use crate::refuse::span;
use crate::targets::Mode;
use crate::time::{Mono, Now};

/// The next plan and how it came about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlanReport {
    /// The arithmetic, one thought a line.
    pub lines: Vec<String>,
    /// What would be done now; empty when nothing is missing and nothing too much.
    pub actions: Vec<String>,
    /// The same for programs.
    pub plan: Plan,
}

impl Pool {
    /// The next plan with its arithmetic.
    #[must_use]
    pub fn explain(&self, now: Now) -> PlanReport {
        let plan = make(self, now.mono, true);
        let mut lines = self.differs();
        for card in &plan.cards {
            let mut of_card = vec![self.have(card), self.want(card)];
            of_card.extend(self.reach(card));
            let name = if plan.cards.len() > 1 {
                format!("card {}: ", card.card)
            } else {
                String::new()
            };
            lines.extend(of_card.into_iter().map(|line| format!("{name}{line}")));
        }
        if plan.tally.orphans > 0 {
            lines.push(format!(
                "{} more are held by pods on no interface that is known",
                plan.tally.orphans
            ));
        }
        lines.extend(self.new_ones_lie(now));
        lines.extend(
            plan.blocked
                .iter()
                .map(|b| format!("{} must wait {} more: {}", b.what, span(now.mono, b.until), b.why)),
        );
        lines.extend(plan.kept.iter().cloned());
        lines.extend(self.intents.values().map(|i| self.under_way(i, now.mono)));
        if plan.steps.is_empty() {
            lines.push("nothing to do now".to_owned());
        }
        PlanReport {
            lines,
            actions: plan.steps.iter().map(sentence).collect(),
            plan,
        }
    }

    fn have(&self, plan: &CardPlan) -> String {
        let t = plan.tally;
        let mut line = format!(
            "{} of {} interfaces; {} addresses in all − {} assigned = {} available ({} can be handed out now, {} cool down)",
            t.interfaces,
            self.max_interfaces(plan.card),
            t.total,
            t.assigned,
            t.available,
            t.free,
            t.cooling,
        );
        if t.prefixes > 0 {
            let (all, free) = (t.prefixes, t.free_prefixes);
            line.push_str(&format!("; {all} prefixes, {free} of them without a pod"));
        }
        if t.draining > 0 {
            let kind = match self.targets.mode.kind() {
                Kind::Address => "are of prefixes",
                Kind::Prefix => "are single",
            };
            line.push_str(&format!(
                "; {} more {kind}: they serve until they are given back",
                t.draining
            ));
        }
        if t.coming > 0 {
            line.push_str(&format!("; {} more are coming", t.coming));
        }
        if t.waiting > 0 {
            line.push_str(&format!("; {} pods wait", t.waiting));
        }
        line
    }

    fn want(&self, plan: &CardPlan) -> String {
        if self.targets.mode == Mode::Ipv6 {
            let (t, max) = (plan.tally, self.targets.max_pods);
            let has = if t.total > t.assigned || t.total >= max {
                "one /80 serves"
            } else {
                "a /80 is missing"
            };
            return format!(
                "{has}; max-pods {max} − {} assigned = {} more pods; the warm targets have no meaning with IPv6",
                t.assigned,
                max.saturating_sub(t.assigned)
            );
        }
        let (t, per_eni) = (plan.tally, self.limits.per_eni());
        let demand = format!(
            "{} − {} assigned{} = {} free",
            supply(plan),
            t.assigned,
            if t.waiting > 0 {
                format!(" − {} waiting", t.waiting)
            } else {
                String::new()
            },
            i64::from(t.total) + i64::from(t.coming) - i64::from(t.assigned) - i64::from(t.waiting),
        );
        let prefixes = self.targets.mode.kind() == Kind::Prefix;
        let (wanted, floor) = match self.ip_targets(plan.card) {
            Some((warm, _)) if self.targets.auto && self.is_first(plan.card) => {
                let why = if self.is_tight() {
                    "a subnet has less left than this node could use".to_owned()
                } else {
                    format!(
                        "{} pods came in the busiest of the last ten minutes, at least max-pods {} ÷ 16 = {}",
                        self.churn.peak(),
                        self.targets.max_pods,
                        self.auto_base()
                    )
                };
                (format!("auto: {why}: {warm} wanted free"), String::new())
            }
            Some((warm, minimum)) => (
                format!("warm IP target {warm} = {warm} wanted free"),
                format!(
                    ", minimum IP target {minimum}: {} missing in all",
                    minimum.saturating_sub(t.total.saturating_add(t.coming))
                ),
            ),
            None => {
                let (target, of, each, wanted) = if prefixes {
                    let target = self.targets.warm_prefix.unwrap_or(0);
                    let wanted = arithmetic::warm_prefix_wanted(target);
                    (target, "prefix", arithmetic::PREFIX_SIZE, wanted)
                } else {
                    let target = self.targets.warm_eni;
                    (
                        target,
                        "ENI",
                        per_eni,
                        arithmetic::warm_eni_wanted(target, per_eni),
                    )
                };
                let zero = if target == 0 { " (at least one)" } else { "" };
                (
                    format!("warm {of} target {target} × {each} addresses = {wanted} wanted free{zero}"),
                    String::new(),
                )
            }
        };
        let result = match (plan.goal.warm_short, plan.goal.over) {
            (0, 0) => "enough".to_owned(),
            (0, over) if prefixes => format!(
                "{over} more than wanted, {} prefixes may go",
                plan.goal.prefixes_over
            ),
            (0, over) => format!("{over} more than wanted"),
            (short, _) if prefixes => format!(
                "short by {short}, {} prefixes of {}",
                plan.goal.prefixes_short,
                arithmetic::PREFIX_SIZE
            ),
            (short, _) => format!("short by {short}"),
        };
        format!("{wanted}; {demand}{floor} → {result}")
    }

    fn reach(&self, plan: &CardPlan) -> Vec<String> {
        let mut lines = Vec::new();
        if plan.goal.serve_short > plan.goal.warm_short {
            lines.push(format!(
                "{} pods wait and what is available cools down: {} more wanted rather than wait for it",
                plan.tally.waiting, plan.goal.serve_short
            ));
        }
        let limit = self.max_interfaces(plan.card);
        lines.extend(plan.ceiling.map(|c| match c {
            Ceiling::NotListed => "the interfaces are not known yet: nothing is planned before".to_owned(),
            Ceiling::NoPrimary => {
                "the primary interface is not known yet: no new one can be placed".to_owned()
            }
            Ceiling::NoSubnet => "no subnet may be used for a new interface: not grown further".to_owned(),
            Ceiling::Unschedulable => {
                "the node is cordoned: not grown, no interface freed (AWS_MANAGE_ENIS_NON_SCHEDULABLE)".to_owned()
            }
            Ceiling::ProvisioningOff => "provisioning is off: neither grown nor shrunk".to_owned(),
            Ceiling::MaxPods => format!(
                "{} addresses are enough for max-pods {}: not grown",
                supply(plan),
                self.targets.max_pods
            ),
            Ceiling::MaxEni => {
                format!("MAX_ENI allows {limit} interfaces and they are full or filling: not grown further")
            }
            Ceiling::InstanceFull => {
                format!(
                    "the instance takes {limit} interfaces and they are full or filling: not grown further"
                )
            }
        }));
        lines
    }

    fn under_way(&self, intent: &crate::intent::Intent, now: Mono) -> String {
        let age = span(intent.since, now);
        let at = intent.ready_at(now);
        match (&intent.trouble, at > now) {
            (Some(t), true) => {
                format!(
                    "{} (for {age}): tried again in {} after: {}",
                    intent.title(),
                    span(now, at),
                    t.message
                )
            }
            (Some(t), false) => format!(
                "{} under way for {age}, again after: {}",
                intent.title(),
                t.message
            ),
            (None, _) => format!("{} under way for {age}", intent.title()),
        }
    }
}

fn supply(plan: &CardPlan) -> String {
    if plan.tally.coming > 0 {
        format!("{} total + {} coming", plan.tally.total, plan.tally.coming)
    } else {
        format!("{} total", plan.tally.total)
    }
}

pub(super) fn sentence(step: &Step) -> String {
    match step {
        Step::Create {
            card,
            device,
            subnet,
            addresses,
            prefixes,
        } => {
            let with = if *prefixes > 0 {
                format!("{prefixes} prefixes")
            } else {
                format!("{addresses} addresses")
            };
            format!("create an interface at device {device} of card {card} in {subnet} with {with}")
        }
        Step::AssignIpv6Prefix { eni } => format!("assign a /80 to {eni}"),
        Step::Assign { eni, count } => format!("assign {count} addresses to {eni}"),
        Step::AssignPrefixes { eni, count } => format!("assign {count} prefixes to {eni}"),
        Step::ReleasePrefixes { eni, prefixes } => format!("give {} prefixes of {eni} back", prefixes.len()),
        Step::Release { eni, addresses } => format!("give {} addresses of {eni} back", addresses.len()),
        Step::Delete { eni } => format!("detach and delete {eni}: no pod needs it"),
    }
}
