//! Subnet discovery by tags, row by row.

use std::collections::BTreeMap;

use vpcnet_ipam::{SubnetId, Subnets, ZoneSubnet};

fn subnet(free: u32, tags: &[(&str, &str)]) -> ZoneSubnet {
    ZoneSubnet {
        free_addresses: free,
        tags: tags
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

fn zone(subnets: Vec<(&str, ZoneSubnet)>) -> BTreeMap<SubnetId, ZoneSubnet> {
    subnets
        .into_iter()
        .map(|(id, s)| (SubnetId::from(id), s))
        .collect()
}

fn discovered(subnets: Vec<(&str, ZoneSubnet)>, cluster: Option<&str>) -> (Vec<String>, Vec<String>) {
    let found = Subnets::discovered(&zone(subnets), &SubnetId::from("primary"), cluster);
    let text = |ids: Vec<&SubnetId>| ids.into_iter().map(|i| i.0.clone()).collect::<Vec<_>>();
    (
        text(found.candidates.iter().collect()),
        text(found.excluded.iter().collect()),
    )
}

const ROLE: &str = "kubernetes.io/role/cni";
const OURS: &str = "cni.networking.k8s.aws/cluster/blue";
const OTHERS: &str = "cni.networking.k8s.aws/cluster/green";

/// Where a subnet with these tags ends up, as the primary interface's and as another one.
fn fate(tags: &[(&str, &str)], cluster: Option<&str>) -> [&'static str; 2] {
    ["primary", "other"].map(|id| {
        let (used, excluded) = discovered(vec![(id, subnet(5, tags))], cluster);
        match (used.len(), excluded.len()) {
            (1, 0) => "used",
            (0, 1) => "excluded",
            (0, 0) => "passed over",
            _ => "both",
        }
    })
}

#[test]
fn tags_say_what_a_subnet_is_for() {
    let blue = Some("blue");
    assert_eq!(fate(&[], blue), ["used", "passed over"]);
    assert_eq!(fate(&[(ROLE, "")], blue), ["used", "passed over"]);
    assert_eq!(fate(&[(ROLE, "0")], blue), ["excluded", "excluded"]);
    assert_eq!(fate(&[(ROLE, "1")], blue), ["used", "used"]);
    assert_eq!(fate(&[(ROLE, "yes")], blue), ["used", "used"]);
}

#[test]
fn a_subnet_of_another_cluster_is_excluded_and_one_of_several_is_used() {
    let blue = Some("blue");
    assert_eq!(
        fate(&[(ROLE, "1"), (OTHERS, "shared")], blue),
        ["excluded", "excluded"]
    );
    assert_eq!(
        fate(&[(ROLE, "1"), (OTHERS, ""), (OURS, "")], blue),
        ["used", "used"]
    );
    // Whose cluster it is counts only where the role is said, and only if we know ours.
    assert_eq!(fate(&[(OTHERS, "")], blue), ["used", "passed over"]);
    assert_eq!(fate(&[(ROLE, "1"), (OTHERS, "")], None), ["used", "used"]);
}

#[test]
fn the_subnet_with_the_most_left_comes_first_and_equals_keep_their_order() {
    let (used, excluded) = discovered(
        vec![
            ("d", subnet(9, &[(ROLE, "1")])),
            ("primary", subnet(3, &[])),
            ("b", subnet(9, &[(ROLE, "1")])),
            ("c", subnet(40, &[(ROLE, "0")])),
        ],
        None,
    );
    assert_eq!(used, ["b", "d", "primary"]);
    assert_eq!(excluded, ["c"]);
}
