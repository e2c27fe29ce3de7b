//! The sums of the warm pool, as the AWS VPC CNI does them, each a function of numbers.
//!
//! `total` counts every address on managed interfaces, `assigned` those with an owner; their difference is `available`,
//! so addresses that cool down count as available: that is what the original's metrics mean too.

/// Addresses of a /28.
pub const PREFIX_SIZE: u32 = 16;

/// Prefixes that hold so many addresses.
#[must_use]
pub fn prefixes_for(addresses: u32) -> u32 {
    addresses.div_ceil(PREFIX_SIZE)
}

/// Prefixes without a pod that may go, when so many addresses are too many: the rest still holds what is wanted.
#[must_use]
pub fn prefixes_over(over: u32, free_prefixes: u32) -> u32 {
    free_prefixes.min(over / PREFIX_SIZE)
}

/// `WARM_PREFIX_TARGET`: free addresses that are wanted; those of prefixes in use count. Target 0 wants one: it grows
/// when none is available.
#[must_use]
pub fn warm_prefix_wanted(target: u32) -> u32 {
    target.saturating_mul(PREFIX_SIZE).max(1)
}

/// `WARM_PREFIX_TARGET`: prefixes to ask for when `short` addresses are missing: enough for those, and as many as it takes
/// until the target's number of prefixes is wholly free.
#[must_use]
pub fn warm_prefix_short(target: u32, short: u32, free_prefixes: u32) -> u32 {
    if short == 0 {
        return 0;
    }
    prefixes_for(short).max(target.saturating_sub(free_prefixes))
}

/// `WARM_PREFIX_TARGET`: wholly free prefixes beyond the target. With target 0 one that holds the last free address stays:
/// the original gives it back and asks for it again.
#[must_use]
pub fn warm_prefix_over(target: u32, available: u32, free_prefixes: u32) -> u32 {
    let over = available.saturating_sub(warm_prefix_wanted(target));
    prefixes_over(over, free_prefixes.saturating_sub(target))
}

/// `WARM_IP_TARGET`, `MINIMUM_IP_TARGET`: addresses that are missing.
#[must_use]
pub fn ip_target_short(warm: u32, minimum: u32, total: u32, assigned: u32) -> u32 {
    warm_short(warm, total, assigned).max(minimum.saturating_sub(total))
}

/// `WARM_IP_TARGET`, `MINIMUM_IP_TARGET`: addresses too many.
#[must_use]
pub fn ip_target_over(warm: u32, minimum: u32, total: u32, assigned: u32) -> u32 {
    let available = total.saturating_sub(assigned);
    available.saturating_sub(warm).min(total.saturating_sub(minimum))
}

/// `WARM_ENI_TARGET`: free addresses that are wanted. Target 0 wants one: it grows when none is available.
#[must_use]
pub fn warm_eni_wanted(target: u32, per_eni: u32) -> u32 {
    target.saturating_mul(per_eni).max(1)
}

/// Addresses missing for `wanted` available ones. `assigned` may exceed `total` when pods wait for their address.
#[must_use]
pub fn warm_short(wanted: u32, total: u32, assigned: u32) -> u32 {
    let short = i64::from(wanted) + i64::from(assigned) - i64::from(total);
    u32::try_from(short.max(0)).unwrap_or(u32::MAX)
}

/// `WARM_ENI_TARGET`: may an interface be freed? Only if there is one more of them than wanted.
#[must_use]
pub fn warm_eni_over(target: u32, per_eni: u32, total: u32, assigned: u32) -> bool {
    total.saturating_sub(assigned) >= target.saturating_add(1).saturating_mul(per_eni)
}

/// Pods of an instance by the common formula: two pods use the host's network.
#[must_use]
pub fn max_pods(interfaces: u32, ipv4_per_interface: u32) -> u32 {
    interfaces
        .saturating_mul(ipv4_per_interface.saturating_sub(1))
        .saturating_add(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_targets_give_the_originals_figures() {
        // warm, minimum, total, assigned, short, over
        let vectors = [
            (5, 0, 2, 0, 3, 0),
            (2, 5, 5, 5, 2, 0),
            (1, 10, 12, 2, 0, 2),
            (0, 12, 12, 12, 0, 0),
        ];
        for (warm, minimum, total, assigned, short, over) in vectors {
            assert_eq!(
                (
                    ip_target_short(warm, minimum, total, assigned),
                    ip_target_over(warm, minimum, total, assigned)
                ),
                (short, over),
                "W {warm} M {minimum} T {total} A {assigned}"
            );
        }
    }

    #[test]
    fn warm_eni_targets_give_the_originals_decisions() {
        let low = |target, total, assigned| warm_short(warm_eni_wanted(target, 3), total, assigned) > 0;
        assert!(!low(1, 3, 0));
        assert!(low(1, 3, 1));
        assert!(!low(0, 3, 1));
        assert!(low(0, 3, 3));
        assert!(!warm_eni_over(1, 3, 6, 1) && warm_eni_over(1, 3, 6, 0));
    }

    #[test]
    fn ip_targets_with_prefixes_give_the_originals_figures() {
        // warm, minimum, total, assigned, free prefixes, prefixes short, prefixes over
        let vectors = [
            (5, 0, 32, 0, 2, 0, 1),
            (16, 0, 16, 1, 0, 1, 0),
            (1, 0, 0, 0, 0, 1, 0),
            (5, 40, 48, 2, 2, 0, 0),
            (5, 20, 48, 2, 2, 0, 1),
            (0, 17, 0, 0, 0, 2, 0),
        ];
        for (warm, minimum, total, assigned, free, short, over) in vectors {
            let missing = prefixes_for(ip_target_short(warm, minimum, total, assigned));
            let surplus = prefixes_over(ip_target_over(warm, minimum, total, assigned), free);
            assert_eq!(
                (missing, surplus),
                (short, over),
                "W {warm} M {minimum} T {total} A {assigned}"
            );
        }
    }

    #[test]
    fn warm_prefix_targets_give_the_originals_decisions() {
        let short = |target, total: u32, assigned, free| {
            warm_prefix_short(
                target,
                warm_short(warm_prefix_wanted(target), total, assigned),
                free,
            )
        };
        assert_eq!((short(1, 16, 0, 1), short(1, 16, 1, 0)), (0, 1));
        assert_eq!(short(2, 32, 12, 0), 2, "wholly free ones are asked for");
        assert_eq!((short(0, 16, 15, 0), short(0, 16, 16, 0)), (0, 1));
        assert_eq!((warm_prefix_over(1, 32, 2), warm_prefix_over(1, 40, 1)), (1, 0));
        assert_eq!(
            (warm_prefix_over(0, 16, 1), warm_prefix_over(0, 17, 1)),
            (0, 1),
            "the last free address stays"
        );
    }

    #[test]
    fn max_pods_is_the_common_formula() {
        assert_eq!(max_pods(3, 10), 29);
        assert_eq!(max_pods(8, 30), 234);
        assert_eq!(max_pods(3, 4), 11);
    }

    #[test]
    fn waiting_pods_make_assigned_exceed_total_without_wrapping() {
        assert_eq!(warm_short(9, 0, 4), 13);
        assert_eq!(warm_short(u32::MAX, 0, u32::MAX), u32::MAX);
        assert_eq!(ip_target_over(0, 0, 2, 5), 0);
    }
}
