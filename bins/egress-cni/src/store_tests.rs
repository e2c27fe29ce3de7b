//! The files: unique, whole, and `host-local`'s.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn range(text: &str) -> Range {
    Range::of(text.parse().unwrap()).unwrap()
}

fn owner(n: usize) -> Owner {
    Owner::new(&format!("c{n}"), "eth0")
}

fn all_in_use(_: IpAddr, _: &Owner) -> Result<bool, Failure> {
    Ok(true)
}

/// A directory that is not there yet.
fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("egress-v4-ipam/aws-cni");
    (dir, path)
}

#[test]
fn the_files_are_host_locals() {
    let (_dir, path) = fresh();
    let v4 = Store::lock(&path)
        .unwrap()
        .reserve(&range("169.254.172.0/22"), &owner(1), all_in_use)
        .unwrap();
    assert_eq!(v4.to_string(), "169.254.172.2");
    let text = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    assert_eq!(text("169.254.172.2"), "c1\r\neth0");
    assert_eq!(text("last_reserved_ip.0"), "169.254.172.2");
    let names: BTreeSet<String> = fs::read_dir(&path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        names,
        ["169.254.172.2", "last_reserved_ip.0", "lock"]
            .map(String::from)
            .into()
    );
    let v6 = Store::lock(&path)
        .unwrap()
        .reserve(&range("fd00::ac:00/118"), &owner(2), all_in_use)
        .unwrap();
    assert_eq!(v6.to_string(), "fd00::ac:2");
    assert_eq!(text("fd00::ac:2"), "c2\r\neth0");
}

#[test]
fn what_host_local_gave_is_known_in_both_its_forms() {
    let (_dir, path) = fresh();
    let mut store = Store::lock(&path).unwrap();
    fs::write(path.join("169.254.172.2"), "c1\r\neth0").unwrap();
    fs::write(path.join("169.254.172.3"), "  c2\n").unwrap();
    fs::write(path.join("last_reserved_ip.0"), "169.254.172.3").unwrap();
    let found = store.entries().unwrap();
    assert!(found[0].1.is("c1", "eth0") && !found[0].1.is("c1", "eth1") && !found[0].1.is("c2", "eth0"));
    assert!(found[1].1.is("c2", "eth0") && found[1].1.is("c2", "eth1") && !found[1].1.is("c1", "eth0"));
    let next = store
        .reserve(&range("169.254.172.0/29"), &owner(3), all_in_use)
        .unwrap();
    assert_eq!(next.to_string(), "169.254.172.4");
}

#[test]
fn a_full_range_is_told_unless_an_address_is_nobodys() {
    let (_dir, path) = fresh();
    let range = range("169.254.172.0/27");
    let mut store = Store::lock(&path).unwrap();
    for n in 0..29 {
        store.reserve(&range, &owner(n), all_in_use).unwrap();
    }
    let failure = store.reserve(&range, &owner(30), all_in_use).unwrap_err();
    assert_eq!(failure.code().0, 11);
    assert!(
        failure.to_string().contains("all 29 egress addresses"),
        "{failure}"
    );
    assert!(!path.join(DRAFT).exists());
    let dead: IpAddr = "169.254.172.9".parse().unwrap();
    let given = store
        .reserve(&range, &owner(31), |address, _| Ok(address != dead))
        .unwrap();
    assert_eq!(given, dead);
    assert_eq!(store.entries().unwrap().len(), 29);
}

#[test]
fn a_draft_of_a_process_that_died_harms_nobody() {
    let (_dir, path) = fresh();
    let mut store = Store::lock(&path).unwrap();
    let range = range("169.254.172.0/29");
    // It died between the link and the removal: both names are one file.
    let first = store.reserve(&range, &owner(1), all_in_use).unwrap();
    fs::hard_link(store.path(first), path.join(DRAFT)).unwrap();
    store.reserve(&range, &owner(2), all_in_use).unwrap();
    assert!(
        store.entries().unwrap()[0].1.is("c1", "eth0"),
        "the first one's file was written over"
    );
    // It died before the link.
    fs::write(path.join(DRAFT), "c9\r\neth0").unwrap();
    store.reserve(&range, &owner(3), all_in_use).unwrap();
    assert_eq!(store.entries().unwrap().len(), 3);
    assert!(!path.join(DRAFT).exists());
}

#[test]
fn a_lock_that_is_never_given_up_is_told() {
    let (_dir, path) = fresh();
    let _held = Store::lock(&path).unwrap();
    let failure = Store::lock_within(&path, Duration::from_millis(50)).unwrap_err();
    assert_eq!(failure.code().0, 11);
    assert!(failure.to_string().contains("lock"), "{failure}");
}

#[test]
fn no_directory_is_no_address() {
    let (_dir, path) = fresh();
    assert!(Store::lock_if_there(&path).unwrap().is_none());
    assert!(entries(&path).unwrap().is_empty());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let failure = Store::lock(&file.path().join("aws-cni")).unwrap_err();
    assert_eq!(failure.code().0, 5);
    assert!(
        failure.to_string().contains(file.path().to_str().unwrap()),
        "{failure}"
    );
}

#[test]
fn many_at_once_get_distinct_addresses() {
    let (_dir, path) = fresh();
    let range = range("169.254.172.0/22");
    let threads: Vec<_> = (0..32)
        .map(|n| {
            let path = path.clone();
            std::thread::spawn(move || {
                Store::lock(&path)
                    .unwrap()
                    .reserve(&range, &owner(n), all_in_use)
                    .unwrap()
            })
        })
        .collect();
    let given: BTreeSet<IpAddr> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(given.len(), 32);
}

#[derive(Clone, Debug)]
enum Step {
    Reserve,
    Release(usize),
    /// A process dies with this much of a reservation done: the draft, the link, all but the hint.
    Dies(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Reserve),
        2 => any::<usize>().prop_map(Step::Release),
        1 => (0_u8..3).prop_map(Step::Dies),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// No address has two owners; none is lost: what is on disk is what was given, with what the dead left.
    #[test]
    fn one_owner_each_and_none_lost(steps in steps()) {
        let (_dir, path) = fresh();
        let range = range("169.254.172.0/28");
        let mut model: BTreeMap<IpAddr, Owner> = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            // Each step is a process of its own.
            let mut store = Store::lock(&path).unwrap();
            match step {
                Step::Reserve => match store.reserve(&range, &owner(n), all_in_use) {
                    Ok(address) => prop_assert!(model.insert(address, owner(n)).is_none(), "{address} given twice"),
                    Err(failure) => {
                        prop_assert_eq!(failure.code().0, 11);
                        prop_assert_eq!(model.len() as u128, range.len());
                    }
                },
                Step::Release(at) if !model.is_empty() => {
                    let address = *model.keys().nth(at % model.len()).unwrap();
                    store.release(address).unwrap();
                    store.release(address).unwrap();
                    model.remove(&address);
                }
                Step::Release(_) => {}
                Step::Dies(done) => {
                    let draft = store.draft(&owner(n).to_text()).unwrap();
                    if done > 0 && let Some(address) = store.publish(&draft, &range).unwrap() {
                        model.insert(address, owner(n));
                    }
                    if done > 1 {
                        fs::remove_file(&draft).unwrap();
                    }
                }
            }
            let on_disk: BTreeMap<IpAddr, Owner> = store.entries().unwrap().into_iter().collect();
            prop_assert_eq!(&on_disk, &model);
        }
    }
}
