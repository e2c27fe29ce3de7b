//! The owners' file, `ipam.json`: written by us, by the AWS VPC CNI of any age, or by a disk that was full.

use std::collections::BTreeSet;

use vpcnet_ipam::{Checkpoint, CheckpointError, FORMAT};

use crate::Target;

pub(crate) const CHECKPOINT: Target = Target {
    name: "checkpoint",
    check,
    words: &[
        "vpc-cni-ipam/1",
        "vpc-cni-ipam/2",
        "\"version\":",
        "\"allocations\":",
        "\"writer\":\"vpcnet\"",
        "{\"networkName\":\"aws-cni\",\"containerID\":\"c\",\"ifName\":\"eth0\",\"ipv4\":\"10.0.0.9\"},",
        "\"ipv4\":\"10.0.0.9\"",
        "\"ipv6\":\"fd00::9\"",
        "\"\"",
        "null",
        "\"allocationTimestamp\":-1",
        "\"interfacesCount\":4294967295",
        "\"metadata\":{}",
        "\\u0000",
    ],
};

fn check(bytes: &[u8]) {
    let checkpoint = match Checkpoint::parse(bytes) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return names_the_place(&error),
    };
    let addresses: BTreeSet<_> = checkpoint.allocations.iter().map(|a| a.address).collect();
    assert_eq!(
        addresses.len(),
        checkpoint.allocations.len(),
        "an address with two owners"
    );
    let keys: BTreeSet<_> = checkpoint.keys().collect();
    assert!(checkpoint.allocations.iter().all(|a| keys.contains(&a.key)));
    let written = checkpoint.to_json();
    assert_eq!(
        Checkpoint::parse(&written).unwrap(),
        checkpoint,
        "not what was written"
    );
    // Half a file must never be taken for one with fewer owners. The last byte is the line's end.
    let cut = bytes.len() % written.len().saturating_sub(1).max(1);
    let half = written.get(..cut).unwrap_or_default();
    assert!(
        Checkpoint::parse(half).is_err(),
        "{cut} of {} bytes",
        written.len()
    );
}

fn names_the_place(error: &CheckpointError) {
    let text = error.to_string();
    let named = match error {
        CheckpointError::Parse(_) => text.contains("line ") && text.contains("column "),
        CheckpointError::Version { found } => text.contains(&format!("{found:?}")) && found != FORMAT,
        CheckpointError::Duplicate {
            address,
            first,
            second,
        } => [address.to_string(), first.to_string(), second.to_string()]
            .iter()
            .all(|part| text.contains(part)),
        CheckpointError::NoAddress { key } => text.contains(&key.to_string()),
    };
    assert!(named, "{text}");
}
