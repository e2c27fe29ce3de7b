use super::*;

fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let vars: BTreeMap<String, String> = vars
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Config::read(&move |name| vars.get(name).cloned())
}

#[test]
fn an_empty_environment_gives_the_shipped_defaults_and_no_notes() {
    let c = read(&[]).unwrap();
    assert_eq!(c.pool.warm_eni, 1);
    assert_eq!(
        (c.pool.warm_ip, c.pool.minimum_ip, c.pool.max_eni),
        (None, None, None)
    );
    assert_eq!(c.pool.cooldown, Duration::from_secs(30));
    assert!(c.pool.provisioning && c.host.node_port && !c.host.external_snat);
    assert_eq!(
        (c.host.mtu, c.host.mark, c.host.veth_prefix.as_str()),
        (9001, 0x80, "eni")
    );
    assert_eq!(c.socket, PathBuf::from(DEFAULT_SOCKET));
    assert_eq!(c.state, PathBuf::from("/var/run/aws-node/vpcnet-state.json"));
    assert_eq!(c.metrics.unwrap().to_string(), "0.0.0.0:61678");
    assert_eq!(c.introspection.unwrap().to_string(), "127.0.0.1:61679");
    assert_eq!(c.log.level, tracing::Level::DEBUG);
    assert_eq!(c.policy_mode, "");
    assert!(c.notes.is_empty(), "{:?}", c.notes);
}

#[test]
fn booleans_take_exactly_the_spellings_of_the_original() {
    for (text, want) in [
        ("1", true),
        ("t", true),
        ("T", true),
        ("TRUE", true),
        ("true", true),
        ("True", true),
        ("0", false),
        ("f", false),
        ("F", false),
        ("FALSE", false),
        ("false", false),
        ("False", false),
    ] {
        let c = read(&[
            ("AWS_VPC_K8S_CNI_EXTERNALSNAT", text),
            ("AWS_VPC_CNI_NODE_PORT_SUPPORT", text),
        ])
        .unwrap();
        assert_eq!((c.host.external_snat, c.host.node_port), (want, want), "{text}");
        assert!(c.notes.is_empty());
    }
    for text in ["yes", "tRUE", " true", "2"] {
        let c = read(&[
            ("AWS_VPC_K8S_CNI_EXTERNALSNAT", text),
            ("AWS_VPC_CNI_NODE_PORT_SUPPORT", text),
        ])
        .unwrap();
        assert_eq!(
            (c.host.external_snat, c.host.node_port),
            (false, true),
            "{text}: the defaults"
        );
        assert_eq!(c.notes.len(), 2, "each is noted");
    }
}

#[test]
fn numbers_that_are_none_or_out_of_range_count_as_not_set() {
    for (name, text) in [
        ("WARM_ENI_TARGET", "-1"),
        ("WARM_ENI_TARGET", "many"),
        ("WARM_IP_TARGET", "-5"),
        ("WARM_IP_TARGET", "3 "),
        ("MINIMUM_IP_TARGET", "0x10"),
        ("MAX_ENI", "-2"),
        ("IP_COOLDOWN_PERIOD", "-1"),
        ("IP_COOLDOWN_PERIOD", "soon"),
        ("AWS_VPC_ENI_MTU", "575"),
        ("AWS_VPC_ENI_MTU", "9002"),
    ] {
        let c = read(&[(name, text)]).unwrap();
        let defaults = read(&[]).unwrap();
        assert_eq!((c.pool, c.host), (defaults.pool, defaults.host), "{name}={text}");
        assert_eq!(c.notes.len(), 1, "{name}={text} is noted");
    }
}

#[test]
fn numbers_in_range_are_taken_and_zero_is_kept_where_it_means_something() {
    let c = read(&[
        ("WARM_ENI_TARGET", "0"),
        ("WARM_IP_TARGET", "+5"),
        ("MINIMUM_IP_TARGET", "0"),
        ("MAX_ENI", "2"),
        ("IP_COOLDOWN_PERIOD", "0"),
        ("AWS_VPC_ENI_MTU", "1500"),
        ("VPCNET_MAX_PODS", "58"),
    ])
    .unwrap();
    assert_eq!(
        (c.pool.warm_eni, c.pool.warm_ip, c.pool.minimum_ip),
        (0, Some(5), None)
    );
    assert_eq!(
        (c.pool.max_eni, c.pool.cooldown, c.host.mtu),
        (Some(2), Duration::ZERO, 1500)
    );
    assert_eq!(c.pool.max_pods, Some(58));
    assert!(c.notes.is_empty(), "{:?}", c.notes);
}

#[test]
fn exclusions_are_normalised_and_what_is_no_ipv4_cidr_is_skipped() {
    let c = read(&[(
        "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
        "10.1.2.3/8, fd00::/8,nonsense,10.0.0.0/8,192.168.0.0/16",
    )])
    .unwrap();
    assert_eq!(
        c.host.exclude_snat,
        vec![
            "10.0.0.0/8".parse().unwrap(),
            "192.168.0.0/16".parse::<Ipv4Net>().unwrap()
        ]
    );
    assert_eq!(c.notes.len(), 2);
}

