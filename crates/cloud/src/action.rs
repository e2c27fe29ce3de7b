//! The EC2 actions this crate calls, and what is known of each before it is called.

use std::fmt;

macro_rules! actions {
    ($($name:ident: $effect:ident),+ $(,)?) => {
        /// An EC2 API action. Each has its own back-off: EC2 throttles by action.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Ec2Action {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                $name,
            )+
        }

        impl Ec2Action {
            /// Every action, in the order of their declaration; `Ec2Action as usize` is the place in it.
            pub const ALL: &'static [Ec2Action] = &[$(Ec2Action::$name),+];

            /// The action's name as EC2 (and IAM, behind `ec2:`) spells it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Whether the call only reads, so that repeating it is harmless.
            pub fn is_read(self) -> bool {
                match self {
                    $(Self::$name => actions!(@ $effect),)+
                }
            }
        }
    };
    (@ read) => { true };
    (@ write) => { false };
}

actions! {
    DescribeNetworkInterfaces: read,
    DescribeInstances: read,
    DescribeInstanceTypes: read,
    DescribeSubnets: read,
    DescribeVpcs: read,
    DescribeSecurityGroups: read,
    CreateNetworkInterface: write,
    AttachNetworkInterface: write,
    DetachNetworkInterface: write,
    DeleteNetworkInterface: write,
    ModifyNetworkInterfaceAttribute: write,
    AssignPrivateIpAddresses: write,
    UnassignPrivateIpAddresses: write,
    AssignIpv6Addresses: write,
    UnassignIpv6Addresses: write,
    CreateTags: write,
    DeleteTags: write,
}

impl fmt::Display for Ec2Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
