//! The VPC's rules for IPv6, as [`super::rules`] has them for IPv4. There is no translation: an interface's addresses are the same
//! outside. A public subnet's gateway lets both sides begin; a private subnet's is egress-only, which lets only the inside begin.

use super::names::{INTERNET_LINK, link_name};
use super::rules::{Family, Rendered, counters, drop_chains, quoted, security_groups, transition};
use crate::model::{FabricView, SubnetRoute};

/// What the rules should be for that view.
pub(crate) fn render(view: &FabricView) -> Rendered {
    let mut r = Rendered::default();
    let links = |wanted: &dyn Fn(&crate::model::FabricInterface) -> bool| -> Vec<String> {
        let wanted = view.interfaces.iter().filter(|i| wanted(i));
        wanted.map(|i| quoted(&link_name(&i.eni))).collect()
    };
    r.set("enis", "set", "type ifname;", links(&|_| true));
    r.set("checked", "set", "type ifname;", links(&|i| i.source_dest_check));
    let nets = "type ipv6_addr; flags interval;";
    r.set("vpc", "set", nets, view.ipv6.iter().map(ToString::to_string));
    let private = view.subnets.iter().filter(|s| s.route == SubnetRoute::Private);
    let private = private.filter_map(|s| s.ipv6).map(|net| net.to_string());
    r.set("egress-only", "set", nets, private);
    security_groups(Family::V6, view, &mut r);
    r
}

/// The transaction that makes the table as `wanted` says, from nothing.
pub(crate) fn initial(wanted: &Rendered) -> String {
    let counters = counters();
    let drops = drop_chains(&[
        "source-check",
        "no-owner",
        "security-group-in",
        "security-group-out",
        "no-public-address",
        "no-transit",
        "multicast",
        "no-service",
        "egress-only",
    ]);
    let sets = transition(Family::V6, &Rendered::default(), wanted);
    format!("table ip6 vpc {{\n{counters}{drops}}}\n{sets}{}", hooks())
}

/// The chains every packet passes. Neighbour discovery is the link's own business, between a node and the router: it is answered, and
/// never forwarded. Hosts tell which groups they listen to, for which nobody in a VPC asks: that is dropped without a word.
fn hooks() -> String {
    format!(
        r#"table ip6 vpc {{
  chain source {{
    type filter hook prerouting priority raw; policy accept;
    iifname @enis icmpv6 type {{ nd-router-solicit, mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }} drop
    iifname @enis icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 hoplimit 255 accept
    iifname @enis ip6 daddr ff00::/8 goto drop-multicast
    iifname @enis ip6 saddr fe80::/10 ip6 daddr fe80::/10 accept
    iifname @checked fib saddr . iif oif missing goto drop-source-check
  }}
  chain deliver {{
    type filter hook forward priority filter; policy drop;
    ip6 daddr @vpc oifname != @enis goto drop-no-owner
    ct state established,related accept
    iifname "{INTERNET_LINK}" ip6 daddr @egress-only goto drop-egress-only
    iifname "{INTERNET_LINK}" oifname != @enis goto drop-no-transit
    oifname "{INTERNET_LINK}" ip6 saddr != @vpc goto drop-no-public-address
    oifname "{INTERNET_LINK}" ct state invalid goto drop-no-public-address
    iifname vmap @groups-out
    oifname vmap @groups-in
    accept
  }}
  chain services {{
    type filter hook input priority filter; policy accept;
    iifname "lo" accept
    ct state established,related accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, echo-request }} accept
    goto drop-no-service
  }}
}}
"#
    )
}

/// The internet's own table: sources that mean something in one place only end here.
pub(crate) fn internet_frame() -> String {
    let counters = counters();
    let drops = drop_chains(&["private-source"]);
    format!(
        r"table ip6 vpc {{
{counters}{drops}
  chain source {{
    type filter hook prerouting priority raw; policy accept;
    ip6 saddr fc00::/7 goto drop-private-source
  }}
}}
"
    )
}
