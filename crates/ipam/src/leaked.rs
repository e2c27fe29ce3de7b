//! Leaked interfaces: made for a node that died before it attached them, attached to nothing, and counted by nobody. They
//! hold addresses of the subnet and places in the account's quota.
//!
//! A node of ours leaks none by itself: its journal knows what it began, and a creation is repeated with its token. What is
//! left is what died with its instance. Any node may free it, so somebody has to look, and the AWS VPC CNI lets every node look
//! every hour. Here a look has a cause ([`Cause`]), and follows at once on the call that is its cause, so an idle node makes none:
//!
//! * EC2 had no address or no interface left for us: what is leaked is what is missing.
//! * An interface was made: leaks come from making interfaces, so one look for [`ONE_IN`] interfaces of the whole cluster is
//!   in proportion. Which, the interface's id says, so that nobody has to agree with anybody.
//! * What the last look found was too young to be judged, and no longer is: the next call to EC2 that is made anyway.
//!
//! Nodes that lack the same addresses look as their own calls are answered: one look for a call at most, and seldom.
//! What is leaked is told by the same signs as in the AWS VPC CNI: description, tags and age.

use std::time::Duration;

use sha1::{Digest, Sha1};

use crate::ids::EniId;
use crate::time::Mono;

/// What the descriptions of interfaces for pods begin with; the instance's id follows.
pub const DESCRIPTION: &str = "aws-K8S-";
/// A younger interface may be on its way to its node.
pub const MIN_AGE: Duration = Duration::from_secs(300);
/// Of so many interfaces that are made one leads to a look.
pub const ONE_IN: u32 = 16;
/// Between two looks of one node: at least so long, twice as long after each that found nothing,
const GAP: Duration = Duration::from_secs(600);
/// so long at most.
const GAP_MAX: Duration = Duration::from_secs(6 * 3600);

/// What was just asked of EC2, and may be a cause to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause<'a> {
    /// EC2 denied addresses or an interface, because there are none left.
    NothingLeft,
    /// This interface was made.
    Made(&'a EniId),
    /// Anything else.
    Called,
}

/// When a node looks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Looks {
    /// Not before, but for what is owed.
    not_before: Option<Mono>,
    /// How many looks in a row found nothing.
    in_vain: u32,
    /// What was too young no longer is from here on.
    owed: Option<Mono>,
    /// The look that is under way is for what was owed: it owes no further one, or there would be no end to it.
    paying: bool,
}

impl Looks {
    /// Whether to look now, right after the call that is the cause. If so, the caller looks and tells [`Looks::looked`].
    pub fn is_due(&mut self, cause: Cause<'_>, now: Mono) -> bool {
        let owed = self.owed.is_some_and(|at| at <= now);
        let due = owed || self.is_cause(cause) && self.not_before.is_none_or(|at| at <= now);
        if due {
            self.paying = owed;
            // Also if it fails, and nobody tells.
            self.not_before = Some(now.plus(GAP));
            self.owed = None;
        }
        due
    }

    fn is_cause(&self, cause: Cause<'_>) -> bool {
        match cause {
            Cause::NothingLeft => true,
            Cause::Made(eni) => part(&eni.0) * f64::from(ONE_IN) < 1.0,
            Cause::Called => false,
        }
    }

    /// A look ended, and so many interfaces were freed. `young`: in so long the last one that was too young will not be.
    pub fn looked(&mut self, freed: usize, young: Option<Duration>, now: Mono) {
        self.in_vain = if freed > 0 {
            0
        } else {
            self.in_vain.saturating_add(1)
        };
        let factor = 1_u32.checked_shl(self.in_vain).unwrap_or(u32::MAX);
        self.not_before = Some(now.plus(GAP.saturating_mul(factor).min(GAP_MAX)));
        self.owed = young.filter(|_| !self.paying).map(|left| now.plus(left));
    }
}

