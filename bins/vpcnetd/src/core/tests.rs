use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use vpcnet_ipam::{
    CardIndex, CardLimits, Cards, Checkpoint, DeviceIndex, EniId, Evidence, Identity, InterfaceFacts,
    InterfaceKind, Limits, PodMeta, Pool, RefusalCause, SubnetId, Targets,
};

use super::*;
use crate::state::StateFile;

mod cards;

const SOON: Duration = Duration::from_secs(10);

fn pod(n: u32) -> (PodKey, PodMeta) {
    let key = PodKey {
        network: "aws-cni".into(),
        container_id: format!("sandbox-{n}"),
        if_name: "eth0".into(),
    };
    (
        key,
        PodMeta {
            namespace: "default".into(),
            name: format!("pod-{n}"),
            interfaces: 1,
        },
    )
}

/// A pool with the primary interface and `addresses` free addresses, which creates nothing unless it is told to.
fn pool(addresses: u8, targets: Targets) -> Started {
    let limits = Limits {
        cards: vec![CardLimits {
            card: CardIndex(0),
            interfaces: 3,
        }],
        ipv4_per_interface: 10,
    };
    let identity = Identity {
        instance_id: "i-1".into(),
        token_salt: "salt".into(),
        boot_id: "boot".into(),
    };
    let mut pool = Pool::new(identity, limits, targets).unwrap();
    let facts = InterfaceFacts {
        id: EniId("eni-1".into()),
        mac: "02:00:00:00:00:01".into(),
        device: DeviceIndex(0),
        card: CardIndex(0),
        subnet: SubnetId("subnet-1".into()),
        subnet_cidr: "10.0.0.0/20".parse().unwrap(),
        primary_address: "10.0.0.10".parse().unwrap(),
        is_primary: true,
        kind: InterfaceKind::Interface,
        managed: true,
        addresses: (0..addresses).map(|n| [10, 0, 1, n].into()).collect(),
        prefixes: Vec::new(),
        ipv6_prefixes: Vec::new(),
        table: None,
    };
    let now = clock::now();
    let ids = vec![facts.id.clone()];
    let mut actions = pool.handle(
        now,
        Event::InterfaceSeen {
            facts,
            evidence: Evidence::Ec2,
        },
    );
    actions.extend(pool.handle(
        now,
        Event::InterfacesListed {
            ids,
            evidence: Evidence::Ec2,
        },
    ));
    Started {
        pool,
        actions,
        facts: Facts::default(),
        rewrite: true,
        notes: Vec::new(),
    }
}

/// Targets under which the pool neither grows nor shrinks.
fn still() -> Targets {
    Targets {
        provisioning: false,
        cooldown: Duration::ZERO,
        ..Targets::default()
    }
}

struct Bench {
    dir: tempfile::TempDir,
    handle: CoreHandle,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (handle, orders) = Self::on(&dir.path().join("state"), &dir.path().join("state"));
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Self { dir, handle, orders }
    }

    fn on(checkpoint: &Path, state: &Path) -> (CoreHandle, mpsc::UnboundedReceiver<Order>) {
        let files = Files {
            checkpoint: FileStore::new(checkpoint.join("ipam.json")),
            state: FileStore::new(state.join("vpcnet-state.json")),
        };
        let (core, handle, orders) = Core::new(files, Metrics::new().unwrap());
        tokio::spawn(core.run());
        (handle, orders)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("state").join(name)
    }

    fn on_disk(&self) -> Checkpoint {
        Checkpoint::parse(&std::fs::read(self.file("ipam.json")).unwrap()).unwrap()
    }

    /// Makes every write fail, as a directory that was unmounted does.
    fn break_disk(&self) {
        std::fs::rename(self.dir.path().join("state"), self.dir.path().join("away")).unwrap();
    }

    fn mend_disk(&self) {
        std::fs::rename(self.dir.path().join("away"), self.dir.path().join("state")).unwrap();
    }

    async fn add(&self, n: u32) -> Answer {
        let (key, meta) = pod(n);
        self.handle
            .add(key, meta, Cards::Any, clock::mono().plus(SOON))
            .await
            .unwrap()
    }

    async fn del(&self, n: u32) -> Answer {
        let (key, meta) = pod(n);
        self.handle.del(key, meta).await.unwrap()
    }

    async fn owners(&self) -> usize {
        self.handle
            .look(|v| v.pool.unwrap().owners().count())
            .await
            .unwrap()
    }

    async fn waiting(&self) -> usize {
        self.handle.look(|v| v.callers).await.unwrap()
    }
}

