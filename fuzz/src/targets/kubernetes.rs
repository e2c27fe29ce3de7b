//! What an API server sends: the lines of a watch, in pieces of any size, and the annotation with a branch interface, which others write.

use vpcnet_kube::objects::{EniConfig, Node, Pod, PodAnnotations};
use vpcnet_kube::watch::read_lines;

use crate::Target;

pub(crate) const KUBERNETES: Target = Target {
    name: "kubernetes",
    check,
    words: &[
        "\n",
        "\"type\":\"ADDED\"",
        "\"type\":\"MODIFIED\"",
        "\"type\":\"DELETED\"",
        "\"type\":\"BOOKMARK\"",
        "\"type\":\"ERROR\"",
        "\"code\":410",
        "\"metadata\":null",
        "\"annotations\":null",
        "\"resourceVersion\":\"18446744073709551616\"",
        "\"vlanId\":4095",
        "\"vlanID\":1",
        "\"privateIp\":\"10.0.0.256\"",
        "null",
        "[]",
        "{}",
    ],
};

fn check(bytes: &[u8]) {
    // However it is cut, the same is read.
    let whole = [
        read_lines::<Node>(bytes, usize::MAX),
        read_lines::<Pod>(bytes, usize::MAX),
        read_lines::<EniConfig>(bytes, usize::MAX),
    ];
    for piece in [1, 7, 64] {
        assert_eq!(read_lines::<Node>(bytes, piece), whole[0], "nodes by {piece}");
        assert_eq!(read_lines::<Pod>(bytes, piece), whole[1], "pods by {piece}");
        assert_eq!(
            read_lines::<EniConfig>(bytes, piece),
            whole[2],
            "ENIConfigs by {piece}"
        );
    }
    let annotations = PodAnnotations {
        pod_eni: Some(String::from_utf8_lossy(bytes).into_owned()),
        ..PodAnnotations::default()
    };
    if let Some(Ok(branch)) = annotations.branch() {
        assert!((1..=4094).contains(&branch.vlan), "{branch:?}");
        assert!(branch.ipv4.is_some() || branch.ipv6.is_some(), "{branch:?}");
        assert!(!branch.mac.is_empty(), "{branch:?}");
    }
}
