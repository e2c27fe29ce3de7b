//! The floor is only a floor if it makes the same changes to the kernel as the plugin's own code. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

#[path = "../../../crates/linux/tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, id};

use common::{interface, new_netns, on_new_host, snapshot};
use vpcnet_linux::Mac;
use vpcnet_linux::netlink::{MAIN, Socket};
use vpcnet_linux::netns::Netns;
use vpcnet_linux::pod::{self, Gone, PodInterface};
use vpcnet_linux::sysctl::Tree;

/// What the floor's program gives a pod with this address.
fn like_the_floor(table: u32) -> PodInterface {
    let one = interface(5, table);
    PodInterface {
        host_mac: Mac([0x0a, 0x58, 10, 0, 1, 5]),
        mac: Mac([0x0e, 0x58, 10, 0, 1, 5]),
        ..one
    }
}

fn floor(verb: &str, pod: &Netns, one: &PodInterface) {
    let path = format!("/proc/{}/fd/{}", id(), pod.as_fd().as_raw_fd());
    let output = Command::new(env!("CARGO_BIN_EXE_vpcnet-floor"))
        .args([verb, &path, &one.host_name, &one.address.to_string()])
        .args(["--table", &one.table.to_string()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{verb}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn host_end(one: &PodInterface) -> Vec<String> {
    let read = |parameter| {
        Tree::default()
            .read(&format!("net/ipv6/conf/{}/{parameter}", one.host_name))
            .unwrap()
    };
    ["accept_ra", "accept_redirects", "forwarding"].map(read).to_vec()
}

/// Host and pod after ADD, host after DEL.
type Seen = (BTreeSet<String>, BTreeSet<String>, Vec<String>, BTreeSet<String>);

fn seen(
    table: u32,
    add: fn(&mut Socket, &Netns, &PodInterface),
    del: fn(&mut Socket, &Netns, &PodInterface),
) -> Seen {
    let (send, receive) = std::sync::mpsc::channel();
    on_new_host(move |host| {
        let (pod, one) = (new_netns(), like_the_floor(table));
        add(host, &pod, &one);
        let mut inside = Socket::open_in(&pod).unwrap();
        let added = (snapshot(host), snapshot(&mut inside), host_end(&one));
        del(host, &pod, &one);
        send.send((added.0, added.1, added.2, snapshot(host))).unwrap();
    });
    receive.recv().unwrap()
}

#[test]
fn the_floor_changes_what_the_plugin_changes() {
    for table in [MAIN, 2, 10_102] {
        let floors = seen(
            table,
            |_, pod, one| floor("add", pod, one),
            |_, pod, one| floor("del", pod, one),
        );
        let plugins = seen(
            table,
            |host, pod, one| {
                pod::add(host, pod, std::slice::from_ref(one)).unwrap();
            },
            |host, _, one| {
                let gone = Gone {
                    address: one.address,
                    table: one.table,
                };
                assert!(pod::del(host, &[gone], &[&one.host_name]).is_empty());
            },
        );
        assert_eq!(floors, plugins, "table {table}");
    }
}
