//! The gauges: what the status page says, in numbers. Set when somebody reads them.

use std::collections::BTreeMap;

use vpcnet_ipam::{AddressState, InterfaceView, Mode, Pool, SubnetView};

use crate::core::View;
use crate::metrics::{Metrics, cause_label};

/// Sets the gauges from the pool.
pub(super) fn set(view: &View<'_>, metrics: &Metrics) {
    let at_work = |name: &str, count: u32| {
        let of = metrics.drop_in.in_progress.with_label_values(&[name]);
        of.set(i64::from(count));
    };
    at_work("nodeInit", u32::from(view.pool.is_none()));
    let Some(pool) = view.pool else { return };
    let under_way = pool.under_way_now();
    at_work("increaseDatastorePool", under_way.growing);
    at_work("decreaseDatastorePool", under_way.shrinking);
    at_work("nodeIPPoolReconcile", under_way.asking);
    by_cidr(pool, metrics);
    let pool = pool.view(view.now);
    by_subnet(&pool.subnets, metrics);
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let managed = || pool.interfaces.iter().filter(|i| i.managed);
    let assigned = |i: &InterfaceView| {
        let states = i.addresses.iter().map(|a| a.state);
        let all = states.chain(i.ipv6.iter().map(|a| a.state));
        all.filter(|s| *s == AddressState::Assigned).count()
    };
    let others = u32::try_from(pool.interfaces.len().saturating_sub(managed().count())).unwrap_or(u32::MAX);
    let eni_max = pool.max_interfaces.saturating_sub(others);
    let per_eni = pool.limits.per_eni();
    metrics.eni_max.set(i64::from(eni_max));
    metrics.ip_max.set(i64::from(match pool.targets.mode {
        Mode::Prefixes => eni_max
            .saturating_mul(per_eni)
            .saturating_mul(vpcnet_ipam::arithmetic::PREFIX_SIZE),
        // A /80 has more than anybody counts: what the node may have is what max-pods allows.
        Mode::Ipv6 => pool.targets.max_pods,
        _ => eni_max.saturating_mul(per_eni),
    }));
    metrics.eni_allocated.set(number(managed().count()));
    metrics.total.set(match pool.targets.mode {
        Mode::Ipv6 => i64::from(pool.totals.total),
        _ => {
            let all = managed().flat_map(|i| &i.addresses);
            number(all.filter(|a| a.state != AddressState::Releasing).count())
        }
    });
    metrics.assigned.set(number(managed().map(assigned).sum()));
    metrics
        .prefixes
        .set(number(managed().map(|i| i.prefixes.len()).sum()));
    // Interfaces that went must not stay as series.
    metrics.assigned_per_eni.reset();
    for interface in managed() {
        metrics
            .assigned_per_eni
            .with_label_values(&[&interface.id.0])
            .set(number(assigned(interface)));
    }
    let mut waiting: BTreeMap<&'static str, i64> = BTreeMap::new();
    for pod in &pool.waiting {
        *waiting.entry(cause_label(pod.cause)).or_default() += 1;
    }
    metrics.waiting.reset();
    for (cause, pods) in waiting {
        metrics.waiting.with_label_values(&[cause]).set(pods);
    }
}

/// CIDRs that went must not stay as series.
fn by_cidr(pool: &Pool, metrics: &Metrics) {
    let gauge = &metrics.drop_in.assigned_per_cidr;
    gauge.reset();
    for (cidr, assigned) in pool.assigned_by_cidr() {
        gauge
            .with_label_values(&[&cidr.to_string()])
            .set(i64::from(assigned));
    }
}

fn by_subnet(subnets: &[SubnetView], metrics: &Metrics) {
    let gauges = [
        &metrics.subnet_free_addresses,
        &metrics.subnet_free_prefixes,
        &metrics.pool_free_addresses,
        &metrics.pool_free_prefixes,
    ];
    for gauge in gauges {
        gauge.reset();
    }
    for subnet in subnets {
        let values = [
            subnet.left_addresses,
            subnet.left_prefixes,
            Some(subnet.pool_free_addresses),
            Some(subnet.pool_free_prefixes),
        ];
        // What nobody counted has no series: 0 would be an alarm.
        for (gauge, value) in gauges.into_iter().zip(values) {
            if let Some(value) = value {
                gauge.with_label_values(&[&subnet.id]).set(i64::from(value));
            }
        }
    }
}