/// From 0 to 1, 1 excluded, the same for the same text.
fn part(text: &str) -> f64 {
    let digest = Sha1::digest(text.as_bytes());
    let four = digest.iter().take(4).fold(0_u32, |n, b| n << 8 | u32::from(*b));
    f64::from(four) / (f64::from(u32::MAX) + 1.0)
}

/// An interface as EC2 describes it, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loose {
    /// EC2's status.
    pub status: String,
    /// Attached to something, or on its way.
    pub attached: bool,
    /// Its description.
    pub description: String,
    /// Tag `node.k8s.amazonaws.com/instance_id`.
    pub instance: Option<String>,
    /// Tag `cluster.k8s.amazonaws.com/name`.
    pub cluster: Option<String>,
    /// Tag `node.k8s.amazonaws.com/createdAt`, nanoseconds since the Unix epoch; `None` where it is missing or no time.
    pub created_ns: Option<i64>,
}

/// Whose look it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Looker<'a> {
    /// Our instance.
    pub instance: &'a str,
    /// `CLUSTER_NAME`, if it is set.
    pub cluster: Option<&'a str>,
}

/// What is to be done with an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nobody will ever attach it: delete it.
    Free,
    /// Nobody knows how old it is: write down that it was there now, so that a later look knows.
    Stamp,
    /// Too young to be told from one on its way: in so long it is not.
    Young(Duration),
    /// Not leaked, or not ours to judge.
    Leave,
}

