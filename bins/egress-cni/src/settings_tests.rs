//! What a configuration means, and what is said of one that means nothing.

use serde_json::{Value, json};
use vpcnet_cni::Verb;

use super::*;

fn v4() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "aws-cni", "type": "egress-cni", "enabled": "true", "mtu": "9001",
        "randomizeSNAT": "prng", "nodeIP": "10.0.0.10",
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": "169.254.172.0/22" }]],
                  "routes": [{ "dst": "0.0.0.0/0" }], "dataDir": "/run/cni/v6pd/egress-v4-ipam" },
        "pluginLogFile": "/var/log/aws-routed-eni/egress-v4-plugin.log", "pluginLogLevel": "Debug"
    })
}

fn v6() -> Value {
    let mut conf = v4();
    conf["nodeIP"] = json!("2600:1f14::10");
    conf["ipam"]["ranges"] = json!([[{ "subnet": "fd00::ac:00/118" }]]);
    conf["ipam"]["routes"] = json!([{ "dst": "::/0" }]);
    conf["ipam"]["dataDir"] = json!("/run/cni/v4pd/egress-v6-ipam");
    conf
}

fn read(conf: &Value) -> Result<Settings, Failure> {
    Settings::read(&NetConf::parse(Verb::Add, conf.to_string().as_bytes()).unwrap())
}

/// Changes the value at a JSON pointer; null takes it away.
fn with(mut conf: Value, at: &str, value: Value) -> Value {
    *conf.pointer_mut(at).unwrap() = value;
    conf
}

#[track_caller]
fn refused(conf: &Value, code: u32, words: &[&str]) {
    let failure = read(conf).unwrap_err();
    assert_eq!(failure.code().0, code, "{failure}");
    for word in words {
        assert!(failure.to_string().contains(word), "no {word:?} in {failure}");
    }
}

#[test]
fn the_originals_configurations() {
    let settings = read(&v4()).unwrap();
    let ipam = settings.ipam.clone().unwrap();
    assert!(settings.enabled);
    assert_eq!(settings.mtu, 9001);
    assert_eq!(settings.node(false).unwrap(), IpAddr::from([10, 0, 0, 10]));
    assert_eq!(ipam.range.net(), "169.254.172.0/22".parse::<IpNet>().unwrap());
    assert_eq!(ipam.dir, PathBuf::from("/run/cni/v6pd/egress-v4-ipam/aws-cni"));
    let settings = read(&v6()).unwrap();
    assert!(settings.ipam.as_ref().unwrap().range.is_v6());
    assert_eq!(settings.node(true).unwrap().to_string(), "2600:1f14::10");
}

#[test]
fn three_ways_to_choose_ports_and_prng_for_any_other_word() {
    for (word, mode, noted) in [
        ("prng", Randomize::Prng, false),
        ("hashrandom", Randomize::Hashrandom, false),
        ("none", Randomize::None, false),
        ("perhaps", Randomize::Prng, true),
    ] {
        let settings = read(&with(v4(), "/randomizeSNAT", json!(word))).unwrap();
        assert_eq!(settings.randomize, mode, "{word}");
        assert_eq!(settings.randomize_note.is_some(), noted, "{word}");
    }
}

#[test]
fn each_error_names_its_field() {
    refused(
        &with(v4(), "/mtu", json!("jumbo")),
        7,
        &["mtu", "jumbo", "number"],
    );
    refused(&with(v4(), "/mtu", json!(9001)), 6, &["mtu", "a string"]);
    refused(&with(v4(), "/mtu", json!("100")), 7, &["mtu", "576"]);
    refused(&with(v6(), "/mtu", json!("1279")), 7, &["mtu", "1280"]);
    refused(&with(v4(), "/enabled", json!(true)), 6, &["enabled", "a string"]);
    refused(&with(v4(), "/ipam", Value::Null), 6, &["ipam"]);
    refused(
        &with(v4(), "/ipam/type", json!("dhcp")),
        2,
        &["ipam.type", "dhcp"],
    );
    refused(&with(v4(), "/ipam/dataDir", Value::Null), 7, &["ipam.dataDir"]);
    refused(
        &with(v4(), "/ipam/dataDir", json!("run")),
        7,
        &["ipam.dataDir", "absolute"],
    );
    refused(&with(v4(), "/ipam/ranges", json!([])), 2, &["ipam.ranges"]);
    refused(
        &with(v4(), "/ipam/ranges", json!([[], []])),
        2,
        &["ipam.ranges", "2 entries"],
    );
    refused(&with(v4(), "/ipam/ranges", json!([7])), 6, &["ipam.ranges[0]"]);
    refused(
        &with(v4(), "/ipam/ranges", json!([[{}]])),
        6,
        &["ipam.ranges[0][0].subnet"],
    );
    refused(
        &with(v4(), "/ipam/ranges/0/0/subnet", json!("x")),
        6,
        &["ipam.ranges[0][0].subnet"],
    );
    refused(
        &with(
            v4(),
            "/ipam/ranges/0/0",
            json!({ "subnet": "169.254.172.0/22", "gateway": "169.254.172.9" }),
        ),
        2,
        &["ipam.ranges[0][0].gateway", "169.254.172.9"],
    );
    refused(
        &with(v4(), "/ipam/ranges/0/0/subnet", json!("169.254.172.1/22")),
        7,
        &["subnet", "host bits"],
    );
    refused(
        &with(v4(), "/ipam/ranges/0/0/subnet", json!("10.0.0.0/22")),
        7,
        &["subnet", "169.254"],
    );
    refused(
        &with(v4(), "/ipam/routes", json!([{ "dst": "::/0" }])),
        2,
        &["ipam.routes[0].dst", "::/0"],
    );
    refused(
        &with(
            v4(),
            "/ipam/routes",
            json!([{ "dst": "0.0.0.0/0", "gw": "1.1.1.1" }]),
        ),
        2,
        &["ipam.routes[0].gw"],
    );
}

#[test]
fn the_nodes_address_must_be_one_that_others_can_answer_to() {
    for (conf, v6_range, found, word) in [
        (v4(), false, "", "IPv4 address"),
        (v6(), true, "", "IPv6 egress needs one"),
        (v4(), false, "x", "IPv4 address"),
        (v4(), false, "2600:1f14::10", "family"),
        (v4(), false, "169.254.1.1", "answer"),
        (v4(), false, "127.0.0.1", "answer"),
        (v6(), true, "fe80::1", "answer"),
        (v6(), true, "ff02::1", "answer"),
    ] {
        let settings = read(&with(conf, "/nodeIP", json!(found))).unwrap();
        let failure = settings.node(v6_range).unwrap_err();
        assert_eq!(failure.code().0, 7);
        let text = failure.to_string();
        assert!(text.contains("nodeIP") && text.contains(word), "{found}: {text}");
    }
}

#[test]
fn not_enabled_only_the_mtu_must_be_a_number() {
    let off = |conf| with(conf, "/enabled", json!("false"));
    assert!(!read(&off(v4())).unwrap().enabled);
    assert!(
        !read(&with(v4(), "/enabled", json!("True"))).unwrap().enabled,
        "as the original: only \"true\""
    );
    assert_eq!(read(&off(with(v4(), "/ipam", Value::Null))).unwrap().ipam, None);
    assert_eq!(read(&off(with(v4(), "/mtu", json!("1")))).unwrap().mtu, 1);
    refused(&off(with(v4(), "/mtu", json!("jumbo"))), 7, &["mtu"]);
}
