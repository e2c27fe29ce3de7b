//! The same where pods have IPv6 addresses, and for the connections that pods have by egress in the other family.

mod ipv6;
