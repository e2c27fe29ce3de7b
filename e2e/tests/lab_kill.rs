//! Promise 5: `kill -9` of the agent at any moment costs no address and no connection.

// Functions beside the tests are tests too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vpcnet_e2e::{Lab, Node, Options, Stream, wait_for, wait_for_or};

/// An m5.large has three interfaces of ten addresses, one of them the interface's own.
const POOL: u64 = 27;
const KILLS: u32 = 50;
/// Ten times what is promised: figures proper are the benchmark's.
const SERVES_AGAIN: Duration = Duration::from_secs(1);
/// Owners whose pod never came to be are kept for 30 s after a start: a plugin may be between answer and interface.
const SETTLED: Duration = Duration::from_secs(90);

/// The pool is as large as the instance allows from the start, so there is never a reason to call EC2; and addresses may be
/// used again after a second, so that the churn goes round.
const ENV: &[&str] = &["MINIMUM_IP_TARGET=27", "WARM_IP_TARGET=1", "IP_COOLDOWN_PERIOD=1"];

/// Pods do not wait for the call that says so, and the agent may die before it is answered.
#[test]
fn an_interface_goes_with_its_instance_also_when_the_agent_died_before_that_was_confirmed() {
    const SOON: Duration = Duration::from_secs(60);
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        env: &[],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_for_pool(9, SOON);
    lab.run(&["fault", "add", "ModifyNetworkInterfaceAttribute", "--hang"]);
    node.must_add("web");
    node.wait_for_pool(18, SOON);
    let status = node.status();
    let interfaces = status["interfaces"].as_array().unwrap();
    let made = interfaces.iter().find(|i| i["device"] == 1).unwrap();
    let id = format!("NetworkInterfaceId.1={}", made["eni"].as_str().unwrap());
    let goes_with_it = || {
        let xml = lab.run(&["ec2", "DescribeNetworkInterfaces", &id]);
        xml.contains("<deleteOnTermination>true<")
    };
    assert!(!goes_with_it());

    node.kill_agent();
    lab.run(&["fault", "clear"]);
    node.start_agent(&[]);
    node.wait_until_ready(SOON);
    wait_for("the next life sees to it", SOON, || goes_with_it().then_some(()));
    // Once: the life after that has nothing to ask.
    wait_for("that is written down", SOON, || {
        let file = node.file("/run/aws-node/vpcnet-state.json");
        let state = std::fs::read_to_string(file).ok()?;
        (!state.contains("\"outliving\"")).then_some(())
    });
    let calls = node.ec2_calls();
    node.restart_after_kill(&[], SOON);
    node.wait_until_ready(SOON);
    assert_eq!(node.ec2_calls(), calls);
}

