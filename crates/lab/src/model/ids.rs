//! Names of the things in a VPC, as EC2 writes them: a kind, a dash, and seventeen hex digits.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// What every such id begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// True for `<prefix><8 to 17 lower-case hex digits>`, the two lengths EC2 has used and all between.
            #[must_use]
            pub fn well_formed(&self) -> bool {
                self.0.strip_prefix($prefix).is_some_and(|digits| {
                    (8..=17).contains(&digits.len())
                        && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(s: String) -> Self {
                Self(s)
            }
        }
    };
}

text_id!(
    /// An elastic network interface.
    EniId,
    "eni-"
);
text_id!(
    /// The bond of an interface with an instance.
    AttachmentId,
    "eni-attach-"
);
text_id!(
    /// A subnet.
    SubnetId,
    "subnet-"
);
text_id!(
    /// The VPC.
    VpcId,
    "vpc-"
);
text_id!(
    /// An instance; every node of the lab is one.
    InstanceId,
    "i-"
);
text_id!(
    /// A security group.
    GroupId,
    "sg-"
);

/// A MAC address; printed in lower case with colons, as EC2 and IMDS do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || format!("'{s}' is no MAC address: expected six hex pairs joined by colons");
        let mut bytes = [0u8; 6];
        let mut parts = s.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            Err(bad())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_well_formed_only_with_its_own_prefix_and_hex_digits() {
        assert!(EniId::from("eni-0123456789abcdef0").well_formed());
        assert!(EniId::from("eni-01234567").well_formed());
        for bad in [
            "eni-",
            "eni-123",
            "subnet-01234567",
            "eni-0123456789ABCDEF0",
            "eni-attach-01234567",
        ] {
            assert!(!EniId::from(bad).well_formed(), "{bad}");
        }
    }

    #[test]
    fn a_mac_reads_back_what_it_prints() {
        let mac = Mac([0x0a, 0x00, 0xff, 0x10, 0x01, 0x02]);
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for bad in [
            "",
            "0a:00:ff:10:01",
            "0a:00:ff:10:01:02:03",
            "0a:00:ff:10:01:zz",
            "a:0:f:1:1:2",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
