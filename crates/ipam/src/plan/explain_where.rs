//! Of the plan in sentences: what this node does otherwise, and which subnets serve. Where everything is as it is on every node,
//! there is nothing to say.

use crate::pool::Pool;
use crate::time::Now;

impl Pool {
    /// Targets of this node alone.
    pub(super) fn differs(&self) -> Vec<String> {
        let set = self.targets.overrides.sentences();
        if set.is_empty() {
            return Vec::new();
        }
        vec![format!("for this node only: {}", set.join(", "))]
    }

    /// Which subnets new interfaces lie in, the one that is used next first, and which ones pods are kept off.
    pub(super) fn new_ones_lie(&self, now: Now) -> Vec<String> {
        let wanted = &self.targets.subnets;
        let mut lines = Vec::new();
        if let Some(custom) = &wanted.custom {
            let groups = if custom.security_groups.is_empty() {
                "the primary interface's security groups".to_owned()
            } else {
                format!("security groups {}", custom.security_groups.join(", "))
            };
            lines.push(format!(
                "custom networking {:?}: pods are kept off the primary interface; new interfaces have {groups}",
                custom.name
            ));
        }
        let all = self.subnets(now);
        let of = |id: &str| all.iter().find(|s| s.id == id);
        if wanted.custom.is_some() || !wanted.candidates.is_empty() {
            let named = self.new_subnets(self.targets.mode.kind()).into_iter();
            let named: Vec<String> = named
                .map(
                    |id| match of(&id.0).map(|s| (s.left_addresses, s.left_prefixes)) {
                        Some((Some(addresses), Some(prefixes))) => {
                            format!("{id} ({addresses} addresses and {prefixes} /28 blocks left)")
                        }
                        Some((Some(addresses), None)) => format!("{id} ({addresses} addresses left)"),
                        _ => format!("{id} (not counted yet)"),
                    },
                )
                .collect();
            lines.push(match named.is_empty() {
                true => "new interfaces lie in no subnet: none may be used".to_owned(),
                false => format!("new interfaces lie in {}", named.join(", then ")),
            });
        }
        for subnet in &all {
            if subnet.excluded {
                lines.push(format!(
                    "{} is excluded by its tags: its {} interfaces are given no new pod and no new address",
                    subnet.id, subnet.interfaces
                ));
            }
            lines.extend(subnet.dry.as_ref().map(|dry| format!("{} has {dry}", subnet.id)));
        }
        lines
    }
}
