//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet (EUI-48) address. Displays as `02:00:00:aa:bb:cc`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// The text is not six hexadecimal octets between colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no MAC address: six two-digit hexadecimal octets with colons between are wanted")]
pub struct ParseMacError(String);

impl Mac {
    /// A random, locally administered unicast address, as a veth end wants it.
    ///
    /// # Errors
    /// The kernel's `getrandom` failed.
    pub fn random_local() -> std::io::Result<Self> {
        let mut octets = [0u8; 6];
        rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty())?;
        octets[0] = (octets[0] | 0x02) & 0xfe;
        Ok(Self(octets))
    }

    /// Whether an interface may carry it: neither group address nor all zero (the kernel's `is_valid_ether_addr`).
    pub fn is_assignable(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// From the bytes of a netlink attribute; none if it is not six long (tunnels have other lengths).
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let refuse = || ParseMacError(text.to_owned());
        let mut octets = [0u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(refuse)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            return Err(refuse());
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_that_is_no_mac_is_refused() {
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:0",
            "02-00-00-00-00-00",
            "0g:00:00:00:00:00",
            "+2:00:00:00:00:00",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?} was taken for a MAC");
        }
    }

    #[test]
    fn upper_case_is_read() {
        assert_eq!("0A:FF:00:01:02:03".parse(), Ok(Mac([10, 255, 0, 1, 2, 3])));
    }

    #[test]
    fn random_addresses_are_local_unicast_and_differ() {
        let (a, b) = (Mac::random_local().unwrap(), Mac::random_local().unwrap());
        for mac in [a, b] {
            assert!(mac.is_assignable());
            assert_eq!(mac.0[0] & 3, 2, "{mac} is not locally administered unicast");
        }
        assert_ne!(a, b);
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(octets: [u8; 6]) {
            prop_assert_eq!(Mac(octets).to_string().parse(), Ok(Mac(octets)));
        }
    }
}
