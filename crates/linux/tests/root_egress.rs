//! A pod's egress link is whole or not there, and the node's table is written only when it is not as wanted. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test fails by them

mod common;

use std::net::IpAddr;

use common::{new_netns, on_new_host, sh, sh_in, snapshot};
use ipnet::IpNet;
use vpcnet_linux::egress::{self, EgressLink, Ensured, Snat};
use vpcnet_linux::netlink::{Socket, faults};
use vpcnet_linux::netns::Netns;
use vpcnet_linux::{Mac, Randomize};

const RANGES: [(&str, &str, &str, &str); 2] = [
    (
        "169.254.172.0/22",
        "169.254.172.1",
        "169.254.172.2/22",
        "10.0.0.10",
    ),
    ("fd00::ac:0/118", "fd00::ac:1", "fd00::ac:2/118", "2600:1f14::10"),
];

fn link(n: usize) -> EgressLink {
    let (_, gateway, address, _) = RANGES[n];
    EgressLink {
        host_name: "veth00000000001".into(),
        host_mac: Mac([2, 1, 0, 0, 0, 1]),
        name: "v0if0".into(),
        mac: Mac([2, 2, 0, 0, 0, 1]),
        mtu: 1500,
        address: address.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
        beside: "eth0".into(),
    }
}

fn snat(n: usize, randomize: Randomize) -> Snat {
    let (range, gateway, _, node) = RANGES[n];
    Snat {
        range: range.parse::<IpNet>().unwrap(),
        gateway: gateway.parse::<IpAddr>().unwrap(),
        node: node.parse().unwrap(),
        randomize,
    }
}

fn pod() -> Netns {
    let pod = new_netns();
    sh_in(&pod, "ip link add eth0 type veth peer name eth0p");
    sh_in(&pod, "ip link set eth0 up");
    pod
}

#[test]
fn a_refusal_of_any_message_leaves_host_and_pod_as_before() {
    for n in [0, 1] {
        on_new_host(move |host| {
            let pod = pod();
            let mut inside = Socket::open_in(&pod).unwrap();
            egress::prepare(host, n == 1).unwrap();
            let quiet = || sh("cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6");
            let before = (snapshot(host), snapshot(&mut inside), pod.within(quiet).unwrap());
            let mut refused = 0;
            for nth in 0.. {
                faults::refuse_after(Some(nth));
                let result = egress::add(host, &pod, &mut inside, &link(n));
                if faults::waiting() {
                    faults::refuse_after(None);
                    result.unwrap();
                    break;
                }
                let error = result.expect_err("the kernel refused a message");
                assert!(error.to_string().contains("EOPNOTSUPP"), "{error}");
                assert!(error.left_behind().is_empty(), "{error}");
                let after = (snapshot(host), snapshot(&mut inside), pod.within(quiet).unwrap());
                assert_eq!(after, before, "after message {nth} was refused: {error}");
                refused += 1;
            }
            assert!(
                refused >= [1 + 6 + 4, 1 + 4 + 3][n],
                "only {refused} messages were tried"
            );
            assert_eq!(egress::check(host, &pod, &link(n)).unwrap(), []);
        });
    }
}

#[test]
fn a_route_of_a_dying_pod_is_replaced_and_a_stale_link_goes() {
    on_new_host(|host| {
        sh("ip link add old type veth peer name oldp");
        sh("ip link set old up");
        sh("ip route add 169.254.172.2/32 dev old");
        sh("ip link add veth00000000001 type veth peer name other");
        let pod = pod();
        let mut inside = Socket::open_in(&pod).unwrap();
        egress::add(host, &pod, &mut inside, &link(0)).unwrap();
        assert!(sh("ip route show 169.254.172.2").contains("veth00000000001"));
        assert_eq!(host.index_of("other").unwrap(), None);
    });
}

#[test]
fn the_table_reads_in_nft_as_it_is_meant() {
    on_new_host(|_| {
        for (n, family) in [(0, "ip"), (1, "ip6")] {
            assert_eq!(
                egress::ensure_snat(&snat(n, Randomize::Prng)).unwrap(),
                Ensured::Created
            );
            let listing = sh(&format!("nft list table {family} vpcnet_egress"));
            let wanted: &[&str] = match n {
                0 => &[
                    "type nat hook postrouting priority srcnat + 10; policy accept;",
                    "ip saddr 169.254.172.0/22 ip saddr != 169.254.172.1 ip daddr != 224.0.0.0/4 snat to 10.0.0.10 fully-random",
                    "type filter hook forward priority filter; policy accept;",
                    "ct state new ip daddr 169.254.172.0/22 reject",
                ],
                _ => &[
                    "ip6 saddr fd00::ac:0/118 ip6 saddr != fd00::ac:1 ip6 daddr != ff00::/8 snat to 2600:1f14::10 fully-random",
                    "ct state new ip6 daddr fd00::ac:0/118 reject",
                ],
            };
            for text in wanted {
                assert!(listing.contains(text), "no {text:?} in {listing}");
            }
        }
    });
}

#[test]
fn the_table_is_written_only_when_it_is_not_as_wanted() {
    on_new_host(|_| {
        sh("nft add table ip bystander");
        for n in [0, 1] {
            for randomize in [Randomize::Prng, Randomize::Hashrandom, Randomize::None] {
                let wanted = snat(n, randomize);
                assert_ne!(egress::ensure_snat(&wanted).unwrap(), Ensured::Unchanged);
                assert_eq!(
                    egress::ensure_snat(&wanted).unwrap(),
                    Ensured::Unchanged,
                    "{wanted:?}"
                );
                assert_eq!(egress::check_snat(&wanted).unwrap(), None);
                assert_eq!(egress::observe_snat(n == 1).unwrap(), Some(wanted));
            }
            let other = Snat {
                node: [IpAddr::from([10, 0, 0, 11]), "2600:1f14::11".parse().unwrap()][n],
                ..snat(n, Randomize::None)
            };
            assert!(matches!(
                egress::ensure_snat(&other).unwrap(),
                Ensured::Replaced(_)
            ));
            assert!(egress::is_there(n == 1).unwrap());
            let family = ["ip", "ip6"][n];
            sh(&format!("nft add rule {family} vpcnet_egress source_nat counter"));
            assert_eq!(egress::observe_snat(n == 1).unwrap(), None, "not whole");
            egress::remove_snat(n == 1).unwrap();
            egress::remove_snat(n == 1).unwrap();
            assert_eq!(egress::observe_snat(n == 1).unwrap(), None);
            assert!(!egress::is_there(n == 1).unwrap());
        }
        assert!(sh("nft list tables").contains("bystander"));
    });
}

#[test]
fn many_at_once_write_one_table() {
    on_new_host(|_| {
        let here = std::sync::Arc::new(Netns::current().unwrap());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let here = here.clone();
                std::thread::spawn(move || {
                    here.enter().unwrap();
                    egress::ensure_snat(&snat(0, Randomize::Prng)).unwrap()
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(egress::check_snat(&snat(0, Randomize::Prng)).unwrap(), None);
    });
}
