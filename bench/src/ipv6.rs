//! ADD with an IPv6 address beside the floor of an IPv4 one, and how soon after it the pod's first packets get off the node and on.

use std::fs::File;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent;
use crate::host;
use crate::peers::{Peer, Wired};
use crate::pods::Pod;
use crate::report::{percentile, summary};
use crate::run::Cost;

/// In the range that the lab's security group opens to the internet.
const PORT: u16 = 30_500;
/// Between two attempts: what a lost first packet costs is not to be rounded up by more.
const AGAIN: Duration = Duration::from_micros(500);
/// How long the first packet may take before the pod counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pods for each way of the first packet.
const FIRST: usize = 40;

/// `outside`: a namespace beyond the VPC, and the address it has there.
pub(crate) fn measure(bin: &Path, outside: (&Path, Ipv6Addr), pods: usize) -> io::Result<Value> {
    agent::wait_for_pool(1, 1)?;
    let peers = [Peer::ours(bin)?, Peer::floor(bin, usize::MAX)?];
    // Also warms everything up. With numbers of their own: a link goes some time after its namespace.
    for peer in &peers {
        for number in pods..pods + 3 {
            peer.weigh(Pod::new(&format!("v6w{}", peer.name), number)?)?;
        }
    }
    let mut costs: [Vec<Cost>; 2] = Default::default();
    let mut wired: Vec<(usize, Wired)> = Vec::new();
    for number in 0..pods {
        // Each goes first every other time: the kernel still cleans up after one while the next runs.
        for at in [number % 2, (number + 1) % 2] {
            let (Some(peer), Some(costs)) = (peers.get(at), costs.get_mut(at)) else {
                continue;
            };
            let (one, cost) = peer.add(Pod::new(&format!("v6{}", peer.name), number)?)?;
            wired.push((at, one));
            costs.push(cost);
        }
    }
    for (at, one) in wired {
        peers.get(at).map_or(Ok(()), |peer| peer.del(one).map(drop))?;
    }
    let [ours, floor] = &costs;
    let (ours, floor) = (summary(ours, 0), summary(floor, 0));
    let p50 = |of: &Value| of.get("p50_ms").and_then(Value::as_f64).unwrap_or(f64::NAN);
    let ratio = p50(&ours) / p50(&floor);
    let [peer, _] = &peers;
    let far = File::open(outside.0)?;
    let mut ways = [Vec::new(), Vec::new()];
    for number in 0..FIRST {
        for (way, times) in ways.iter_mut().enumerate() {
            let (one, _) = peer.add(Pod::new(&format!("v6f{way}"), number)?)?;
            let added = Instant::now();
            let took = first_packet(&one, &far, outside.1, way == 0, added);
            peer.del(one)?;
            times.push(took?.as_secs_f64() * 1e3);
        }
    }
    let [out, into] = ways.map(first_summary);
    Ok(json!({
        "pods": pods, "add": { "ours": ours, "floor_ipv4": floor }, "add_over_ipv4_floor": ratio,
        "first_packet_out_ms": out, "first_packet_in_ms": into,
    }))
}

fn first_summary(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    json!({ "runs": times.len(), "p50": percentile(&times, 0.5), "max": percentile(&times, 1.0) })
}

/// From `added` until a packet has gone from the one side to the other and its answer has come back.
fn first_packet(
    one: &Wired,
    far: &File,
    far_address: Ipv6Addr,
    from_pod: bool,
    added: Instant,
) -> io::Result<Duration> {
    let address = one.address()?;
    let inside = File::open(one.pod.path())?;
    let near = host::within(&inside, || UdpSocket::bind(SocketAddr::new(address.into(), PORT)))?;
    let beyond = host::within(far, || UdpSocket::bind(SocketAddr::new(far_address.into(), 0)))?;
    let (asks, answers, to) = if from_pod {
        (&near, &beyond, beyond.local_addr()?)
    } else {
        (&beyond, &near, near.local_addr()?)
    };
    asks.set_read_timeout(Some(AGAIN))?;
    answers.set_read_timeout(Some(Duration::from_millis(50)))?;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 16];
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok((_, from)) = answers.recv_from(&mut buffer) {
                    let _ = answers.send_to(b"here", from);
                }
            }
        });
        let took = ask(asks, to, added);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        took
    })
}

fn ask(socket: &UdpSocket, to: SocketAddr, added: Instant) -> io::Result<Duration> {
    let mut buffer = [0; 16];
    let mut last = None;
    while added.elapsed() < PATIENCE {
        // What cannot be sent yet counts as time that goes by.
        last = socket.send_to(b"there", to).err().or(last);
        if socket.recv_from(&mut buffer).is_ok() {
            return Ok(added.elapsed());
        }
    }
    Err(io::Error::other(format!(
        "no answer from {to} within {} s of ADD; last error: {last:?}",
        PATIENCE.as_secs()
    )))
}
