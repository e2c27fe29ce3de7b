use proptest::prelude::*;

use super::*;

fn config(variables: &[(&str, &str)]) -> Config {
    Config::read(&|name| {
        let found = variables.iter().find(|(n, _)| *n == name)?;
        Some(found.1.to_owned())
    })
    .unwrap()
}

fn rendered(template: &str, variables: &[(&str, &str)], node: Option<&str>) -> Value {
    let node = node.map(|node| node.parse().unwrap());
    let conflist = Conflist::render(template, &config(variables), node).unwrap();
    serde_json::from_str(&conflist.text()).unwrap()
}

const V6: [(&str, &str); 2] = [("ENABLE_IPv6", "true"), ("ENABLE_PREFIX_DELEGATION", "true")];

#[test]
fn without_settings_the_chain_is_the_originals() {
    assert_eq!(
        rendered(BUILT_IN, &[], None),
        json!({
            "cniVersion": "0.4.0",
            "name": "aws-cni",
            "disableCheck": true,
            "plugins": [
                {
                    "name": "aws-cni",
                    "type": "aws-cni",
                    "vethPrefix": "eni",
                    "mtu": "9001",
                    "podSGEnforcingMode": "strict",
                    "pluginLogFile": "/var/log/aws-routed-eni/plugin.log",
                    "pluginLogLevel": "debug",
                    "capabilities": { "io.kubernetes.cri.pod-annotations": true }
                },
                {
                    "name": "egress-cni",
                    "type": "egress-cni",
                    "mtu": "9001",
                    "enabled": "false",
                    "randomizeSNAT": "prng",
                    "nodeIP": "",
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{ "subnet": "fd00::ac:00/118" }]],
                        "routes": [{ "dst": "::/0" }],
                        "dataDir": "/run/cni/v4pd/egress-v6-ipam"
                    },
                    "pluginLogFile": "/var/log/aws-routed-eni/egress-v6-plugin.log",
                    "pluginLogLevel": "debug"
                },
                { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }
            ]
        })
    );
}

#[test]
fn settings_are_where_the_plugins_read_them() {
    let list = rendered(
        BUILT_IN,
        &[
            ("AWS_VPC_ENI_MTU", "8000"),
            ("POD_MTU", "1400"),
            ("AWS_VPC_K8S_CNI_VETHPREFIX", "pod"),
            ("AWS_VPC_K8S_PLUGIN_LOG_FILE", "stderr"),
            ("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "WARN"),
            ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "none"),
        ],
        None,
    );
    let [ours, egress] = [&list["plugins"][0], &list["plugins"][1]];
    assert_eq!((&ours["mtu"], &egress["mtu"]), (&json!("1400"), &json!("1400")));
    assert_eq!(ours["vethPrefix"], "pod");
    assert_eq!(ours["pluginLogFile"], "stderr");
    assert_eq!(
        (&ours["pluginLogLevel"], &egress["pluginLogLevel"]),
        (&json!("warn"), &json!("warn"))
    );
    assert_eq!(egress["randomizeSNAT"], "none");
    assert!(
        ours.get("agentSocket").is_none(),
        "the plugin has that path itself"
    );
}

#[test]
fn in_an_ipv6_cluster_pods_reach_ipv4_from_the_nodes_ipv4_address() {
    let list = rendered(BUILT_IN, &V6, Some("10.0.0.7"));
    let egress = &list["plugins"][1];
    assert_eq!(
        (&egress["enabled"], &egress["nodeIP"]),
        (&json!("true"), &json!("10.0.0.7"))
    );
    assert_eq!(
        egress["ipam"]["ranges"],
        json!([[{ "subnet": "169.254.172.0/22" }]])
    );
    assert_eq!(egress["ipam"]["routes"], json!([{ "dst": "0.0.0.0/0" }]));
    assert_eq!(egress["ipam"]["dataDir"], "/run/cni/v6pd/egress-v4-ipam");
    assert_eq!(
        egress["pluginLogFile"],
        "/var/log/aws-routed-eni/egress-v4-plugin.log"
    );
}

#[test]
fn in_an_ipv4_cluster_egress_is_on_if_asked_for_and_the_node_has_an_ipv6_address() {
    let on = [("ENABLE_V6_EGRESS", "true")];
    let enabled = |variables: &[(&str, &str)], node| {
        let list = rendered(BUILT_IN, variables, node);
        let egress = &list["plugins"][1];
        (egress["enabled"].clone(), egress["nodeIP"].clone())
    };
    let (yes, no) = ((json!("true"), json!("2600::7")), (json!("false"), json!("")));
    assert_eq!(enabled(&on, Some("2600::7")), yes);
    assert_eq!(enabled(&on, None), no);
    assert_eq!(enabled(&[], Some("2600::7")), no);
}

#[test]
fn plugins_that_are_asked_for_come_last_and_once() {
    let both = [("ENABLE_BANDWIDTH_PLUGIN", "true"), ("DISABLE_POD_V6", "true")];
    let conflist = Conflist::render(BUILT_IN, &config(&both), None).unwrap();
    let types: Vec<_> = conflist.types().collect();
    assert_eq!(types, ["aws-cni", "egress-cni", "portmap", "bandwidth", "tuning"]);
    let list = rendered(BUILT_IN, &both, None);
    assert_eq!(
        list["plugins"][3],
        json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } })
    );
    assert_eq!(
        list["plugins"][4],
        json!({ "type": "tuning", "sysctl": {
            "net.ipv6.conf.all.disable_ipv6": "1",
            "net.ipv6.conf.default.disable_ipv6": "1",
            "net.ipv6.conf.lo.disable_ipv6": "1",
        } })
    );
    // A template that has one already.
    let text = conflist.text();
    assert_eq!(Conflist::render(&text, &config(&both), None).unwrap(), conflist);
}

