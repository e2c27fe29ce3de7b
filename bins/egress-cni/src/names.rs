//! Names that follow from the container: everything of it is found again without a note.

use std::fmt::Write as _;

use sha1::{Digest, Sha1};
use sha2::Sha512;

/// The link in the pod.
pub(crate) fn in_pod(v6: bool) -> &'static str {
    if v6 { "v6if0" } else { "v4if0" }
}

/// The host's end: `veth` and 11 hexadecimal digits. The AWS VPC CNI takes eight random ones; with these, an ADD that was cut
/// short leaves a link that its DEL finds without having been told of it.
pub(crate) fn host_end(network: &str, container: &str, if_name: &str, v6: bool) -> String {
    let text = format!("{network}.{container}.{if_name}.{}", in_pod(v6));
    format!("veth{}", digits(&Sha1::digest(text), 11))
}

/// How the AWS VPC CNI's chains for single pods begin.
pub(crate) fn chain_prefix(v6: bool) -> &'static str {
    if v6 { "CNI-E6-" } else { "CNI-E4-" }
}

/// The AWS VPC CNI's chain for a pod: 28 characters, the longest that iptables takes.
pub(crate) fn chain(network: &str, container: &str, v6: bool) -> String {
    let hash = Sha512::digest(format!("{network}{container}"));
    format!("{}{}", chain_prefix(v6), digits(&hash, 21))
}

/// The container in the comment of a jump to such a chain, if it is of this network.
pub(crate) fn container_of<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    let rest = comment.strip_prefix("name: \"")?.strip_prefix(network)?;
    rest.strip_prefix("\" id: \"")?.strip_suffix('"')
}

fn digits(hash: &[u8], count: usize) -> String {
    let mut text = String::with_capacity(2 * hash.len());
    for byte in hash {
        let _never_fails = write!(text, "{byte:02x}");
    }
    text.truncate(count);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_chain() {
        assert_eq!(
            chain("aws-cni", "containerId-123", false),
            "CNI-E4-5740307710ebfd5fb24f5"
        );
        assert_eq!(
            chain("aws-cni", "containerId-123", true),
            "CNI-E6-5740307710ebfd5fb24f5"
        );
    }

    #[test]
    fn the_container_in_a_comment() {
        let comment = r#"name: "aws-cni" id: "c1""#;
        assert_eq!(container_of(comment, "aws-cni"), Some("c1"));
        assert_eq!(container_of(comment, "aws"), None);
        assert_eq!(container_of("name: \"aws-cni\" id: \"c", "aws-cni"), None);
        assert_eq!(container_of("", "aws-cni"), None);
    }

    #[test]
    fn host_ends_fit_and_differ() {
        let one = host_end("aws-cni", "c1", "eth0", false);
        assert_eq!(one.len(), 15);
        assert!(one.starts_with("veth") && one.bytes().skip(4).all(|b| b.is_ascii_hexdigit()));
        for other in [
            host_end("other", "c1", "eth0", false),
            host_end("aws-cni", "c2", "eth0", false),
            host_end("aws-cni", "c1", "eth1", false),
            host_end("aws-cni", "c1", "eth0", true),
        ] {
            assert_ne!(one, other);
        }
    }
}
