//! Throw-away network namespaces. A namespace lives as long as a thread or descriptor in it, so there is nothing to clean
//! up, whatever way a test ends.
#![allow(dead_code)] // each test binary uses its part

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use vpcnet_linux::Mac;
use vpcnet_linux::netlink::{Device, PROTO_KERNEL, Request, RouteFilter, Socket};
use vpcnet_linux::netns::Netns;
use vpcnet_linux::pod::PodInterface;

/// Ten times what any step here takes; a test that meets it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Puts the calling thread into a new network namespace with loopback up.
fn unshare() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes network namespaces: run it as root"
    );
    // SAFETY: the flag concerns the calling thread alone and shares no memory.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    let up = Request::SetLink {
        device: Device::new(1, "lo"),
        up: Some(true),
        mtu: None,
    };
    Socket::open().unwrap().run_one(up).unwrap();
}

/// Runs the test in a thread with a host of its own.
pub(crate) fn on_new_host(test: impl FnOnce(&mut Socket) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare();
        test(&mut Socket::open().unwrap());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A new network namespace, empty but for loopback.
pub(crate) fn new_netns() -> Netns {
    let made = std::thread::spawn(|| {
        unshare();
        Netns::current().unwrap()
    });
    made.join().unwrap()
}

/// Runs a command in the namespace of the calling thread and gives its output.
pub(crate) fn sh(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// As [`sh`], inside another namespace.
pub(crate) fn sh_in(netns: &Netns, command: &str) -> String {
    netns.within(|| sh(command)).unwrap()
}

/// Waits for a condition.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        std::thread::yield_now();
    }
}

/// Interface number `n` (0 to 255) of a pod, with table `table` on the host.
pub(crate) fn interface(n: u8, table: u32) -> PodInterface {
    PodInterface {
        host_name: format!("eni{n:011x}"),
        host_mac: Mac([2, 1, 0, 0, 0, n]),
        name: "eth0".into(),
        mac: Mac([2, 2, 0, 0, 0, n]),
        mtu: 9001,
        address: IpAddr::from([10, 0, 1, n]),
        gateway_index: 1,
        table,
    }
}

/// All that the namespace's rtnetlink shows, without link indices, which never come back, and without what the kernel adds
/// by itself a while later: IPv6 link-local addresses and the neighbours it learns.
pub(crate) fn snapshot(socket: &mut Socket) -> BTreeSet<String> {
    let links = socket.links().unwrap();
    let name = |index: u32| {
        links
            .iter()
            .find(|l| l.index == index)
            .map_or("?", |l| l.name.as_str())
            .to_owned()
    };
    let mut all = BTreeSet::new();
    for link in &links {
        all.insert(format!(
            "link {} {:?} mtu {} up {} {:?}",
            link.name, link.mac, link.mtu, link.up, link.kind
        ));
    }
    let link_local: IpNet = "fe80::/10".parse().unwrap();
    for address in socket
        .addresses(None)
        .unwrap()
        .iter()
        .filter(|a| !link_local.contains(&a.net))
    {
        all.insert(format!("address {} dev {}", address.net, name(address.index)));
    }
    for v6 in [false, true] {
        let routes = socket.routes(v6, RouteFilter::default()).unwrap();
        for mut route in routes.into_iter().filter(|r| r.protocol != PROTO_KERNEL) {
            if let Some(device) = &mut route.device {
                *device = Device::named(name(device.index));
            }
            all.insert(format!("route {route:?}"));
        }
        for (n, rule) in socket.rules(v6).unwrap().into_iter().enumerate() {
            all.insert(format!("rule {n} {rule:?}"));
        }
    }
    for link in &links {
        for neighbour in socket
            .neighbours(link.index)
            .unwrap()
            .iter()
            .filter(|n| n.permanent)
        {
            all.insert(format!(
                "neighbour {} {} dev {}",
                neighbour.address, neighbour.mac, link.name
            ));
        }
    }
    all
}