/// Judges one interface. `now_ns`: nanoseconds since the Unix epoch.
#[must_use]
pub fn judge(loose: &Loose, looker: Looker<'_>, now_ns: i64) -> Verdict {
    let ours_to_judge = match (&loose.cluster, looker.cluster) {
        (Some(theirs), Some(ours)) => theirs == ours,
        // Another cluster's in the same VPC, or one from before the cluster had its name.
        (Some(_), None) | (None, Some(_)) => false,
        (None, None) => true,
    };
    let of_a_node = loose.description.starts_with(DESCRIPTION) && loose.instance.is_some();
    // What this node began, its own journal settles.
    let own = loose.instance.as_deref() == Some(looker.instance);
    if loose.attached || loose.status != "available" || !of_a_node || !ours_to_judge || own {
        return Verdict::Leave;
    }
    let Some(created) = loose.created_ns else {
        return Verdict::Stamp;
    };
    // A time ahead of ours is another clock's: young.
    let age = u64::try_from(now_ns.saturating_sub(created)).map_or(Duration::ZERO, Duration::from_nanos);
    if age < MIN_AGE {
        Verdict::Young(MIN_AGE - age)
    } else {
        Verdict::Free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_700_000_000_000_000_000;
    const SECOND: i64 = 1_000_000_000;
    const LOOKER: Looker<'_> = Looker {
        instance: "i-us",
        cluster: Some("blue"),
    };

    fn leaked() -> Loose {
        Loose {
            status: "available".into(),
            attached: false,
            description: "aws-K8S-i-dead".into(),
            instance: Some("i-dead".into()),
            cluster: Some("blue".into()),
            created_ns: Some(NOW - 301 * SECOND),
        }
    }

    #[test]
    fn what_a_dead_node_of_our_cluster_left_is_freed_after_five_minutes() {
        assert_eq!(judge(&leaked(), LOOKER, NOW), Verdict::Free);
        let young = Loose {
            created_ns: Some(NOW - 299 * SECOND),
            ..leaked()
        };
        assert_eq!(judge(&young, LOOKER, NOW), Verdict::Young(Duration::from_secs(1)));
        let ahead = Loose {
            created_ns: Some(NOW + 60 * SECOND),
            ..leaked()
        };
        assert_eq!(judge(&ahead, LOOKER, NOW), Verdict::Young(MIN_AGE));
    }

    #[test]
    fn what_does_not_say_when_it_was_made_is_stamped_and_not_deleted() {
        let unknown = Loose {
            created_ns: None,
            ..leaked()
        };
        assert_eq!(judge(&unknown, LOOKER, NOW), Verdict::Stamp);
    }

    #[test]
    fn what_is_in_use_or_somebody_elses_is_left_alone() {
        for other in [
            Loose {
                attached: true,
                ..leaked()
            },
            Loose {
                status: "in-use".into(),
                ..leaked()
            },
            Loose {
                status: "pending".into(),
                ..leaked()
            },
            Loose {
                description: "my-interface".into(),
                ..leaked()
            },
            Loose {
                instance: None,
                ..leaked()
            },
            Loose {
                instance: Some("i-us".into()),
                ..leaked()
            },
            Loose {
                cluster: Some("green".into()),
                ..leaked()
            },
            Loose {
                cluster: None,
                ..leaked()
            },
        ] {
            assert_eq!(judge(&other, LOOKER, NOW), Verdict::Leave, "{other:?}");
        }
    }

    #[test]
    fn a_node_that_does_not_know_its_cluster_leaves_what_bears_a_clusters_name() {
        let nameless = Looker {
            cluster: None,
            ..LOOKER
        };
        assert_eq!(judge(&leaked(), nameless, NOW), Verdict::Leave);
        let unnamed = Loose {
            cluster: None,
            ..leaked()
        };
        assert_eq!(judge(&unnamed, nameless, NOW), Verdict::Free);
    }

    #[test]
    fn one_of_sixteen_new_interfaces_leads_to_a_look() {
        let looks = (0..1600).filter(|n| {
            let eni = EniId(format!("eni-{n:017x}"));
            Looks::default().is_due(Cause::Made(&eni), Mono(0))
        });
        let count = looks.count();
        assert!((60..=140).contains(&count), "{count}");
    }

    #[test]
    fn looks_in_vain_become_rare_and_one_that_frees_something_does_not() {
        let (mut looks, mut now) = (Looks::default(), Mono(0));
        let mut gaps = Vec::new();
        for _ in 0..7 {
            assert!(looks.is_due(Cause::NothingLeft, now));
            looks.looked(0, None, now);
            let from = now;
            while !looks.clone().is_due(Cause::NothingLeft, now) {
                now = now.plus(Duration::from_secs(60));
            }
            gaps.push(now.since(from).as_secs());
        }
        assert_eq!(gaps, [1200, 2400, 4800, 9600, 19_200, 21_600, 21_600]);
        looks.looked(1, None, now);
        assert!(looks.is_due(Cause::NothingLeft, now.plus(GAP)));
    }

    #[test]
    fn what_was_too_young_is_looked_at_once_more_with_the_next_call_after_it_is_old_enough() {
        let (mut looks, young) = (Looks::default(), Duration::from_secs(100));
        let at = |s| Mono(0).plus(Duration::from_secs(s));
        assert!(looks.is_due(Cause::NothingLeft, at(0)));
        looks.looked(0, Some(young), at(1));
        assert!(!looks.is_due(Cause::Called, at(100)), "still too young");
        assert!(
            !looks.is_due(Cause::NothingLeft, at(100)),
            "still too young, and just looked"
        );
        assert!(
            looks.is_due(Cause::Called, at(5000)),
            "however late the next call is"
        );
        looks.looked(0, Some(young), at(5001));
        assert!(
            !looks.is_due(Cause::Called, at(5200)),
            "nor a third time: others are young by now"
        );
    }

    #[test]
    fn a_call_that_brought_what_was_asked_for_is_no_cause_by_itself() {
        assert!(!Looks::default().is_due(Cause::Called, Mono(0)));
    }

    proptest! {
        #[test]
        fn a_look_is_not_followed_by_another_while_it_lasts(at in 0_u64..1 << 40, after in 0_u64..600_000) {
            let mut looks = Looks::default();
            prop_assert!(looks.is_due(Cause::NothingLeft, Mono(at)));
            prop_assert!(!looks.is_due(Cause::NothingLeft, Mono(at + after)));
        }
    }
}
