//! Laws that hold for every environment.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use vpcnet_config::{Config, Kind, MISSING, Reading, Variable, all, report};

type Environment = BTreeMap<String, String>;

fn read(environment: &Environment) -> Reading {
    Reading::of(&|name| environment.get(name).cloned())
}

/// Values of the kind, values of other kinds, and anything.
fn value(kind: Kind) -> BoxedStrategy<String> {
    let of_kind: BoxedStrategy<String> = match kind {
        Kind::Bool => prop::sample::select(vec!["true", "false", "1", "0"])
            .prop_map_into()
            .boxed(),
        Kind::Number { .. } | Kind::NumberOrNone | Kind::Seconds { .. } | Kind::Mark => {
            (-3_i64..70_000).prop_map(|n| n.to_string()).boxed()
        }
        Kind::Mtu => (500_u32..9100).prop_map(|n| n.to_string()).boxed(),
        Kind::Choice(words) | Kind::ChoiceAnyCase(words) => {
            prop::sample::select(words.to_vec()).prop_map_into().boxed()
        }
        Kind::Cidrs => "[0-9./,:a ]{0,40}".boxed(),
        Kind::Tags => r#"\{("[a-z:.]{0,20}":"[a-z]{0,3}",?){0,3}\}"#.boxed(),
        Kind::Bind => "(localhost|127\\.0\\.0\\.1|unix)?:[0-9/]{0,6}".boxed(),
        Kind::Url => "https?://[a-z@:0-9/?\\[\\]]{0,20}".boxed(),
        Kind::Prefix => "[a-z/*é]{0,6}".boxed(),
        _ => "[a-zA-Z0-9/._-]{0,12}".boxed(),
    };
    let nasty = prop::sample::select(vec![
        "",
        " ",
        "-",
        "+",
        "0x",
        "true",
        "TRUE ",
        "-1",
        "99999999999999999999999",
        "{",
        "\u{0}",
        "é€😀",
        "a,b,,c",
        "1e9",
        "NaN",
        "stdout",
        "none",
        "unix:",
        "http://",
        "/",
        "::",
        ",",
    ]);
    prop_oneof![4 => of_kind, 2 => nasty.prop_map_into(), 1 => any::<String>()].boxed()
}

fn variable() -> impl Strategy<Value = &'static Variable> {
    prop::sample::select(all().collect::<Vec<_>>())
}

fn setting() -> impl Strategy<Value = (String, String)> {
    variable().prop_flat_map(|v| value(v.kind).prop_map(move |text| (v.name.to_owned(), text)))
}

fn environment() -> impl Strategy<Value = Environment> {
    prop::collection::vec(setting(), 0..25).prop_map(|settings| settings.into_iter().collect())
}

fn others(reading: &Reading, but: &str) -> Vec<(&'static str, bool)> {
    let given = reading.given.iter().filter(|g| g.variable.name != but);
    given.map(|g| (g.variable.name, g.accepted)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_environment_panics(
        known in prop::collection::vec(setting(), 0..40),
        other in prop::collection::vec((any::<String>(), any::<String>()), 0..5),
        near in prop::collection::vec(("[A-Z_4]{0,30}", any::<String>()), 0..5),
    ) {
        let list: Vec<(String, String)> = known.into_iter().chain(other).chain(near).collect();
        let report = report(&list, Vec::new());
        let text = report.text();
        prop_assert!(text.starts_with("vpcnetd "));
        // Whatever stands in a value, it cannot write to the terminal.
        prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        let environment: Environment = list.into_iter().collect();
        let started = Config::read(&|name| environment.get(name).cloned());
        prop_assert_eq!(started.is_ok(), report.starts());
    }

    #[test]
    fn a_value_that_is_none_changes_no_setting(around in environment(), (name, text) in setting()) {
        let mut with = around.clone();
        with.insert(name.clone(), text);
        let mut without = around;
        without.remove(&name);
        let (with, without) = (read(&with), read(&without));
        let given = with.given.iter().find(|g| g.variable.name == name);
        if given.is_some_and(|g| !g.accepted) {
            prop_assert_eq!(&with.config, &without.config);
        }
        // Nor does any value change whether another one is taken, but for the least MTU, which IPv6 raises.
        if name != "ENABLE_IPv6" {
            prop_assert_eq!(others(&with, &name), others(&without, &name));
        }
    }

    #[test]
    fn what_was_taken_gives_the_same_again(environment in environment()) {
        let first = read(&environment);
        prop_assert_eq!(&first, &read(&environment));
        let taken: Environment = first
            .given
            .iter()
            .filter(|g| g.accepted)
            .map(|g| (g.variable.name.to_owned(), g.value.clone()))
            .collect();
        let second = read(&taken);
        prop_assert_eq!(&first.config, &second.config);
        prop_assert!(second.given.iter().all(|g| g.accepted));
    }

    #[test]
    fn what_cannot_be_done_yet_changes_no_setting(environment in environment()) {
        let plain = read(&environment);
        let judged = plain.clone().without(MISSING);
        prop_assert_eq!(&plain.config, &judged.config);
        prop_assert!(judged.findings.starts_with(&plain.findings));
    }
}
