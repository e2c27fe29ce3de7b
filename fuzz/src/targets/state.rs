//! What an earlier life left behind: the pool's journal (in `vpcnet-state.json`), the owners' file and what the kernel shows, which need
//! not agree. The agent starts from them, goes on, and writes them again.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;
use vpcnet_ipam::{
    CardIndex, CardLimits, Checkpoint, Event, Identity, Journal, KernelEvidence, Limits, Mono, Now, Pool,
    Restored, Targets,
};

use crate::Target;

pub(crate) const STATE: Target = Target {
    name: "state",
    check,
    words: &[
        "\"mode\":\"Prefixes\"",
        "\"mode\":\"Ipv6\"",
        "\"prefixes\":[\"10.0.1.0/28\"]",
        "\"10.0.1.0/28\"",
        "\"10.0.1.0/27\"",
        "\"10.0.1.3\"",
        "\"fd00::/80\"",
        "\"state\":\"Owned\"",
        "\"state\":{\"Free\":{\"since\":0}}",
        "\"state\":{\"Cooling\":{\"until\":18446744073709551615}}",
        "\"is_primary\":true",
        "\"managed\":false",
        "\"device\":4294967295",
        "\"card\":1",
        "\"subnet_cidr\":\"10.0.0.0/33\"",
        "\"eni-0\"",
        "\"version\":2",
        "\"version\":3",
        "null",
        "[]",
        "{}",
    ],
};

/// An input.
#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    targets: Targets,
    journal: serde_json::Value,
    #[serde(default)]
    checkpoint: serde_json::Value,
    #[serde(default)]
    kernel: KernelEvidence,
}

fn check(bytes: &[u8]) {
    let Ok(input) = serde_json::from_slice::<Input>(bytes) else {
        return;
    };
    let journal: Option<Journal> = match serde_json::from_value(input.journal) {
        Ok(journal) => Some(journal),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    };
    let checkpoint = Checkpoint::parse(input.checkpoint.to_string().as_bytes()).ok();
    let identity = Identity {
        instance_id: journal.as_ref().map_or("i-1".into(), |j| j.instance_id.clone()),
        token_salt: "salt".into(),
        boot_id: journal.as_ref().map_or("boot".into(), |j| j.boot_id.clone()),
    };
    let limits = Limits {
        cards: [(0, 3), (1, 2)]
            .map(|(card, interfaces)| CardLimits {
                card: CardIndex(card),
                interfaces,
            })
            .to_vec(),
        ipv4_per_interface: 10,
    };
    let now = Now {
        mono: Mono(1_000_000),
        wall_ns: 1_700_000_000_000_000_000,
    };
    let restored = Restored {
        checkpoint: checkpoint.clone(),
        journal,
        kernel: input.kernel,
    };
    let (mut pool, ..) = Pool::restore(identity, limits, input.targets, restored, now)
        .expect("these limits describe a machine");
    let owners = holds(&pool);
    // A start takes no address from anybody.
    for allocation in checkpoint.iter().flat_map(|c| &c.allocations) {
        assert!(
            owners.contains(&allocation.address),
            "{} of {} is lost by the start",
            allocation.address,
            allocation.key
        );
    }
    let _ = (pool.view(now), pool.explain(now));
    for later in [1, 30_000, 600_000] {
        let now = Now {
            mono: Mono(now.mono.0 + later),
            wall_ns: now.wall_ns,
        };
        pool.handle(now, Event::Tick);
        holds(&pool);
    }
    let written = serde_json::to_string(&pool.journal()).expect("it has a JSON form");
    let read: Journal = serde_json::from_str(&written).expect("what we wrote we read");
    assert_eq!(read, pool.journal());
    let text = serde_json::to_string(&pool).expect("it has a JSON form");
    let again: Pool = serde_json::from_str(&text).expect("what we showed we read");
    assert_eq!(again.view(now), pool.view(now));
}

/// The addresses that have an owner, each one.
fn holds(pool: &Pool) -> BTreeSet<IpAddr> {
    let mut seen = BTreeSet::new();
    for lease in pool.owners() {
        assert!(seen.insert(lease.address), "{} has two owners", lease.address);
    }
    seen
}
