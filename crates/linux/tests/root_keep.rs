//! What tells of foreign edits, and what puts them right. Needs root, `ip` and `nft`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

mod common;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use common::{interface, new_netns, on_new_host, sh, snapshot, wait_for};
use vpcnet_linux::netlink::{MAIN, Socket};
use vpcnet_linux::nft::{Randomize, SnatConfig, SnatTable, TableWatch};
use vpcnet_linux::pod::{self, Kept, PodInterface};
use vpcnet_linux::watch::{Event, Group, Watch};

fn kept(one: &PodInterface) -> Kept {
    Kept {
        address: one.address,
        table: one.table,
        host_name: one.host_name.clone(),
    }
}

/// Runs a command and returns its process id.
fn pid_of(command: &str) -> u32 {
    let mut words = command.split_whitespace();
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success(), "{command}");
    child.id()
}

#[test]
fn what_is_missing_of_a_pod_is_put_back_and_nothing_else_is_touched() {
    on_new_host(|host| {
        let inside = new_netns();
        let pod = interface(5, 3);
        pod::add(host, &inside, std::slice::from_ref(&pod)).unwrap();
        let whole = snapshot(host);
        assert_eq!(pod::keep(host, &kept(&pod)).unwrap(), [], "nothing is missing");
        let address = pod.address;
        for harm in [
            format!("ip rule delete to {address} priority 512"),
            format!("ip rule delete from {address} priority 1536"),
            format!("ip route delete {address}/32"),
        ] {
            sh(&harm);
            assert_ne!(snapshot(host), whole, "{harm}");
            assert_eq!(pod::keep(host, &kept(&pod)).unwrap().len(), 1, "{harm}");
            assert_eq!(snapshot(host), whole, "{harm}");
        }
        assert!(!pod::is_led_astray(host, &kept(&pod)).unwrap());
        sh(&format!("ip route replace {address}/32 dev lo"));
        assert!(pod::is_led_astray(host, &kept(&pod)).unwrap());
        assert_eq!(pod::keep(host, &kept(&pod)).unwrap().len(), 1);
        assert_eq!(snapshot(host), whole, "it leads to the pod again");
        sh(&format!("ip route delete {address}/32"));
        sh(&format!("ip rule delete to {address} priority 512"));
        sh(&format!("ip rule delete from {address} priority 1536"));
        assert_eq!(pod::keep(host, &kept(&pod)).unwrap().len(), 3);
        assert_eq!(snapshot(host), whole);
    });
}

#[test]
fn a_pod_on_the_primary_interface_gets_no_rule_for_its_way_out() {
    on_new_host(|host| {
        let inside = new_netns();
        let pod = interface(6, MAIN);
        pod::add(host, &inside, std::slice::from_ref(&pod)).unwrap();
        let whole = snapshot(host);
        sh(&format!("ip rule delete to {} priority 512", pod.address));
        pod::keep(host, &kept(&pod)).unwrap();
        assert_eq!(snapshot(host), whole);
    });
}

#[test]
fn for_a_pod_without_its_link_nothing_is_made() {
    on_new_host(|host| {
        let before = snapshot(host);
        assert_eq!(pod::keep(host, &kept(&interface(5, 3))).unwrap(), []);
        assert!(!pod::is_led_astray(host, &kept(&interface(5, 3))).unwrap());
        assert_eq!(snapshot(host), before);
        // Not up yet: the kernel would refuse its route.
        let name = interface(5, 3).host_name;
        sh(&format!("ip link add {name} type veth peer name other"));
        let before = snapshot(host);
        assert_eq!(pod::keep(host, &kept(&interface(5, 3))).unwrap(), []);
        assert_eq!(snapshot(host), before);
    });
}

#[test]
fn a_deleted_rule_is_told_with_the_process_that_deleted_it() {
    on_new_host(|_| {
        sh("ip rule add from 10.0.0.5 lookup 3 priority 1536");
        let mut watch = Watch::open(&[Group::Rule4]).unwrap();
        let pid = pid_of("ip rule delete from 10.0.0.5 lookup 3 priority 1536");
        let notice = wait_for("the rule to be told gone", || watch.next_event().unwrap());
        assert!(
            matches!(&notice.event, Event::Rule { rule, gone: true } if rule.priority == 1536),
            "{notice:?}"
        );
        assert_eq!(notice.port, pid);
    });
}

#[test]
fn a_changed_parameter_is_told_with_its_link() {
    on_new_host(|_| {
        sh("ip link add eth9 type veth peer name other");
        let index = Socket::open().unwrap().index_of("eth9").unwrap();
        let mut watch = Watch::open(&[Group::Parameters4]).unwrap();
        // /proc/sys/net shows the namespace of the thread that asks.
        let write =
            |key: &str, value: &str| std::fs::write(format!("/proc/sys/net/ipv4/{key}"), value).unwrap();
        write("conf/eth9/rp_filter", "1");
        let mut told = |wanted| {
            wait_for("the parameter's notice", || {
                let notice = watch.next_event().unwrap()?;
                (notice.event == Event::Parameter { index: wanted }).then_some(())
            });
        };
        told(index);
        write("ip_forward", "1");
        told(None);
    });
}

#[test]
fn a_flushed_table_is_told_with_the_process_that_flushed_it() {
    on_new_host(|_| {
        let config = SnatConfig {
            primary_ip: Ipv4Addr::new(10, 0, 0, 10),
            primary_link: "eth0".to_owned(),
            vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            exclude: Vec::new(),
            external_snat: false,
            randomize: Randomize::Prng,
            node_port: true,
            mark: 0x80,
            veth_prefix: "eni".to_owned(),
            earlier: vpcnet_linux::earlier::Earlier::default(),
        };
        SnatTable::default().ensure(&config).unwrap();
        let mut watch = TableWatch::open().unwrap();
        sh("nft add table ip another");
        sh("nft add table ip6 vpcnet");
        let pid = pid_of("nft flush ruleset");
        let touched = wait_for("the flush to be told", || watch.next_event().unwrap());
        let by = touched.by.unwrap();
        assert_eq!((by.pid, by.name.as_str()), (pid, "nft"), "and not the two before");
        assert_eq!(watch.next_event().unwrap(), None);
    });
}