#[test]
fn what_a_users_template_has_beside_the_tokens_stays_also_when_plugins_are_added() {
    let template = r#"{
        "cniVersion": "1.0.0", "name": "mine", "x-owner": { "team": "net" },
        "plugins": [
            { "type": "aws-cni", "mtu": "__MTU__", "agentSocket": "/mine.sock" },
            { "type": "portmap", "snat": true, "markMasqBit": 13, "prefix": "__VETHPREFIX__" },
            { "type": "mine", "number": __MTU__ }
        ]
    }"#;
    let variables = [
        ("ENABLE_BANDWIDTH_PLUGIN", "true"),
        ("VPCNET_SOCKET", "/other.sock"),
    ];
    assert_eq!(
        rendered(template, &variables, None),
        json!({
            "cniVersion": "1.0.0", "name": "mine", "x-owner": { "team": "net" },
            "plugins": [
                { "type": "aws-cni", "mtu": "9001", "agentSocket": "/mine.sock" },
                { "type": "portmap", "snat": true, "markMasqBit": 13, "prefix": "eni" },
                { "type": "mine", "number": 9001 },
                { "type": "bandwidth", "capabilities": { "bandwidth": true } }
            ]
        })
    );
}

#[test]
fn another_socket_of_the_agent_is_told_to_the_plugin() {
    let list = rendered(BUILT_IN, &[("VPCNET_SOCKET", "/run/other.sock")], None);
    assert_eq!(list["plugins"][0]["agentSocket"], "/run/other.sock");
}

#[test]
fn a_template_that_is_none_is_refused_with_the_place() {
    for (template, says) in [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[]", "the file: an object"),
        (r#"{"cniVersion":"0.4.0"}"#, "name: a text"),
        (r#"{"name":"a"}"#, "cniVersion: a text"),
        (r#"{"name":"a","cniVersion":"0.4.0"}"#, "plugins: a list"),
        (
            r#"{"name":"a","cniVersion":"0.4.0","plugins":[]}"#,
            "plugins: a list",
        ),
        (
            r#"{"name":"a","cniVersion":"0.4.0","plugins":[{"type":"x"},{}]}"#,
            "plugins[1].type",
        ),
        (
            r#"{"name":"a","cniVersion":"0.4.0","plugins":[{"type":"../x"}]}"#,
            "plugins[0].type",
        ),
    ] {
        let error = Conflist::render(template, &Config::default(), None).unwrap_err();
        assert!(error.to_string().contains(says), "{template}: {error}");
    }
}

fn spoken(lists: &[&[&str]]) -> Vec<BTreeSet<String>> {
    let set = |list: &&[&str]| list.iter().map(|v| (*v).to_owned()).collect();
    lists.iter().map(set).collect()
}

fn versions(lists: &[&[&str]]) -> Value {
    let mut conflist = Conflist::render(BUILT_IN, &Config::default(), None).unwrap();
    conflist.speak(&spoken(lists));
    conflist.0.get("cniVersions").cloned().unwrap_or_default()
}

#[test]
fn the_versions_are_those_that_all_plugins_speak() {
    let ours: &[&str] = &["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    // Debian 12's portmap.
    let older: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];
    assert_eq!(versions(&[ours, ours]), json!(["0.4.0", "1.0.0", "1.1.0"]));
    assert_eq!(versions(&[ours, older]), json!(["0.4.0", "1.0.0"]));
    assert_eq!(versions(&[older, &["0.4.0"]]), Value::Null);
    assert_eq!(versions(&[ours, &[]]), Value::Null, "one that says nothing");
    assert_eq!(versions(&[]), Value::Null);
    assert_eq!(
        versions(&[&["0.4.0", "1.10.0", "1.9.0", "new"]]),
        json!(["0.4.0", "1.9.0", "1.10.0"])
    );
}

#[test]
fn a_list_of_versions_that_the_template_has_stays() {
    let text = BUILT_IN.replace(
        r#""name": "aws-cni","#,
        r#""name": "aws-cni", "cniVersions": ["0.4.0"],"#,
    );
    let mut conflist = Conflist::render(&text, &Config::default(), None).unwrap();
    conflist.speak(&spoken(&[&["0.4.0", "1.0.0"]]));
    assert_eq!(conflist.0["cniVersions"], json!(["0.4.0"]));
}

#[test]
fn status_is_asked_as_a_runtime_would_with_the_log_where_it_can_be_written() {
    let conflist = Conflist::render(BUILT_IN, &Config::default(), None).unwrap();
    let question = conflist.question().unwrap();
    assert_eq!(
        (&question["cniVersion"], &question["name"]),
        (&json!("1.1.0"), &json!("aws-cni"))
    );
    assert_eq!(question["pluginLogFile"], "stderr");
    assert_eq!(question["vethPrefix"], "eni");
    let other = r#"{"name":"a","cniVersion":"0.4.0","plugins":[{"type":"multus"}]}"#;
    let other = Conflist::render(other, &Config::default(), None).unwrap();
    assert_eq!(other.question(), None);
}

proptest! {
    /// Whatever stands in a setting, it stands in the file, and nothing else changes by it.
    #[test]
    fn a_values_characters_never_change_the_files_form(path in "[^\\x00_]{1,40}") {
        prop_assume!(!["stdout", "stderr"].contains(&path.as_str()));
        let mut config = Config::default();
        config.plugin.log_file = path.clone().into();
        let list = Conflist::render(BUILT_IN, &config, None).unwrap();
        let mut plain = Conflist::render(BUILT_IN, &Config::default(), None).unwrap();
        plain.ours_mut().unwrap().insert("pluginLogFile".into(), path.into());
        prop_assert_eq!(list, plain);
    }
}
