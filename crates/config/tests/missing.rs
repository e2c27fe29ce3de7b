//! What cannot be done yet is a list apart from reading.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use vpcnet_config::{ConfigError, Finding, MISSING, Missing, Reading, Verdict, report, vars};

const LIST: &[Missing] = &[
    Missing {
        variables: &[&vars::ENABLE_POD_ENI],
        asked: |c| c.branch.enabled,
        verdict: Verdict::Refused,
    },
    Missing {
        variables: &[&vars::POD_MTU, &vars::DISABLE_POD_V6],
        asked: |c| c.plugin.disable_pod_v6 || c.host.pod_mtu != c.host.mtu,
        verdict: Verdict::Noted("something else holds"),
    },
];

fn judged(vars: &[(&str, &str)], list: &[Missing]) -> Reading {
    let lookup = |name: &str| {
        let found = vars.iter().find(|(n, _)| *n == name)?;
        Some(found.1.to_owned())
    };
    Reading::of(&lookup).without(list)
}

#[test]
fn what_is_refused_is_named_with_its_value() {
    let reading = judged(&[("ENABLE_POD_ENI", "T")], LIST);
    let error = ConfigError::Unsupported {
        name: "ENABLE_POD_ENI",
        value: "T".into(),
    };
    assert_eq!(reading.findings, [Finding::Refused(error)]);
    assert!(reading.accept().is_err());
}

#[test]
fn what_is_noted_names_all_that_was_written_and_what_holds_instead() {
    let config = judged(&[("POD_MTU", "1500"), ("DISABLE_POD_V6", "true")], LIST)
        .accept()
        .unwrap();
    assert_eq!(
        config.notes,
        ["POD_MTU=1500, DISABLE_POD_V6=true: not done by this version of vpcnetd: something else holds"]
    );
}

#[test]
fn what_is_not_asked_for_is_not_told() {
    for vars in [
        &[][..],
        &[("ENABLE_POD_ENI", "false"), ("POD_MTU", "9001")],
        // No value, so nobody asked.
        &[("ENABLE_POD_ENI", "yes"), ("DISABLE_POD_V6", "yes")],
    ] {
        let reading = judged(vars, LIST);
        let of_the_list = |f: &&Finding| f.to_string().contains("this version");
        assert_eq!(reading.findings.iter().filter(of_the_list).count(), 0, "{vars:?}");
    }
}

#[test]
fn a_line_that_is_gone_switches_its_setting_on() {
    assert!(
        judged(&[("ENABLE_POD_ENI", "true")], &[])
            .accept()
            .unwrap()
            .branch
            .enabled
    );
}

#[test]
fn nothing_of_the_list_is_told_at_a_start_that_asks_for_nothing_and_a_report_still_says_it() {
    assert_eq!(judged(&[], MISSING).findings, []);
    let by_default = Reading::of(&|_| None).config;
    let text = report(&[], Vec::new()).text();
    for missing in MISSING.iter().filter(|m| (m.asked)(&by_default)) {
        let Verdict::Noted(instead) = missing.verdict else {
            panic!("the defaults ask for {:?}, which is refused", missing.variables);
        };
        assert!(text.contains(instead), "{text}");
    }
}
