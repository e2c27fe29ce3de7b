use std::net::Ipv4Addr;

use vpcnet_linux::Mac;
use vpcnet_linux::netlink::{Address, Device, Rule, Scope};
use vpcnet_linux::watch::LinkEvent;

use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));

struct Node;

impl Ours for Node {
    fn has_mac(&self, mac: Mac) -> bool {
        mac == MAC
    }
    fn has_table(&self, table: u32) -> bool {
        table == 2
    }
    fn primary(&self) -> Option<u32> {
        Some(7)
    }
}

fn places(event: &Event) -> Vec<Place> {
    place_of(event, &Node)
}

fn link(mac: Mac) -> Event {
    Event::Link(LinkEvent {
        index: 3,
        name: "x".into(),
        mac: Some(mac),
        mtu: 9001,
        up: true,
        gone: false,
    })
}

fn route(to: &str, table: u32) -> Event {
    Event::Route {
        route: Route::on_link(to.parse().unwrap(), Device::new(3, "x"), table),
        gone: true,
    }
}

fn new_route(to: &str) -> Event {
    Event::Route {
        route: Route::on_link(to.parse().unwrap(), Device::new(3, "x"), MAIN),
        gone: false,
    }
}

fn rule(rule: Rule, gone: bool) -> Event {
    Event::Rule { rule, gone }
}

#[test]
fn link_local_addresses_that_come_with_each_pods_link_are_not_looked_at() {
    let new = |net: &str| Event::Address {
        address: Address {
            index: 9,
            net: net.parse().unwrap(),
            scope: Scope::Link,
        },
        gone: false,
    };
    assert_eq!(places(&new("fe80::5/64")), []);
    assert_eq!(places(&new("2001:db8::5/128")), [Place::Host]);
}

#[test]
fn only_what_may_be_ours_is_looked_at() {
    assert_eq!(places(&link(MAC)), [Place::Host]);
    assert_eq!(places(&link(Mac([2, 0, 0, 0, 0, 2]))), [], "a pod's veth");
    assert_eq!(places(&route("10.0.0.5/32", MAIN)), [Place::Pod(POD)]);
    assert_eq!(places(&new_route("10.0.0.5/32")), [Place::Way(POD)]);
    assert_eq!(places(&route("10.0.0.0/24", MAIN)), [], "the operating system's");
    assert_eq!(places(&route("0.0.0.0/0", 2)), [Place::Host]);
    assert_eq!(places(&route("0.0.0.0/0", 3)), [], "somebody else's table");
    assert_eq!(places(&rule(Rule::to(512, POD, MAIN), true)), [Place::Pod(POD)]);
    assert_eq!(places(&rule(Rule::from(1536, POD, 2), true)), [Place::Pod(POD)]);
    assert_eq!(
        places(&rule(Rule::from(1536, POD, 2), false)),
        [],
        "a new rule breaks none of ours"
    );
    assert_eq!(places(&rule(Rule::from(32_765, POD, 2), true)), [Place::Host]);
    for of_the_node in [1024, 1535] {
        let gone = rule(Rule::bare(of_the_node, false, Some(MAIN)), true);
        assert_eq!(places(&gone), [Place::Host], "{of_the_node}");
    }
    assert_eq!(places(&rule(Rule::bare(100, false, Some(MAIN)), true)), []);
    assert_eq!(places(&Event::Parameter { index: None }), [Place::Host]);
    assert_eq!(places(&Event::Parameter { index: Some(7) }), [Place::Host]);
    assert_eq!(
        places(&Event::Parameter { index: Some(8) }),
        [],
        "a pod's veth has some too"
    );
    assert_eq!(places(&Event::Overrun), [Place::Host, Place::AllPods]);
}

#[test]
fn edits_of_one_moment_are_one_look_and_name_the_last_known_suspect() {
    let start = Instant::now();
    let mut due = Due::default();
    due.edited(Place::Host, Some("ip".into()), start);
    due.edited(Place::Host, None, start + Duration::from_millis(2));
    due.edited(Place::Table, Some("nft".into()), start + Duration::from_millis(2));
    assert_eq!(due.next(), Some(start + GATHER));
    assert_eq!(due.take(start), None, "not yet");
    assert_eq!(due.take(start + GATHER), Some((Place::Host, Some("ip".into()))));
    assert_eq!(due.take(start + GATHER), None);
    assert_eq!(due.next(), Some(start + GATHER + Duration::from_millis(2)));
}

#[test]
fn an_edit_is_not_kept_waiting_by_a_later_look_that_is_due_anyway() {
    let start = Instant::now();
    let mut due = Due::default();
    due.again(Place::Host, start + Duration::from_secs(1));
    due.edited(Place::Host, None, start);
    assert_eq!(due.next(), Some(start + GATHER));
    due.again(Place::Host, start + Duration::from_secs(1));
    assert_eq!(due.next(), Some(start + GATHER));
}

#[test]
fn who_keeps_undoing_is_answered_at_once_five_times_and_then_ever_later() {
    let mut now = Instant::now();
    let mut due = Due::default();
    let mut waits = Vec::new();
    for _ in 0..14 {
        due.edited(Place::Table, None, now);
        let at = due.next().unwrap();
        waits.push((at - now).as_secs());
        now = at;
        due.take(now).unwrap();
        due.repaired(Place::Table, now);
    }
    assert_eq!(waits, [0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(due.contested(now), [Place::Table]);
    due.edited(Place::Host, None, now);
    assert_eq!(
        due.next(),
        Some(now + GATHER),
        "other places are looked at as ever"
    );
    now += PEACE;
    assert_eq!(due.contested(now), []);
    due.take(now);
    assert_eq!(
        due.repaired(Place::Table, now),
        None,
        "peace was kept: as at first"
    );
}
