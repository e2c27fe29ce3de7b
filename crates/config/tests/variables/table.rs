//! The table itself.

use std::collections::BTreeSet;
use std::path::Path;

use vpcnet_config::{Invalid, Kind, all};

#[test]
fn every_variable_has_a_test_of_its_name() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/variables");
    let mut tests = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let marked = lines.windows(2).filter(|pair| pair[0] == "#[test]");
        tests.extend(
            marked.filter_map(|pair| Some(pair[1].strip_prefix("fn ")?.split_once('(')?.0.to_owned())),
        );
    }
    let missing: Vec<String> = all().map(|v| v.test()).filter(|t| !tests.contains(t)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn no_variable_is_there_twice_and_each_says_what_it_does() {
    let mut names = BTreeSet::new();
    for variable in all() {
        assert!(names.insert(variable.name), "{} is there twice", variable.name);
        assert!(
            variable.text.ends_with('.'),
            "{}: {:?}",
            variable.name,
            variable.text
        );
        assert!(
            variable.original.is_empty() || variable.original.ends_with('.'),
            "{}",
            variable.name
        );
    }
    assert!(names.len() > 70, "only {} variables", names.len());
}

/// A kind that any text fits must not promise to judge, and the other way round.
#[test]
fn what_an_invalid_value_does_fits_the_kind() {
    for v in all() {
        let anything = matches!(v.kind, Kind::Text | Kind::Path | Kind::LogFile | Kind::Nothing);
        let judged_elsewhere = matches!(v.kind, Kind::HandedOn | Kind::Secret);
        assert!(
            judged_elsewhere || anything == (v.invalid == Invalid::Never),
            "{} {:?} {:?}",
            v.name,
            v.kind,
            v.invalid
        );
        if let Invalid::RefusedWith(other) = v.invalid {
            assert!(
                all().any(|o| o.name == other && o.kind == Kind::Bool),
                "{}",
                v.name
            );
        }
    }
}