#[test]
fn killing_the_agent_at_fifty_random_moments_costs_no_address_and_no_connection() {
    let mut dice = Dice::from_environment();
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "2", "--type", "m5.large"],
        env: ENV,
    });
    let (node, other) = (Node::new(&lab, "node-1"), Node::new(&lab, "node-2"));
    node.wait_for_pool(POOL, Duration::from_secs(60));
    other.wait_for_pool(POOL, Duration::from_secs(60));

    // Enough pods that some live on secondary interfaces, with connections on the node and across.
    let kept: BTreeMap<String, String> = (0..12)
        .map(|n| format!("kept-{n}"))
        .map(|name| {
            let address = node.must_add(&name);
            (name, address)
        })
        .collect();
    let far = other.must_add("far");
    let streams = [
        Stream::open(
            &lab,
            "pod/kept-0",
            "pod/kept-1",
            &format!("{}:7000", kept["kept-1"]),
        ),
        Stream::open(
            &lab,
            "pod/kept-2",
            "pod/kept-11",
            &format!("{}:7000", kept["kept-11"]),
        ),
        Stream::open(&lab, "pod/kept-3", "pod/far", &format!("{far}:7000")),
        Stream::open(
            &lab,
            "pod/far",
            "pod/kept-10",
            &format!("{}:7001", kept["kept-10"]),
        ),
    ];
    let calls_before = node.ec2_calls().len();

    let churn = Churn::default();
    let slowest = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&churn);
        for worker in 0..2 {
            let churn = &churn;
            scope.spawn(move || churn.work(node, worker));
        }
        let mut slowest = Duration::ZERO;
        for round in 1..=KILLS {
            churn.wait_for_operations(1 + dice.below(4));
            // The moment within an operation is left to chance.
            std::thread::sleep(Duration::from_micros(dice.below(20_000)));
            slowest = slowest.max(node.restart_after_kill(ENV, SERVES_AGAIN));
            if round % 10 == 0 {
                let _none = churn.pause();
                each_address_has_one_owner(node, &kept);
            }
        }
        slowest
    });

    println!(
        "served again at latest {slowest:?} after its start; {} pods came and went",
        churn.done.load(Ordering::Relaxed)
    );
    for pod in node.pods() {
        if !kept.contains_key(&pod.name) {
            node.remove(&pod.name).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    let kept_addresses: BTreeSet<String> = kept.values().cloned().collect();
    wait_for_or(
        || {
            // Who it is, and whether it is the pool that keeps it or the file.
            let file = std::fs::read_to_string(node.checkpoint_file()).unwrap_or_default();
            let status = node.introspect("/v1/vpcnet/status").unwrap_or_default();
            format!(
                "only the kept pods own addresses; the checkpoint: {file}; the pool: {}; the pods: {:?}",
                status["pool"],
                node.pods()
            )
        },
        SETTLED,
        || (node.owners().into_keys().collect::<BTreeSet<_>>() == kept_addresses).then_some(()),
    );
    let (total, assigned) = node.pool().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        (total, assigned),
        (POOL, kept.len() as u64),
        "addresses in the pool, and with an owner"
    );
    assert_eq!(
        node.ec2_addresses().len() as u64,
        POOL,
        "addresses that EC2 has on the node's interfaces"
    );
    each_address_has_one_owner(node, &kept);
    for (name, address) in &kept {
        assert_eq!(&node.kernel_address(name), address, "{name} in the kernel");
    }
    let calls: Vec<String> = node.ec2_calls().into_iter().skip(calls_before).collect();
    assert!(
        calls.is_empty(),
        "calls to EC2 for addresses that were there: {calls:?}"
    );
    for stream in streams {
        let (echoes, longest) = stream.close();
        println!("{echoes} echoes, longest gap {longest:?}");
        assert!(echoes > 100, "only {echoes} echoes came back");
    }
}

/// Nothing may be under way: every pod that has an address is the checkpoint's owner of it, and nobody has another's.
fn each_address_has_one_owner(node: Node<'_>, kept: &BTreeMap<String, String>) {
    let pods = node.pods();
    let owners = node.owners();
    let mut seen = BTreeMap::new();
    for pod in &pods {
        if let Some(other) = seen.insert(&pod.address, &pod.name) {
            panic!("{} belongs to {other} and to {}", pod.address, pod.name);
        }
        assert_eq!(
            owners.get(&pod.address),
            Some(&pod.container),
            "checkpoint's owner of {} ({})",
            pod.address,
            pod.name
        );
    }
    for (name, address) in kept {
        assert_eq!(seen.get(address).copied(), Some(name), "who has {address}");
    }
}

/// Pods that come and go, as a kubelet makes them: what fails while the agent is dead is tried again.
#[derive(Default)]
struct Churn {
    operations: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    /// Held for reading during an operation, for writing by who needs none under way.
    turn: RwLock<()>,
}

struct StopOnDrop<'a>(&'a Churn);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

impl Churn {
    fn work(&self, node: Node<'_>, worker: u32) {
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let name = format!("churn-{worker}-{number}");
            if self.operation(|| node.add(&name).is_err()) {
                continue;
            }
            let give_up = Instant::now() + Duration::from_secs(60);
            while self.operation(|| node.remove(&name).is_err()) {
                assert!(Instant::now() < give_up, "{name} could not be removed for 60 s");
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn operation<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.turn.read();
        self.operations.fetch_add(1, Ordering::Relaxed);
        work()
    }

    fn pause(&self) -> impl Drop {
        self.turn.write().unwrap_or_else(|e| e.into_inner())
    }

    fn wait_for_operations(&self, more: u64) {
        let until = self.operations.load(Ordering::Relaxed) + more;
        wait_for("the churn goes on", Duration::from_secs(60), || {
            (self.operations.load(Ordering::Relaxed) >= until).then_some(())
        });
    }
}

/// Numbers that look random (splitmix64), from a seed that is printed.
struct Dice(u64);

impl Dice {
    fn from_environment() -> Self {
        let given = std::env::var("VPCNET_SEED").ok().and_then(|s| s.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map(|d| d.as_secs() ^ u64::from(d.subsec_nanos()))
                .unwrap_or(1)
        });
        println!("seed: VPCNET_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
