//! Promise 4: pods that come faster than addresses wait for them, and none fails.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use vpcnet_e2e::{Lab, Node, Options};

const PODS: usize = 100;
const AT_A_TIME: usize = 8;
/// Ten times what is promised: figures proper are the benchmark's.
const ALL_READY: Duration = Duration::from_secs(60);

#[test]
fn a_hundred_pods_at_once_on_a_pool_that_must_grow_all_get_an_address_at_the_first_asking() {
    let lab = Lab::up(&Options {
        arguments: &[
            "--nodes",
            "1",
            "--type",
            "m5.4xlarge",
            "--ec2-latency",
            "400",
            "--imds-lag",
            "2000",
            "--attach-delay",
            "0",
        ],
        env: &[],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(Duration::from_secs(60));

    let start = Instant::now();
    let queue = Mutex::new((0..PODS).collect::<Vec<_>>());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(number) = { queue.lock().expect("no worker panicked").pop() } {
                    let outcome = lab.try_run(&["pod", "add", "node-1", &format!("burst-{number}")]);
                    outcomes.lock().expect("no worker panicked").push(outcome);
                }
            });
        }
    });
    let took = start.elapsed();
    println!("{PODS} pods in {took:?}");

    let failed: Vec<String> = outcomes
        .into_inner()
        .expect("no worker panicked")
        .into_iter()
        .filter_map(|o| o.err().map(|e| e.to_string()))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {PODS} ADDs failed, the first: {}",
        failed.len(),
        failed[0]
    );
    assert!(took < ALL_READY, "all were ready only after {took:?}");
    let pods = node.pods();
    let addresses: BTreeSet<&String> = pods.iter().map(|p| &p.address).collect();
    assert_eq!(addresses.len(), PODS, "addresses of {} pods", pods.len());
    let owned: BTreeSet<String> = node.owners().into_keys().collect();
    assert_eq!(
        owned.iter().collect::<BTreeSet<_>>(),
        addresses,
        "owned by the checkpoint, held by pods"
    );
}
