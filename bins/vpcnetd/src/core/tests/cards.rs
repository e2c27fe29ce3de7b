//! Pods of several network cards: a file for each card.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::core::checkpoints::Checkpoints;

/// A pool with `addresses` free addresses on each of two cards.
fn two_cards(addresses: u8) -> Started {
    let mut started = pool(addresses, still());
    let limits = Limits {
        cards: [0, 1]
            .map(|card| CardLimits {
                card: CardIndex(card),
                interfaces: 2,
            })
            .into(),
        ipv4_per_interface: 10,
    };
    let identity = Identity {
        instance_id: "i-1".into(),
        token_salt: "salt".into(),
        boot_id: "boot".into(),
    };
    let first = started.pool.interfaces().next().unwrap();
    let second = InterfaceFacts {
        id: EniId("eni-2".into()),
        card: CardIndex(1),
        primary_address: [10, 0, 0, 11].into(),
        is_primary: false,
        addresses: (0..addresses).map(|n| [10, 0, 2, n].into()).collect(),
        ..first.clone()
    };
    started.pool = Pool::new(identity, limits, still()).unwrap();
    let evidence = Evidence::Ec2;
    for facts in [first, second] {
        let seen = Event::InterfaceSeen { facts, evidence };
        started.pool.handle(clock::now(), seen);
    }
    let ids = vec![EniId("eni-1".into()), EniId("eni-2".into())];
    started
        .pool
        .handle(clock::now(), Event::InterfacesListed { ids, evidence });
    started
}

async fn every(bench: &Bench, n: u32) -> Answer {
    let (key, meta) = pod(n);
    let deadline = clock::mono().plus(SOON);
    bench.handle.add(key, meta, Cards::Every, deadline).await.unwrap()
}

/// The sandboxes in a file.
fn owners(bench: &Bench, name: &str) -> Vec<String> {
    let bytes = std::fs::read(bench.file(name)).unwrap();
    let checkpoint = Checkpoint::parse(&bytes).unwrap();
    checkpoint.keys().map(|k| k.container_id).collect()
}

/// A file that is replaced becomes another one.
fn inode(bench: &Bench, name: &str) -> u64 {
    std::fs::metadata(bench.file(name)).unwrap().ino()
}

#[tokio::test]
async fn each_card_has_its_file_and_only_files_that_change_are_written() {
    let bench = Bench::new();
    bench.handle.start(two_cards(3));
    let Answer::Assigned(leases) = every(&bench, 1).await else {
        panic!("refused")
    };
    assert_eq!(leases.len(), 2);
    assert_eq!(owners(&bench, "ipam.json"), ["sandbox-1"]);
    assert_eq!(owners(&bench, "ipam-nic-1.json"), ["sandbox-1"]);
    let before = inode(&bench, "ipam-nic-1.json");
    assert!(matches!(bench.add(2).await, Answer::Assigned(_)));
    assert_eq!(owners(&bench, "ipam.json"), ["sandbox-1", "sandbox-2"]);
    assert_eq!(
        inode(&bench, "ipam-nic-1.json"),
        before,
        "an ordinary ADD is one write"
    );
    assert!(matches!(bench.del(1).await, Answer::Released(_)));
    assert_eq!(owners(&bench, "ipam.json"), ["sandbox-2"]);
    assert_eq!(owners(&bench, "ipam-nic-1.json"), [""; 0]);
}

