//! Everything that can be known to be wrong before the first change.

use std::net::IpAddr;

use super::{PodError, PodInterface};

/// `IFNAMSIZ` less its NUL.
const NAME_MAX: usize = 15;
/// The `local` routing table.
const LOCAL: u32 = 255;

/// Refuses what the kernel would refuse later, and what it would take but must not stand.
pub(super) fn interfaces(interfaces: &[PodInterface]) -> Result<(), PodError> {
    if interfaces.is_empty() {
        return Err(invalid("interfaces", "", "a pod needs at least one"));
    }
    for (i, one) in interfaces.iter().enumerate() {
        name("host interface name", &one.host_name)?;
        name("interface name", &one.name)?;
        mtu(one)?;
        address(one.address)?;
        for (field, mac) in [("host MAC", one.host_mac), ("MAC", one.mac)] {
            if !mac.is_assignable() {
                return Err(invalid(field, mac, "a unicast address other than zero is wanted"));
            }
        }
        if one.host_mac == one.mac {
            return Err(invalid("MAC", one.mac, "both ends of the pair would have it"));
        }
        if !(1..=254).contains(&one.gateway_index) {
            return Err(invalid("gateway index", one.gateway_index, "1 to 254 is wanted"));
        }
        if one.table == LOCAL {
            return Err(invalid(
                "route table",
                one.table,
                "the kernel keeps its local addresses there",
            ));
        }
        for other in interfaces.get(i + 1..).unwrap_or_default() {
            distinct("host interface name", &one.host_name, &other.host_name)?;
            distinct("interface name", &one.name, &other.name)?;
            distinct("address", &one.address, &other.address)?;
            distinct("gateway index", &one.gateway_index, &other.gateway_index)?;
        }
    }
    Ok(())
}

fn invalid(field: &'static str, value: impl ToString, reason: &'static str) -> PodError {
    PodError::Invalid {
        field,
        value: value.to_string(),
        reason,
    }
}

fn distinct<T: PartialEq + ToString>(field: &'static str, one: &T, other: &T) -> Result<(), PodError> {
    if one == other {
        Err(invalid(
            field,
            one.to_string(),
            "two interfaces of the pod would have it",
        ))
    } else {
        Ok(())
    }
}

/// The kernel's `dev_valid_name`, and without `%`, which it takes for a pattern to be numbered.
fn name(field: &'static str, name: &str) -> Result<(), PodError> {
    let refuse = |reason| Err(invalid(field, name, reason));
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > NAME_MAX {
        return refuse("it is longer than 15 bytes");
    }
    if name == "." || name == ".." {
        return refuse("it would be a directory's name in /sys");
    }
    if name
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%'))
    {
        return refuse("blanks, control characters, / : and % are not allowed");
    }
    Ok(())
}

fn mtu(one: &PodInterface) -> Result<(), PodError> {
    // RFC 791 and RFC 8200: the least every link must carry.
    let least = if one.address.is_ipv6() { 1280 } else { 68 };
    if (least..=65_535).contains(&one.mtu) {
        return Ok(());
    }
    Err(invalid("MTU", one.mtu, "68 (for IPv6 1280) to 65535 is wanted"))
}

fn address(address: IpAddr) -> Result<(), PodError> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local {
        return Err(invalid(
            "address",
            address,
            "a pod's address must be a routable unicast address",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;

    fn good() -> PodInterface {
        PodInterface {
            host_name: "enicc21c2d7785".into(),
            host_mac: Mac([2, 0, 0, 0, 0, 1]),
            name: "eth0".into(),
            mac: Mac([2, 0, 0, 0, 0, 2]),
            mtu: 9001,
            address: "10.0.1.5".parse().unwrap(),
            gateway_index: 1,
            table: 254,
        }
    }

    fn field_of(one: PodInterface) -> Option<&'static str> {
        match interfaces(&[one]) {
            Err(PodError::Invalid { field, .. }) => Some(field),
            Err(other) => panic!("{other}"),
            Ok(()) => None,
        }
    }

    #[test]
    fn a_good_interface_passes() {
        assert_eq!(field_of(good()), None);
        let v6 = PodInterface {
            address: "2001:db8::5".parse().unwrap(),
            mtu: 1280,
            ..good()
        };
        assert_eq!(field_of(v6), None);
    }

    #[test]
    fn names_the_kernel_would_refuse_or_change_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "a:b",
            "eth%d",
            "a\tb",
            "a\0b",
            "sixteen-bytes-xx",
        ] {
            assert_eq!(
                field_of(PodInterface {
                    name: bad.into(),
                    ..good()
                }),
                Some("interface name"),
                "{bad:?}"
            );
            assert_eq!(
                field_of(PodInterface {
                    host_name: bad.into(),
                    ..good()
                }),
                Some("host interface name"),
                "{bad:?}"
            );
        }
        assert_eq!(
            field_of(PodInterface {
                name: "fifteen-bytes-x".into(),
                ..good()
            }),
            None
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for mtu in [0, 67, 65_536] {
            assert_eq!(field_of(PodInterface { mtu, ..good() }), Some("MTU"));
        }
        let v6 = PodInterface {
            address: "2001:db8::5".parse().unwrap(),
            mtu: 1279,
            ..good()
        };
        assert_eq!(field_of(v6), Some("MTU"));
        for gateway_index in [0, 255] {
            assert_eq!(
                field_of(PodInterface {
                    gateway_index,
                    ..good()
                }),
                Some("gateway index")
            );
        }
        assert_eq!(
            field_of(PodInterface { table: 255, ..good() }),
            Some("route table")
        );
    }

    #[test]
    fn addresses_that_are_no_pods_are_refused() {
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.1.1",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
        ] {
            assert_eq!(
                field_of(PodInterface {
                    address: bad.parse().unwrap(),
                    ..good()
                }),
                Some("address"),
                "{bad}"
            );
        }
    }

    #[test]
    fn macs_must_be_unicast_and_differ() {
        assert_eq!(
            field_of(PodInterface {
                mac: Mac([3, 0, 0, 0, 0, 2]),
                ..good()
            }),
            Some("MAC")
        );
        assert_eq!(
            field_of(PodInterface {
                host_mac: Mac([0; 6]),
                ..good()
            }),
            Some("host MAC")
        );
        assert_eq!(
            field_of(PodInterface {
                host_mac: good().mac,
                ..good()
            }),
            Some("MAC")
        );
    }

    #[test]
    fn two_interfaces_must_not_share_anything() {
        let second = PodInterface {
            host_name: "enia0b7655f3c9".into(),
            name: "mNicIf1".into(),
            address: "10.0.2.5".parse().unwrap(),
            gateway_index: 2,
            ..good()
        };
        assert!(interfaces(&[good(), second.clone()]).is_ok());
        for shared in [
            PodInterface {
                host_name: good().host_name,
                ..second.clone()
            },
            PodInterface {
                name: good().name,
                ..second.clone()
            },
            PodInterface {
                address: good().address,
                ..second.clone()
            },
            PodInterface {
                gateway_index: 1,
                ..second.clone()
            },
        ] {
            assert!(interfaces(&[good(), shared]).is_err());
        }
        assert!(interfaces(&[]).is_err());
    }
}
