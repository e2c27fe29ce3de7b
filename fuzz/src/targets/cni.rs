//! What the container runtime hands to the plugin: the network configuration on standard input, and `CNI_ARGS`.

use vpcnet_cni::{Args, ArgsError, CniResult, NetConf, SpecVersion, Verb, version_answer};

use crate::Target;

pub(crate) const CNI_STDIN: Target = Target {
    name: "cni_stdin",
    check: check_stdin,
    words: &[
        "\"cniVersion\":\"0.3.1\"",
        "\"cniVersion\":\"0.4.0\"",
        "\"cniVersion\":\"1.1.0\"",
        "\"cniVersion\":\"9.9.9\"",
        "\"name\":\"aws-cni\"",
        "\"prevResult\":",
        "\"interfaces\":[{\"name\":\"eth0\",\"mac\":\"02:00:00:00:00:01\",\"sandbox\":\"/var/run/netns/a\"}]",
        "\"ips\":[{\"address\":\"10.0.0.9/32\",\"interface\":0}]",
        "\"interface\":-1",
        "\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"169.254.1.1\"}]",
        "\"dns\":{}",
        "\"runtimeConfig\":{\"io.kubernetes.cri.pod-annotations\":{}}",
        "\"cni.dev/valid-attachments\":[{\"containerID\":\"a\",\"ifname\":\"eth0\"}]",
        "null",
        "1e999",
        "\\ud800",
        "[[[[[[[[",
    ],
};

fn check_stdin(stdin: &[u8]) {
    // VERSION has to be answered whatever comes.
    let answer = version_answer(stdin);
    assert!(
        answer
            .get("supportedVersions")
            .is_some_and(serde_json::Value::is_array)
    );
    let spoken = NetConf::version_of(stdin);
    for verb in Verb::ALL {
        let conf = match NetConf::parse(verb, stdin) {
            Ok(conf) => conf,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                let _ = error.code();
                continue;
            }
        };
        let Some(result) = &conf.prev_result else {
            continue;
        };
        for version in SpecVersion::ALL {
            let printed = result.to_json(version);
            let read = CniResult::parse(&printed, "prevResult").expect("what we print we read");
            assert_eq!(&read, result, "in the form of {version}");
            // As the runtime hands it back.
            let whole = serde_json::json!({
                "cniVersion": version.as_str(), "name": "n", "type": "aws-cni", "prevResult": printed,
            });
            let again =
                NetConf::parse(Verb::Del, whole.to_string().as_bytes()).expect("a whole configuration");
            assert_eq!(again.prev_result.as_ref(), Some(result));
        }
        assert!(SpecVersion::ALL.contains(&spoken));
    }
}

pub(crate) const CNI_ARGS: Target = Target {
    name: "cni_args",
    check: check_args,
    words: &[
        "K8S_POD_NAME=",
        "K8S_POD_NAMESPACE=",
        "K8S_POD_INFRA_CONTAINER_ID=",
        "K8S_POD_UID=",
        "IgnoreUnknown=1",
        "IgnoreUnknown=false",
        "IgnoreUnknown=maybe",
        ";",
        "=",
        "==",
        ";;",
        "UNKNOWN=1;",
    ],
};

fn check_args(bytes: &[u8]) {
    // The plugin takes a variable that is no UTF-8 as one that is not set.
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Args::parse(text) {
        Ok(args) => {
            let written = format!(
                "K8S_POD_NAME={};K8S_POD_NAMESPACE={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
                args.pod_name, args.pod_namespace, args.infra_container_id, args.pod_uid
            );
            assert_eq!(Args::parse(&written).as_ref(), Ok(&args));
            // What is not known may be there if that is allowed, wherever it stands.
            let more = format!("X_NEW=1;{written};IgnoreUnknown=true");
            assert_eq!(Args::parse(&more), Ok(args));
        }
        Err(error) => {
            let said = error.to_string();
            let named = match &error {
                ArgsError::Pair { pair } => {
                    text.contains(pair.as_str()) && said.contains(&format!("{pair:?}"))
                }
                ArgsError::Unknown { keys } => {
                    !keys.is_empty() && keys.iter().all(|k| text.contains(k.as_str()))
                }
                ArgsError::IgnoreUnknown { value } => said.contains(&format!("{value:?}")),
            };
            assert!(named && said.starts_with("CNI_ARGS"), "{said}");
        }
    }
}
