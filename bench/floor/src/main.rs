//! `vpcnet-floor`: what a CNI ADD or DEL costs at the least.
//!
//! It makes the same changes to the kernel as `aws-cni` does for one IPv4 pod (veth pair, addresses, routes,
//! neighbour, rules, sysctls of the host end), with raw netlink and no agent, no JSON, no validation. The benchmark
//! runs it beside the plugin, so that "1.5 times the floor" means something on any machine.
//!
//! ```text
//! vpcnet-floor add NETNS HOST_VETH IPV4 [--table N]
//! vpcnet-floor del NETNS HOST_VETH IPV4 [--table N]
//! ```

mod kernel;
mod message;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use kernel::Socket;
use message::{Batch, CREATE_NEW, CREATE_OR_REPLACE};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const MAIN: u32 = 254;
const GATEWAY: [u8; 4] = [169, 254, 1, 1];
const MTU: u32 = 9001;

struct Pod {
    netns: String,
    veth: String,
    address: [u8; 4],
    table: u32,
}

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("add") => parse().and_then(|pod| add(&pod)),
        Some("del") => parse().and_then(|pod| del(&pod)),
        _ => Err(usage()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vpcnet-floor: {e}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> io::Error {
    io::Error::other("usage: vpcnet-floor add|del NETNS HOST_VETH IPV4 [--table N]")
}

fn parse() -> io::Result<Pod> {
    let mut args = std::env::args().skip(2);
    let (Some(netns), Some(veth), Some(address)) = (args.next(), args.next(), args.next()) else {
        return Err(usage());
    };
    let address: Ipv4Addr = address
        .parse()
        .map_err(|e| io::Error::other(format!("IPV4 `{address}`: {e}")))?;
    let table = match (args.next().as_deref(), args.next()) {
        (None, _) => MAIN,
        (Some("--table"), Some(n)) => n
            .parse()
            .map_err(|e| io::Error::other(format!("--table `{n}`: {e}")))?,
        _ => return Err(usage()),
    };
    Ok(Pod {
        netns,
        veth,
        address: address.octets(),
        table,
    })
}

fn add(pod: &Pod) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let here = File::open("/proc/thread-self/ns/net")?;
    let there = File::open(&pod.netns)?;
    let [a, b, c, d] = pod.address;
    let (host_mac, pod_mac) = ([0x0a, 0x58, a, b, c, d], [0x0e, 0x58, a, b, c, d]);

    let host = Socket::open()?;
    let mut batch = Batch::new();
    veth(
        &mut batch,
        &pod.veth,
        there.as_raw_fd() as u32,
        &host_mac,
        &pod_mac,
    );
    host.run(&batch, &[])?;
    let host_index = kernel::index_of(&pod.veth)?;
    for (name, value) in [("accept_ra", "0"), ("accept_redirects", "1"), ("forwarding", "0")] {
        let file = format!("/proc/sys/net/ipv6/conf/{}/{name}", pod.veth);
        // As the plugin does: a write of this one takes the lock of all network changes.
        if name == "forwarding" && std::fs::read_to_string(&file).is_ok_and(|now| now.trim_end() == value) {
            continue;
        }
        match std::fs::write(file, value) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }

    kernel::enter(&there)?;
    let inside = Socket::open();
    let index = kernel::index_of("eth0");
    kernel::enter(&here)?;
    let (inside, index) = (inside?, index?);
    let mut batch = Batch::new();
    link_up(&mut batch, index);
    address(&mut batch, index, pod.address);
    route(&mut batch, RTM_NEWROUTE, Some(GATEWAY), None, index);
    route(&mut batch, RTM_NEWROUTE, None, Some(GATEWAY), index);
    neighbour(&mut batch, index, GATEWAY, &host_mac);
    inside.run(&batch, &[])?;

    let mut batch = Batch::new();
    route(&mut batch, RTM_NEWROUTE, Some(pod.address), None, host_index);
    rules(&mut batch, RTM_NEWRULE, CREATE_NEW, pod);
    host.run(&batch, &[libc::EEXIST])
}

fn del(pod: &Pod) -> io::Result<()> {
    let host = Socket::open()?;
    let mut batch = Batch::new();
    rules(&mut batch, RTM_DELRULE, 0, pod);
    route(&mut batch, RTM_DELROUTE, Some(pod.address), None, 0);
    host.run(&batch, &[libc::ENOENT, libc::ESRCH])
}

