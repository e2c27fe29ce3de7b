//! Invariants over arbitrary input: nothing panics, and a result survives any version's form.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Map, Value};
use vpcnet_cni::{
    Args, CniResult, Dns, Env, Interface, IpConfig, NetConf, Route, SpecVersion, Verb, version_answer,
};

/// Keys that the code looks at, so that arbitrary JSON reaches its corners, beside arbitrary ones.
fn key() -> impl Strategy<Value = String> {
    let known = [
        "cniVersion",
        "name",
        "type",
        "prevResult",
        "runtimeConfig",
        "interfaces",
        "ips",
        "routes",
        "dns",
        "mac",
        "sandbox",
        "mtu",
        "address",
        "gateway",
        "interface",
        "dst",
        "gw",
        "nameservers",
        "domain",
        "search",
        "options",
        "cni.dev/valid-attachments",
        "cni.dev/attachments",
        "containerID",
        "ifname",
    ];
    prop_oneof![4 => prop::sample::select(known.map(str::to_owned).to_vec()), 1 => ".*"]
}

fn json() -> impl Strategy<Value = Value> {
    let texts = [
        "0.4.0",
        "1.1.0",
        "aws-cni",
        "10.0.0.1/32",
        "10.0.0.1",
        "::1/128",
        "eth0",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..4i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        prop::sample::select(texts.map(Value::from).to_vec()),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn verb() -> impl Strategy<Value = Verb> {
    prop::sample::select(Verb::ALL.to_vec())
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u16; 8]>().prop_map(IpAddr::from)
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (ip(), 0..=128u8).prop_map(|(ip, len)| {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, len % (most + 1)).unwrap()
    })
}

fn result() -> impl Strategy<Value = CniResult> {
    let text = "[a-z0-9.:/]{0,12}";
    let interface = (text, text, text).prop_map(|(name, mac, sandbox)| Interface {
        name,
        mac,
        sandbox,
        mtu: None,
    });
    let dns = (
        prop::collection::vec(text, 0..3),
        text,
        prop::collection::vec(text, 0..3),
    )
        .prop_map(|(nameservers, domain, options)| Dns {
            nameservers,
            domain,
            search: Vec::new(),
            options,
        });
    let route = (net(), prop::option::of(ip())).prop_map(|(dst, gw)| Route { dst, gw });
    (
        prop::collection::vec(interface, 1..5),
        prop::collection::vec(route, 0..3),
        dns,
    )
        .prop_flat_map(|(interfaces, routes, dns)| {
            let one = (
                net(),
                prop::option::of(ip()),
                prop::option::of(0..interfaces.len()),
            )
                .prop_map(|(address, gateway, interface)| IpConfig {
                    address,
                    gateway,
                    interface,
                });
            prop::collection::vec(one, 0..4).prop_map(move |ips| CniResult {
                interfaces: interfaces.clone(),
                ips,
                routes: routes.clone(),
                dns: dns.clone(),
            })
        })
}

proptest! {
    #[test]
    fn no_json_makes_the_configuration_panic(verb in verb(), conf in json()) {
        let _ = NetConf::parse(verb, conf.to_string().as_bytes());
    }

    #[test]
    fn no_configuration_that_starts_well_makes_it_panic(verb in verb(), rest in json()) {
        let mut conf = serde_json::json!({ "cniVersion": "1.1.0", "name": "n", "prevResult": rest });
        if let (Some(conf), Value::Object(rest)) = (conf.as_object_mut(), rest) {
            conf.extend(rest);
        }
        let _ = NetConf::parse(verb, conf.to_string().as_bytes());
    }

    #[test]
    fn no_bytes_make_anything_panic(verb in verb(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = NetConf::parse(verb, &bytes);
        let _ = NetConf::version_of(&bytes);
        let _ = version_answer(&bytes);
    }

    #[test]
    fn no_text_makes_the_arguments_panic(text in ".*") {
        let _ = Args::parse(&text);
    }

    #[test]
    fn arguments_that_are_well_formed_are_read_back(name in "[^;=]*", namespace in "[^;=]*", uid in "[^;=]*") {
        let text = format!("K8S_POD_UID={uid};IgnoreUnknown=1;K8S_POD_NAME={name};X=y;K8S_POD_NAMESPACE={namespace}");
        let args = Args::parse(&text).unwrap();
        prop_assert_eq!((args.pod_name, args.pod_namespace, args.pod_uid), (name, namespace, uid));
    }

    #[test]
    fn an_accepted_environment_keeps_the_rules(verb in verb(), id in ".*", netns in ".*", name in ".*") {
        let vars = [("CNI_COMMAND", verb.as_str()), ("CNI_CONTAINERID", id.as_str()), ("CNI_NETNS", netns.as_str()),
                    ("CNI_IFNAME", name.as_str()), ("CNI_PATH", "/bin")];
        let read = Env::read(|n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| (*v).to_owned()));
        if let Ok(env) = read {
            prop_assert!(env.if_name.len() <= 15 && !env.if_name.contains(['/', ':', ' ']));
            prop_assert!(env.container_id.bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
        }
    }

    #[test]
    fn a_result_survives_every_versions_form(result in result()) {
        for version in SpecVersion::ALL {
            let printed = result.to_json(version);
            prop_assert_eq!(&printed["cniVersion"], version.as_str());
            prop_assert_eq!(&CniResult::parse(&printed, "prevResult").unwrap(), &result);
            // As a runtime hands it back: inside a configuration of that version.
            let conf = serde_json::json!({ "cniVersion": version.as_str(), "name": "n", "prevResult": printed });
            let conf = NetConf::parse(Verb::Del, conf.to_string().as_bytes()).unwrap();
            prop_assert_eq!(conf.prev_result.as_ref(), Some(&result));
        }
    }
}