#[tokio::test]
async fn when_one_file_cannot_be_written_the_others_hold_nothing_of_it() {
    let bench = Bench::new();
    bench.handle.start(two_cards(3));
    assert!(matches!(every(&bench, 1).await, Answer::Assigned(_)));
    // A directory in its place: the rename fails, after the other card's file was written.
    let (file, aside) = (bench.file("ipam.json"), bench.file("aside"));
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir(&file).unwrap();
    let before = inode(&bench, "ipam-nic-1.json");
    // A second name, so that no other file gets its number.
    std::fs::hard_link(bench.file("ipam-nic-1.json"), bench.file("before")).unwrap();
    let answer = every(&bench, 2).await;
    assert_eq!(refused(&answer), Some(RefusalCause::CheckpointFailed));
    assert_ne!(inode(&bench, "ipam-nic-1.json"), before, "it was written");
    assert_eq!(
        owners(&bench, "ipam-nic-1.json"),
        ["sandbox-1"],
        "and written back"
    );
    let answer = bench.del(1).await;
    assert_eq!(refused(&answer), Some(RefusalCause::CheckpointFailed));
    assert_eq!(owners(&bench, "ipam-nic-1.json"), ["sandbox-1"]);
    assert_eq!(bench.owners().await, 2);

    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    assert!(matches!(every(&bench, 3).await, Answer::Assigned(_)));
    for name in ["ipam.json", "ipam-nic-1.json"] {
        assert_eq!(owners(&bench, name), ["sandbox-1", "sandbox-3"], "{name}");
    }
}

#[test]
fn a_file_that_could_not_be_written_back_is_written_at_the_next_occasion() {
    let dir = tempfile::tempdir().unwrap();
    let (state, away) = (dir.path().join("state"), dir.path().join("away"));
    std::fs::create_dir(&state).unwrap();
    let first = FileStore::new(state.join("ipam.json"));
    let Started { mut pool, .. } = two_cards(3);
    let mut files = Checkpoints::of(&pool, &first);
    files.write(&pool).unwrap();
    let before = pool.clone();
    let other = || std::fs::read_to_string(state.join("ipam-nic-1.json")).unwrap();
    let empty = other();

    let (key, meta) = pod(1);
    let wants = Event::PodWants {
        request: RequestId(1),
        key,
        meta,
        deadline: clock::mono().plus(SOON),
        cards: Cards::Every,
    };
    pool.handle(clock::now(), wants);
    std::fs::remove_file(state.join("ipam.json")).unwrap();
    std::fs::create_dir(state.join("ipam.json")).unwrap();
    assert!(files.write(&pool).is_err());
    assert_eq!(files.difference(), (vec![pod(1).0], vec![]));
    assert_ne!(other(), empty);
    // The disk goes, so what was written cannot be put back.
    std::fs::rename(&state, &away).unwrap();
    assert!(!files.write_back(&before));
    std::fs::rename(&away, &state).unwrap();
    std::fs::remove_dir(state.join("ipam.json")).unwrap();
    assert_ne!(other(), empty, "it holds what did not happen");
    files.write(&before).unwrap();
    assert_eq!(other(), empty);
}

#[tokio::test]
async fn the_file_of_a_card_that_is_not_used_any_more_is_kept_for_its_pods() {
    let bench = Bench::new();
    std::fs::write(
        bench.file("ipam-nic-1.json"),
        r#"{"version":"vpc-cni-ipam/1","allocations":[]}"#,
    )
    .unwrap();
    let one_card = pool(3, still());
    let restored = vpcnet_ipam::Restored {
        checkpoint: Some(Checkpoint {
            allocations: vec![vpcnet_ipam::Allocation {
                key: pod(1).0,
                address: [10, 0, 2, 1].into(),
                allocated_ns: 1,
                meta: pod(1).1,
                card: CardIndex(1),
            }],
            ours: true,
        }),
        journal: Some(one_card.pool.journal()),
        ..Default::default()
    };
    let limits = one_card.pool.limits().clone();
    let identity = Identity {
        instance_id: "i-1".into(),
        token_salt: "salt".into(),
        boot_id: "boot".into(),
    };
    let (pool, _, _) = Pool::restore(identity, limits, still(), restored, clock::now()).unwrap();
    bench.handle.start(Started { pool, ..one_card });
    assert!(matches!(bench.add(2).await, Answer::Assigned(_)));
    assert_eq!(owners(&bench, "ipam.json"), ["sandbox-2"]);
    assert_eq!(owners(&bench, "ipam-nic-1.json"), ["sandbox-1"]);
}