fn refused(answer: &Answer) -> Option<RefusalCause> {
    match answer {
        Answer::Refused(refusal) => Some(refusal.cause),
        _ => None,
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"));
}

#[tokio::test]
async fn an_address_is_on_disk_when_its_owner_hears_of_it() {
    let bench = Bench::new();
    bench.handle.start(pool(5, still()));
    for n in 0..5 {
        let Answer::Assigned(leases) = bench.add(n).await else {
            panic!("refused")
        };
        let disk = bench.on_disk();
        assert!(
            disk.ours
                && disk
                    .allocations
                    .iter()
                    .any(|a| a.address == leases[0].address && a.key == pod(n).0)
        );
        assert_eq!(disk.allocations.len(), n as usize + 1);
    }
    let owners = bench.handle.look(|v| v.pool.unwrap().checkpoint().to_json());
    assert_eq!(
        std::fs::read_to_string(bench.file("ipam.json")).unwrap(),
        String::from_utf8(owners.await.unwrap()).unwrap()
    );
    assert!(matches!(bench.del(2).await, Answer::Released(_)));
    assert!(bench.on_disk().allocations.iter().all(|a| a.key != pod(2).0));
}

#[tokio::test]
async fn many_at_once_each_get_their_own_address() {
    let bench = Bench::new();
    bench.handle.start(pool(9, still()));
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..9 {
        let handle = bench.handle.clone();
        let (key, meta) = pod(n);
        calls.spawn(async move {
            handle
                .add(key, meta, Cards::Any, clock::mono().plus(SOON))
                .await
                .unwrap()
        });
    }
    let mut given = BTreeSet::new();
    while let Some(answer) = calls.join_next().await {
        let Answer::Assigned(leases) = answer.unwrap() else {
            panic!("refused")
        };
        assert!(given.insert(leases[0].address), "{} twice", leases[0].address);
    }
    assert_eq!(bench.on_disk().allocations.len(), 9);
}

#[tokio::test]
async fn without_a_checkpoint_nobody_is_given_an_address_and_none_is_lost() {
    let bench = Bench::new();
    bench.handle.start(pool(2, still()));
    assert!(matches!(bench.add(1).await, Answer::Assigned(_)));
    bench.break_disk();
    let answer = bench.add(2).await;
    assert_eq!(
        refused(&answer),
        Some(RefusalCause::CheckpointFailed),
        "{answer:?}"
    );
    let Answer::Refused(refusal) = answer else {
        unreachable!()
    };
    assert!(
        refusal.message.contains("ipam.json"),
        "it names the file: {}",
        refusal.message
    );
    assert_eq!(bench.owners().await, 1);
    assert!(bench.handle.look(|v| v.checkpoint_error.is_some()).await.unwrap());
    // Asking again for what one has changes nothing on disk, and so works.
    assert!(matches!(bench.add(1).await, Answer::Assigned(_)));
    bench.mend_disk();
    until("an ADD works again", || async {
        matches!(bench.add(2).await, Answer::Assigned(_))
    })
    .await;
    assert_eq!(bench.on_disk().allocations.len(), 2);
    assert!(bench.handle.look(|v| v.checkpoint_error.is_none()).await.unwrap());
}

#[tokio::test]
async fn a_del_that_cannot_be_written_keeps_its_owner() {
    let bench = Bench::new();
    bench.handle.start(pool(1, still()));
    assert!(matches!(bench.add(1).await, Answer::Assigned(_)));
    bench.break_disk();
    let answer = bench.del(1).await;
    assert_eq!(
        refused(&answer),
        Some(RefusalCause::CheckpointFailed),
        "{answer:?}"
    );
    assert_eq!(bench.owners().await, 1);
    bench.mend_disk();
    assert!(matches!(bench.del(1).await, Answer::Released(_)));
    assert_eq!(bench.on_disk().allocations.len(), 0);
}

#[tokio::test]
async fn a_caller_that_hangs_up_stops_waiting() {
    let bench = Bench::new();
    // Growth is allowed and its order is never carried out, so the pod waits.
    bench.handle.start(pool(0, Targets::default()));
    let waiting = tokio::spawn({
        let handle = bench.handle.clone();
        let (key, meta) = pod(1);
        async move {
            handle
                .add(key, meta, Cards::Any, clock::mono().plus(SOON * 6))
                .await
        }
    });
    until("the pod waits", || async { bench.waiting().await == 1 }).await;
    waiting.abort();
    until("nobody waits", || async { bench.waiting().await == 0 }).await;
    let pods = bench
        .handle
        .look(|v| v.pool.unwrap().view(v.now).waiting.len())
        .await
        .unwrap();
    assert_eq!(pods, 0, "the pool forgot it too");
}

#[tokio::test]
async fn a_del_ends_the_wait_of_its_add() {
    let bench = Bench::new();
    bench.handle.start(pool(0, Targets::default()));
    let add = bench.add(1);
    let del = async {
        until("the pod waits", || async { bench.waiting().await == 1 }).await;
        bench.del(1).await
    };
    let (added, deleted) = tokio::join!(add, del);
    assert_eq!(refused(&added), Some(RefusalCause::Deleted), "{added:?}");
    assert_eq!(deleted, Answer::UnknownPod);
}

#[tokio::test]
async fn an_intent_is_on_disk_when_its_order_is_given() {
    let mut bench = Bench::new();
    bench.handle.start(pool(0, Targets::default()));
    let order = tokio::time::timeout(SOON, bench.orders.recv())
        .await
        .unwrap()
        .unwrap();
    let state = std::fs::read_to_string(bench.file("vpcnet-state.json")).unwrap();
    let id = order.action.id().unwrap();
    assert!(
        state.contains(&format!("\"Running\":{}", id.0)),
        "action {} in {state}",
        id.0
    );
}

#[tokio::test]
async fn a_caller_has_its_answer_before_a_journal_that_nothing_depends_on_is_written() {
    let bench = Bench::new();
    let cooling = Targets {
        cooldown: Duration::from_secs(30),
        ..still()
    };
    bench.handle.start(pool(1, cooling));
    bench.add(1).await;
    let journal = || std::fs::read(bench.file("vpcnet-state.json")).unwrap_or_default();
    let due = || {
        bench
            .handle
            .look(|v| StateFile::write(v.facts, &v.pool.unwrap().journal()).unwrap())
    };
    until("all so far is in the journal", async || {
        due().await.unwrap() == journal()
    })
    .await;
    let before = journal();
    let answer = bench.del(1).await;
    assert!(matches!(answer, Answer::Released(_)), "{answer:?}");
    assert!(journal() == before, "the caller waited for the journal");
    until("the journal has the cool-down", || {
        std::future::ready(journal() != before)
    })
    .await;
}

#[tokio::test]
async fn without_a_journal_no_order_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, mut orders) = Bench::on(dir.path(), &dir.path().join("missing"));
    handle.start(pool(3, Targets::default()));
    let (key, meta) = pod(1);
    // From what is there pods are served all the same.
    let answer = handle
        .add(key, meta, Cards::Any, clock::mono().plus(SOON))
        .await
        .unwrap();
    assert!(matches!(answer, Answer::Assigned(_)), "{answer:?}");
    assert!(orders.try_recv().is_err());
    let troubles = handle
        .look(|v| {
            v.pool
                .unwrap()
                .view(v.now)
                .backoffs
                .iter()
                .map(|b| b.message.clone())
                .collect::<Vec<_>>()
        })
        .await
        .unwrap();
    assert!(troubles.iter().any(|t| t.contains("state file")), "{troubles:?}");
}

