//! What the kernel's side of ADD and DEL costs in this process, in namespaces of its own: `pod_cost [PODS]`. Needs root.
//!
//! Prints the least and the median time in µs, for a pod on a secondary interface (two rules).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a measuring tool: it ends at the first thing that is wrong

use std::net::IpAddr;
use std::time::{Duration, Instant};

use vpcnet_linux::Mac;
use vpcnet_linux::netlink::{Socket, traffic_of_this_thread};
use vpcnet_linux::netns::Netns;
use vpcnet_linux::pod::{self, Gone, PodInterface};

fn main() {
    let count: u16 = std::env::args().nth(1).map_or(200, |n| n.parse().unwrap());
    let home = new_netns();
    let mut host = Socket::open_in(&home).unwrap();
    let (mut add, mut del, mut pods) = (Vec::new(), Vec::new(), Vec::new());
    let begin = traffic_of_this_thread();
    for n in 0..count {
        let pod = new_netns();
        home.enter().unwrap();
        let one = interface(n);
        let at = Instant::now();
        pod::add(&mut host, &pod, std::slice::from_ref(&one)).unwrap();
        add.push(at.elapsed());
        pods.push((pod, one));
    }
    let after = traffic_of_this_thread();
    for (_, one) in &pods {
        let gone = [Gone {
            address: one.address,
            table: one.table,
        }];
        let at = Instant::now();
        let errors = pod::del(&mut host, &gone, &[&one.host_name]);
        del.push(at.elapsed());
        assert!(errors.is_empty(), "{errors:?}");
    }
    println!(
        "{} sends, {} messages an ADD",
        per(after.sends - begin.sends, count),
        per(after.messages - begin.messages, count)
    );
    for (what, times) in [("ADD", &mut add), ("DEL", &mut del)] {
        let first = median(&times[..times.len() / 10 + 1]);
        let last = median(&times[times.len() - times.len() / 10 - 1..]);
        let least = times.iter().min().unwrap();
        println!(
            "{what}: min {} median {} us; median of the first tenth {}, of the last {}",
            least.as_micros(),
            median(times).as_micros(),
            first.as_micros(),
            last.as_micros()
        );
    }
}

fn per(total: u64, count: u16) -> u64 {
    total / u64::from(count)
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

fn interface(n: u16) -> PodInterface {
    let [high, low] = n.to_be_bytes();
    PodInterface {
        host_name: format!("eni{n:011x}"),
        host_mac: Mac([2, 1, 0, 0, high, low]),
        name: "eth0".into(),
        mac: Mac([2, 2, 0, 0, high, low]),
        mtu: 9001,
        address: IpAddr::from([10, 0, high, low.max(1)]),
        gateway_index: 1,
        table: 2,
    }
}

/// Moves the thread into a new namespace.
fn new_netns() -> Netns {
    // SAFETY: the flag concerns the calling thread alone and shares no memory.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: run as root");
    Netns::current().unwrap()
}