#[test]
fn marks_are_read_with_their_base() {
    for (text, want, notes) in [
        ("0x100", 0x100, 0),
        ("256", 256, 0),
        ("0200", 0o200, 0),
        ("0b11", 3, 0),
        ("0xffffffff", u32::MAX, 0),
        ("0x100000000", 0x80, 1),
        ("0", 0x80, 1),
        ("-1", 0x80, 1),
        ("mark", 0x80, 1),
    ] {
        let c = read(&[("AWS_VPC_K8S_CNI_CONNMARK", text)]).unwrap();
        assert_eq!((c.host.mark, c.notes.len()), (want, notes), "{text}");
    }
}

#[test]
fn names_reserved_on_the_node_are_no_veth_prefix() {
    for (text, want) in [
        ("veth", "veth"),
        ("eth", "eni"),
        ("vlan", "eni"),
        ("lo", "eni"),
        ("longer", "eni"),
    ] {
        assert_eq!(
            read(&[("AWS_VPC_K8S_CNI_VETHPREFIX", text)])
                .unwrap()
                .host
                .veth_prefix,
            want
        );
    }
}

#[test]
fn additional_tags_lose_reserved_keys_and_broken_json_means_none() {
    let c = read(&[(
        "ADDITIONAL_ENI_TAGS",
        r#"{"team":"a","node.k8s.amazonaws.com/x":"y"}"#,
    )])
    .unwrap();
    assert_eq!(c.cloud.tags, BTreeMap::from([("team".into(), "a".into())]));
    assert_eq!(c.notes.len(), 1);
    let c = read(&[("ADDITIONAL_ENI_TAGS", "{team")]).unwrap();
    assert!(c.cloud.tags.is_empty() && c.notes.len() == 1);
}

#[test]
fn servers_can_be_moved_and_switched_off() {
    let c = read(&[
        ("DISABLE_METRICS", "true"),
        ("INTROSPECTION_BIND_ADDRESS", "unix:/run/x.sock"),
    ])
    .unwrap();
    assert_eq!(
        (c.metrics, c.introspection),
        (None, Some(Bind::Unix("/run/x.sock".into())))
    );
    for (text, want) in [
        (":1234", "0.0.0.0:1234"),
        ("localhost:9", "127.0.0.1:9"),
        ("[::1]:9", "[::1]:9"),
        ("", "127.0.0.1:61679"),
    ] {
        let c = read(&[("INTROSPECTION_BIND_ADDRESS", text)]).unwrap();
        assert_eq!(c.introspection.unwrap().to_string(), want);
    }
}

#[test]
fn the_state_file_follows_the_checkpoint_unless_named() {
    let c = read(&[("AWS_VPC_K8S_CNI_BACKING_STORE", "/tmp/x/ipam.json")]).unwrap();
    assert_eq!(c.state, PathBuf::from("/tmp/x/vpcnet-state.json"));
    let c = read(&[
        ("AWS_VPC_K8S_CNI_BACKING_STORE", "/tmp/x/ipam.json"),
        ("VPCNET_STATE", "/tmp/y"),
    ])
    .unwrap();
    assert_eq!(c.state, PathBuf::from("/tmp/y"));
}

#[test]
fn what_would_give_pods_other_addresses_than_asked_for_stops_the_start() {
    for name in [
        "ENABLE_IPv6",
        "ENABLE_PREFIX_DELEGATION",
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
        "ENABLE_POD_ENI",
    ] {
        assert!(
            matches!(read(&[(name, "true")]), Err(ConfigError::Unsupported { .. })),
            "{name}"
        );
        assert!(read(&[(name, "false")]).is_ok());
    }
    assert!(read(&[("ENABLE_IPv4", "false")]).is_err());
    assert!(matches!(
        read(&[("NETWORK_POLICY_ENFORCING_MODE", "lax")]),
        Err(ConfigError::Invalid { .. })
    ));
    assert_eq!(
        read(&[("NETWORK_POLICY_ENFORCING_MODE", "Strict")])
            .unwrap()
            .policy_mode,
        "Strict"
    );
}

#[test]
fn what_can_be_done_another_way_is_only_noted() {
    let c = read(&[("ANNOTATE_POD_IP", "true"), ("ENABLE_MULTI_NIC", "true")]).unwrap();
    assert_eq!(c.notes.len(), 2);
}

#[test]
fn the_own_endpoint_variable_goes_before_the_older_name() {
    let c = read(&[
        ("AWS_EC2_ENDPOINT", "http://b"),
        ("AWS_ENDPOINT_URL_EC2", "http://a"),
    ])
    .unwrap();
    assert_eq!(c.cloud.ec2_endpoint.as_deref(), Some("http://a"));
    assert_eq!(
        read(&[("AWS_EC2_ENDPOINT", "http://b")])
            .unwrap()
            .cloud
            .ec2_endpoint
            .as_deref(),
        Some("http://b")
    );
    assert_eq!(
        read(&[("HTTP_TIMEOUT", "3")]).unwrap().cloud.timeout,
        Duration::from_secs(10)
    );
    assert_eq!(
        read(&[("HTTP_TIMEOUT", "25")]).unwrap().cloud.timeout,
        Duration::from_secs(25)
    );
}