#[tokio::test]
async fn before_the_pool_is_there_adds_wait_for_it_and_dels_are_sent_back() {
    let bench = Bench::new();
    bench.handle.starting("IMDS does not answer".into());
    let add = bench.add(1);
    let rest = async {
        until("the ADD waits", || async { bench.waiting().await == 1 }).await;
        let answer = bench.del(7).await;
        let Answer::Refused(refusal) = &answer else {
            panic!("{answer:?}")
        };
        assert!(
            refusal.message.contains("IMDS does not answer"),
            "{}",
            refusal.message
        );
        bench.handle.start(pool(1, still()));
    };
    let (added, ()) = tokio::join!(add, rest);
    assert!(matches!(added, Answer::Assigned(_)), "{added:?}");
}

#[tokio::test]
async fn before_the_pool_is_there_a_deadline_ends_with_the_cause() {
    let bench = Bench::new();
    bench.handle.starting("IMDS does not answer".into());
    let (key, meta) = pod(1);
    let deadline = clock::mono().plus(Duration::from_millis(30));
    let answer = bench.handle.add(key, meta, Cards::Any, deadline).await.unwrap();
    let Answer::Refused(refusal) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        refusal.message.contains("IMDS does not answer") && refusal.retry_in.is_some(),
        "{}",
        refusal.message
    );
    assert_eq!(bench.waiting().await, 0);
}

#[tokio::test]
async fn a_stopped_core_leaves_its_state_on_disk() {
    let bench = Bench::new();
    bench.handle.start(pool(2, still()));
    assert!(matches!(bench.add(1).await, Answer::Assigned(_)));
    bench
        .handle
        .learnt(|facts| facts.groups = vec!["sg-last-words".into()]);
    bench.handle.stop();
    until("the core is gone", || async {
        bench.handle.look(|_| ()).await.is_err()
    })
    .await;
    let state =
        crate::state::StateFile::parse(&std::fs::read(bench.file("vpcnet-state.json")).unwrap()).unwrap();
    assert_eq!(state.facts.groups, ["sg-last-words"]);
}