fn veth(batch: &mut Batch, host_name: &str, pod_ns: u32, host_mac: &[u8; 6], pod_mac: &[u8; 6]) {
    const ADDRESS: u16 = 1;
    const NAME: u16 = 3;
    const MTU_OF: u16 = 4;
    const QUEUE_LENGTH: u16 = 13;
    const NS_FD: u16 = 28;
    batch.begin(RTM_NEWLINK, CREATE_NEW, &link_header(0, true));
    batch.name(NAME, host_name);
    batch.number(MTU_OF, MTU);
    batch.attribute(ADDRESS, host_mac);
    batch.number(QUEUE_LENGTH, 0);
    let info = batch.open(18);
    batch.attribute(1, b"veth");
    let data = batch.open(2);
    let peer = batch.open(1);
    batch.raw(&link_header(0, false));
    batch.name(NAME, "eth0");
    batch.number(MTU_OF, MTU);
    batch.attribute(ADDRESS, pod_mac);
    batch.number(QUEUE_LENGTH, 0);
    batch.number(NS_FD, pod_ns);
    batch.close(peer);
    batch.close(data);
    batch.close(info);
    batch.end();
}

/// `struct ifinfomsg`
fn link_header(index: u32, up: bool) -> [u8; 16] {
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    let [f0, f1, f2, f3] = u32::from(up).to_ne_bytes();
    [0, 0, 0, 0, i0, i1, i2, i3, f0, f1, f2, f3, f0, f1, f2, f3]
}

fn link_up(batch: &mut Batch, index: u32) {
    batch.begin(RTM_NEWLINK, 0, &link_header(index, true));
    batch.end();
}

fn address(batch: &mut Batch, index: u32, ip: [u8; 4]) {
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    batch.begin(
        RTM_NEWADDR,
        CREATE_NEW,
        &[libc::AF_INET as u8, 32, 0, 0, i0, i1, i2, i3],
    );
    batch.attribute(2, &ip);
    batch.attribute(1, &ip);
    batch.end();
}

/// A route in `main`: to a /32 (`to`) on the link, or the default by `via`.
fn route(batch: &mut Batch, kind: u16, to: Option<[u8; 4]>, via: Option<[u8; 4]>, index: u32) {
    const PROTO_BOOT: u8 = 3;
    const ONLINK: u8 = 4;
    let (length, scope, onlink) = match via {
        None => (32, 253, 0),
        Some(_) => (0, 0, ONLINK),
    };
    let flags = if kind == RTM_NEWROUTE {
        CREATE_OR_REPLACE
    } else {
        0
    };
    let header = [
        libc::AF_INET as u8,
        length,
        0,
        0,
        MAIN as u8,
        PROTO_BOOT,
        scope,
        1,
    ];
    batch.begin(kind, flags, &header);
    batch.raw(&u32::from(onlink).to_ne_bytes());
    if let Some(to) = to {
        batch.attribute(1, &to);
    }
    if let Some(via) = via {
        batch.attribute(5, &via);
    }
    if index != 0 {
        batch.number(4, index);
    }
    batch.end();
}

fn neighbour(batch: &mut Batch, index: u32, ip: [u8; 4], mac: &[u8; 6]) {
    const PERMANENT: u8 = 0x80;
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    let header = [libc::AF_INET as u8, 0, 0, 0, i0, i1, i2, i3, PERMANENT, 0, 0, 0];
    batch.begin(RTM_NEWNEIGH, CREATE_OR_REPLACE, &header);
    batch.attribute(1, &ip);
    batch.attribute(2, mac);
    batch.end();
}

fn rules(batch: &mut Batch, kind: u16, flags: u16, pod: &Pod) {
    const TO: u16 = 1;
    const FROM: u16 = 2;
    rule(batch, kind, flags, TO, pod.address, 512, MAIN);
    if pod.table != MAIN {
        rule(batch, kind, flags, FROM, pod.address, 1536, pod.table);
    }
}

fn rule(batch: &mut Batch, kind: u16, flags: u16, selector: u16, ip: [u8; 4], priority: u32, table: u32) {
    const TO_TABLE: u8 = 1;
    let (to, from) = if selector == 1 { (32, 0) } else { (0, 32) };
    let short_table = u8::try_from(table).unwrap_or(0);
    batch.begin(
        kind,
        flags,
        &[
            libc::AF_INET as u8,
            to,
            from,
            0,
            short_table,
            0,
            0,
            TO_TABLE,
            0,
            0,
            0,
            0,
        ],
    );
    batch.attribute(selector, &ip);
    batch.number(6, priority);
    batch.number(15, table);
    batch.end();
}
