//! The file of owners.

use std::net::IpAddr;

use proptest::prelude::*;
use vpcnet_ipam::{Allocation, Checkpoint, CheckpointError, PodKey, PodMeta, Targets};

use super::rig::{M5_LARGE, Rig, key};

#[test]
fn the_file_is_the_originals_to_the_byte_plus_who_wrote_it() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add(1);
    let text = String::from_utf8(rig.pool.checkpoint().to_json()).unwrap();
    let container = key(1).container_id;
    let want = format!(
        r#"{{"version":"vpc-cni-ipam/1","allocations":[{{"networkName":"aws-cni","containerID":"{container}","ifName":"eth0","ipv4":"10.0.0.21","allocationTimestamp":1700001000000000000,"metadata":{{"k8sPodNamespace":"default","k8sPodName":"web-1","interfacesCount":1}}}}],"writer":"vpcnet"}}"#
    );
    assert_eq!(text, want + "\n");
    let empty = String::from_utf8(
        Checkpoint {
            allocations: vec![],
            ours: false,
        }
        .to_json(),
    )
    .unwrap();
    assert_eq!(empty, "{\"version\":\"vpc-cni-ipam/1\",\"allocations\":[]}\n");
}

#[test]
fn files_of_older_agents_are_read() {
    let old = br#"{"version":"vpc-cni-ipam/1","allocations":[
        {"networkName":"_migrated-from-cri","containerID":"abc","ifName":"unknown","ipv4":"10.0.0.9"},
        {"networkName":"aws-cni","containerID":"def","ifName":"eth0","ipv4":"10.0.0.8","ipv6":"","allocationTimestamp":7,
         "metadata":{"k8sPodNamespace":"a","k8sPodName":"b"}, "later":"field"}]}"#;
    let read = Checkpoint::parse(old).unwrap();
    assert!(!read.ours);
    assert_eq!(
        read.allocations[0].meta,
        PodMeta {
            interfaces: 1,
            ..PodMeta::default()
        }
    );
    assert_eq!(
        (read.allocations[0].allocated_ns, read.allocations[1].allocated_ns),
        (0, 7)
    );
    assert_eq!(read.allocations[1].meta.interfaces, 1);
    assert_eq!(
        Checkpoint::parse(br#"{"version":"vpc-cni-ipam/1","allocations":null}"#)
            .unwrap()
            .allocations,
        []
    );
}

#[test]
fn a_null_is_what_a_field_has_without_it() {
    let text = br#"{"version":"vpc-cni-ipam/1","allocations":[
        {"networkName":"aws-cni","containerID":"c","ifName":"eth0","ipv4":"10.0.0.9","ipv6":null,"allocationTimestamp":null,"metadata":null},
        {"networkName":"aws-cni","containerID":"d","ifName":"eth0","ipv4":null,"ipv6":"2001:db8::9",
         "metadata":{"k8sPodNamespace":null,"k8sPodName":null,"interfacesCount":null}}]}"#;
    let read = Checkpoint::parse(text).unwrap();
    let addresses: Vec<String> = read.allocations.iter().map(|a| a.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.9", "2001:db8::9"]);
    let unnamed = PodMeta {
        interfaces: 1,
        ..PodMeta::default()
    };
    assert!(
        read.allocations
            .iter()
            .all(|a| a.meta == unnamed && a.allocated_ns == 0)
    );
}

/// What the original's decoder takes into fields of its own, with the types they have there; it passes everything else over.
#[test]
fn the_original_reads_of_a_file_of_ours_what_it_would_have_written() {
    let mut rig = Rig::settled(M5_LARGE, Targets::default());
    rig.add_all(1..=3);
    let ours: serde_json::Value = serde_json::from_slice(&rig.pool.checkpoint().to_json()).unwrap();
    let mut unknown = Vec::new();
    for (field, value) in ours.as_object().unwrap() {
        match field.as_str() {
            "version" => assert_eq!(value, "vpc-cni-ipam/1"),
            "allocations" => assert_eq!(value.as_array().unwrap().len(), 3),
            other => unknown.push(other.to_owned()),
        }
    }
    assert_eq!(unknown, ["writer"], "which it drops when it writes");
    for entry in ours["allocations"].as_array().unwrap() {
        for (field, value) in entry.as_object().unwrap() {
            match field.as_str() {
                "networkName" | "containerID" | "ifName" => assert!(value.is_string()),
                "ipv4" => assert!(value.as_str().unwrap().parse::<std::net::Ipv4Addr>().is_ok()),
                "allocationTimestamp" => assert!(value.is_i64()),
                "metadata" => {
                    let names = [&value["k8sPodNamespace"], &value["k8sPodName"]];
                    assert!(names.iter().all(|name| name.is_string()));
                    assert_eq!(value["interfacesCount"], 1);
                    assert_eq!(value.as_object().unwrap().len(), 3);
                }
                other => panic!("a field that no release has: {other}"),
            }
        }
    }
}

#[test]
fn an_address_with_two_owners_in_the_file_is_an_error_that_names_it() {
    let entry =
        |id: &str| format!(r#"{{"networkName":"n","containerID":"{id}","ifName":"eth0","ipv4":"10.0.0.9"}}"#);
    let text = format!(
        r#"{{"version":"vpc-cni-ipam/1","allocations":[{},{}]}}"#,
        entry("a"),
        entry("b")
    );
    let error = Checkpoint::parse(text.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "address 10.0.0.9 is in the checkpoint twice, for n/a/eth0 and for n/b/eth0"
    );
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let parse = |text: &str| Checkpoint::parse(text.as_bytes()).unwrap_err();
    assert!(matches!(parse(""), CheckpointError::Parse(_)));
    assert!(matches!(
        parse("{\"version\":\"vpc-cni-ipam/1\",\"alloc"),
        CheckpointError::Parse(_)
    ));
    assert!(matches!(
        parse(r#"{"version":"vpc-cni-ipam/2","allocations":[]}"#),
        CheckpointError::Version { .. }
    ));
    let nothing =
        r#"{"version":"vpc-cni-ipam/1","allocations":[{"networkName":"n","containerID":"c","ifName":"i"}]}"#;
    assert!(matches!(parse(nothing), CheckpointError::NoAddress { .. }));
    let nonsense = r#"{"version":"vpc-cni-ipam/1","allocations":[{"containerID":"c","ipv4":"10.0.0.256"}]}"#;
    assert!(matches!(parse(nonsense), CheckpointError::Parse(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_what_is_read(
        entries in prop::collection::btree_map(any::<IpAddr>(), ("\\PC{0,20}", "\\PC{1,70}", "\\PC{0,15}", any::<i64>(), "\\PC{0,20}", "\\PC{0,20}", 1_u32..9), 0..20),
        ours in any::<bool>(),
    ) {
        let allocations = entries.into_iter().map(|(address, (network, container_id, if_name, at, namespace, name, interfaces))| Allocation {
            key: PodKey { network, container_id, if_name },
            address,
            allocated_ns: at,
            meta: PodMeta { namespace, name, interfaces },
        });
        let checkpoint = Checkpoint { allocations: allocations.collect(), ours };
        prop_assert_eq!(Checkpoint::parse(&checkpoint.to_json()).unwrap(), checkpoint);
    }

    #[test]
    fn no_file_content_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Checkpoint::parse(&bytes);
    }
}
