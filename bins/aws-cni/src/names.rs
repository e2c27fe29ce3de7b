//! Names that others derive too: the network policy agent finds a pod's host veth by its hash, and the node agent's
//! check of its checkpoint does. So they are an interface of their own.

use sha1::{Digest, Sha1};

/// Hexadecimal digits of the hash in a name.
const DIGITS: usize = 11;

/// What a pod's host veth ends in: the first 11 hexadecimal digits of the SHA-1 of `<namespace>.<name>`, and of
/// `<namespace>.<name>.<i>` for its further interfaces.
pub(crate) fn suffix(namespace: &str, name: &str, interface: usize) -> String {
    let mut hash = Sha1::new();
    hash.update(namespace.as_bytes());
    hash.update(b".");
    hash.update(name.as_bytes());
    if interface > 0 {
        hash.update(b".");
        hash.update(interface.to_string().as_bytes());
    }
    let mut digits: String = hash
        .finalize()
        .iter()
        .take(DIGITS.div_ceil(2))
        .map(|byte| format!("{byte:02x}"))
        .collect();
    digits.truncate(DIGITS);
    digits
}

/// Name of an interface in the pod: the runtime's choice for the first, `mNicIf<i>` for the others.
pub(crate) fn in_pod(if_name: &str, interface: usize) -> String {
    if interface == 0 {
        if_name.to_owned()
    } else {
        format!("mNicIf{interface}")
    }
}

/// Name of the result's entry that notes what DEL needs. Sixteen characters: never a link.
pub(crate) fn dummy(namespace: &str, name: &str) -> String {
    format!("dummy{}", suffix(namespace, name, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_of_the_original() {
        assert_eq!(suffix("default", "sample-pod", 0), "cc21c2d7785");
        assert_eq!(suffix("default", "sample-pod", 1), "a0b7655f3c9");
        assert_eq!(
            suffix("kube-system", "coredns-57ff979f67-qqbdh", 0),
            "b5faff8a083"
        );
    }

    #[test]
    fn names_in_pod_and_result() {
        assert_eq!(in_pod("eth0", 0), "eth0");
        assert_eq!(in_pod("eth0", 2), "mNicIf2");
        assert_eq!(dummy("default", "sample-pod"), "dummycc21c2d7785");
    }
}
