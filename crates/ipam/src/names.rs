//! Names and numbers that the plugin, the agent and other programs derive alike.

use sha1::{Digest, Sha1};

use crate::ids::{CardIndex, DeviceIndex};

/// The kernel's main routing table.
pub const MAIN_TABLE: u32 = 254;

/// The part of a pod's host veth name that follows the prefix (`eni`): the first 11 hex digits of
/// SHA-1(`<namespace>.<pod>`). The network policy agent and older agents derive it too, so it is an interface.
#[must_use]
pub fn host_veth_suffix(namespace: &str, name: &str) -> String {
    suffix(&format!("{namespace}.{name}"))
}

/// The same for interface `index` of a multi-NIC pod; 0 is [`host_veth_suffix`].
#[must_use]
pub fn host_veth_suffix_nth(namespace: &str, name: &str, index: u32) -> String {
    if index == 0 {
        host_veth_suffix(namespace, name)
    } else {
        suffix(&format!("{namespace}.{name}.{index}"))
    }
}

fn suffix(text: &str) -> String {
    let mut hex = hex(&Sha1::digest(text.as_bytes()));
    hex.truncate(11);
    hex
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The routing table of an interface: main for the primary one, device + 1 on card 0, 10000 + 100·card + device on others.
#[must_use]
pub fn route_table(card: CardIndex, device: DeviceIndex) -> u32 {
    match (card.0, device.0) {
        (0, 0) => MAIN_TABLE,
        (0, device) => device.saturating_add(1),
        (card, device) => 10_000_u32
            .saturating_add(card.saturating_mul(100))
            .saturating_add(device),
    }
}

/// The card whose interfaces have such tables; the first for what [`route_table`] does not make.
pub(crate) fn card_of_table(table: u32) -> CardIndex {
    CardIndex(table.checked_sub(10_000).map_or(0, |rest| rest / 100))
}

/// `ClientToken` of a creation: at most 64 ASCII characters, the same for the same ingredients.
pub(crate) fn client_token(instance: &str, salt: &str, id: u64, wall_ns: i64) -> String {
    format!(
        "vpcnet-{}",
        hex(&Sha1::digest(
            format!("{instance}/{salt}/{id}/{wall_ns}").as_bytes()
        ))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn veth_suffixes_are_those_other_programs_derive() {
        assert_eq!(
            host_veth_suffix("kube-system", "coredns-57ff979f67-qqbdh"),
            "b5faff8a083"
        );
        assert_eq!(host_veth_suffix("default", "sample-pod"), "cc21c2d7785");
        assert_eq!(host_veth_suffix_nth("default", "sample-pod", 0), "cc21c2d7785");
        assert_eq!(host_veth_suffix_nth("default", "sample-pod", 1), "a0b7655f3c9");
    }

    #[test]
    fn route_tables_follow_card_and_device() {
        assert_eq!(route_table(CardIndex(0), DeviceIndex(0)), 254);
        assert_eq!(route_table(CardIndex(0), DeviceIndex(2)), 3);
        assert_eq!(route_table(CardIndex(1), DeviceIndex(0)), 10_100);
        assert_eq!(route_table(CardIndex(2), DeviceIndex(3)), 10_203);
        for (card, device) in [(0, 0), (0, 2), (1, 0), (2, 3), (31, 1)] {
            let (card, device) = (CardIndex(card), DeviceIndex(device));
            assert_eq!(card_of_table(route_table(card, device)), card);
        }
    }

    #[test]
    fn client_tokens_fit_and_differ() {
        let token = client_token("i-0123456789abcdef0", &"x".repeat(300), 7, 1);
        assert!(token.len() <= 64 && token.is_ascii(), "{token}");
        assert_ne!(token, client_token("i-0123456789abcdef0", &"x".repeat(300), 8, 1));
        assert_ne!(token, client_token("i-0123456789abcdef0", &"x".repeat(300), 7, 2));
    }
}
