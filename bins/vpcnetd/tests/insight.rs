//! What the agent tells by HTTP, as those meet it who read the AWS VPC CNI's pages and metrics.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // tests

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use vpcnet_cloud::{CallReport, Observer, Service};
use vpcnet_ipam::{CustomNetwork, Event, Evidence, InterfaceKind, Mode, Subnets, Targets};
use vpcnetd::config::{Bind, Config};
use vpcnetd::http;
use vpcnetd::introspect::{self, Pages};
use vpcnetd::leftovers::Leftovers;
use vpcnetd::observer::Calls;

use common::{Agent, add, del, started, until};

/// An agent with its pages on a unix socket.
struct Told {
    agent: Agent,
    socket: PathBuf,
    _stop: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Told {
    async fn by(agent: Agent, environment: &[(&str, &str)]) -> Self {
        let config = Config::read(&|name| {
            let found = environment.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        let config = Arc::new(config.unwrap());
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("pages.sock");
        let (stop, stopped) = watch::channel(false);
        let pages = Pages {
            core: agent.core.clone(),
            leftovers: Arc::new(Leftovers::new(config.host.clone())),
            config,
            publisher: agent.publisher.clone(),
            metrics: Arc::clone(&agent.metrics),
        };
        let bind = Bind::Unix(socket.clone());
        tokio::spawn(http::serve("test", bind, introspect::router(pages), stopped));
        until("the pages are served", async || {
            UnixStream::connect(&socket).await.is_ok()
        })
        .await;
        Self {
            agent,
            socket,
            _stop: stop,
            _dir: dir,
        }
    }

    /// Status and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
    }

    async fn metrics(&self) -> Scraped {
        Scraped::of(&self.get("/metrics").await.1)
    }
}

/// What a scraper sees.
#[derive(Default)]
struct Scraped {
    /// Type by name.
    types: BTreeMap<String, String>,
    /// Sets of labels by name, those of the format (`le`) left out.
    labels: BTreeMap<String, BTreeSet<Vec<String>>>,
    samples: BTreeMap<String, f64>,
}

impl Scraped {
    fn of(text: &str) -> Self {
        let mut scraped = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                scraped.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                scraped.samples.insert(series.to_owned(), value.parse().unwrap());
                let (sample, labels) = match series.split_once('{') {
                    Some((sample, labels)) => (sample, labels.strip_suffix('}').unwrap()),
                    None => (series, ""),
                };
                let names = labels.split("\",").filter(|l| !l.is_empty());
                let names = names.map(|l| l.split_once('=').unwrap().0.to_owned());
                let names: Vec<String> = names.filter(|n| n != "le").collect();
                let family = scraped.family(sample);
                scraped.labels.entry(family).or_default().insert(names);
            }
        }
        scraped
    }

    /// The metric that a sample is of.
    fn family(&self, sample: &str) -> String {
        if self.types.contains_key(sample) {
            return sample.to_owned();
        }
        let ends = ["_bucket", "_sum", "_count"];
        let family = ends.iter().find_map(|end| sample.strip_suffix(end)).unwrap();
        assert!(self.types.contains_key(family), "{sample}");
        family.to_owned()
    }

    fn value(&self, series: &str) -> f64 {
        *self
            .samples
            .get(series)
            .unwrap_or_else(|| panic!("{series} in {:#?}", self.samples))
    }
}

/// When a series is there.
#[derive(PartialEq)]
enum There {
    /// From the start.
    Always,
    /// Once what it counts has happened.
    Then,
}
use There::{Always, Then};

/// The metrics of amazon-vpc-cni-k8s 1.23.1: name, type, labels. Those of things that this agent does not do are in
/// [`LEFT_OUT`].
const ORIGINAL: &[(&str, &str, &[&str], There)] = &[
    ("awscni_build_info", "gauge", &["version", "goversion"], Always),
    ("awscni_ipamd_error_count", "counter", &["fn"], Then),
    ("awscni_ipamd_action_inprogress", "gauge", &["fn"], Always),
    ("awscni_eni_max", "gauge", &[], Always),
    ("awscni_ip_max", "gauge", &[], Always),
    ("awscni_eni_allocated", "gauge", &[], Always),
    ("awscni_total_ip_addresses", "gauge", &[], Always),
    ("awscni_assigned_ip_addresses", "gauge", &[], Always),
    ("awscni_total_ipv4_prefixes", "gauge", &[], Always),
    ("awscni_assigned_ip_per_cidr", "gauge", &["cidr"], Then),
    ("awscni_assigned_ip_per_eni", "gauge", &["eni"], Always),
    ("awscni_no_available_ip_addresses", "counter", &[], Always),
    ("awscni_reconcile_count", "counter", &["fn"], Then),
    ("awscni_add_ip_req_count", "counter", &[], Always),
    ("awscni_del_ip_req_count", "counter", &["reason"], Then),
    (
        "awscni_aws_api_latency_ms",
        "summary",
        &["api", "error", "status"],
        Then,
    ),
    ("awscni_aws_api_error_count", "counter", &["api", "error"], Then),
    ("awscni_aws_utils_error_count", "counter", &["fn", "error"], Then),
    ("awscni_ec2api_req_count", "counter", &["fn"], Then),
    ("awscni_ec2api_error_count", "counter", &["fn"], Then),
    ("awscni_force_removed_enis", "counter", &[], Always),
    ("awscni_force_removed_ips", "counter", &[], Always),
    (
        "awscni_ipamd_startup_duration_seconds",
        "histogram",
        &["success", "with_api_server", "failure_reason"],
        Then,
    ),
    (
        "awscni_ipamd_node_initialization_duration_seconds",
        "histogram",
        &["success"],
        Then,
    ),
    ("awscni_connmark_backend", "gauge", &["backend"], Always),
    ("awscni_connmark_reconcile_total", "counter", &["result"], Then),
    ("process_cpu_seconds_total", "counter", &[], Always),
    ("process_open_fds", "gauge", &[], Always),
    ("process_max_fds", "gauge", &[], Always),
    ("process_resident_memory_bytes", "gauge", &[], Always),
    ("process_virtual_memory_bytes", "gauge", &[], Always),
    ("process_start_time_seconds", "gauge", &[], Always),
];

/// Branch interfaces are not there yet; there is no Go runtime.
const LEFT_OUT: &[&str] = &["awscni_pod_eni_error_count", "go_"];

#[tokio::test]
async fn the_metrics_of_the_original_are_there_by_name_type_and_labels() {
    let told = Told::by(Agent::with_pool(1, false), &[]).await;
    let before = told.metrics().await;
    for (name, ..) in ORIGINAL.iter().filter(|(.., there)| *there == Always) {
        assert!(before.types.contains_key(*name), "{name} from the start");
    }
    // Everything that is counted happens once.
    let (metrics, mut cni) = (&told.agent.metrics, told.agent.cni().await);
    cni.add_network(add(1)).await.unwrap();
    cni.add_network(add(2)).await.unwrap_err();
    let mut facts = told
        .agent
        .core
        .look(|v| v.pool.unwrap().interfaces().next().unwrap())
        .await
        .unwrap();
    facts.addresses.push([10, 0, 1, 77].into());
    told.agent.core.event(Event::InterfaceSeen {
        facts,
        evidence: Evidence::Ec2,
    });
    let calls = Calls {
        metrics: Arc::clone(metrics),
        publisher: None,
        news: vpcnetd::news::Newsroom::default(),
    };
    for (service, status, error) in [
        (Service::Ec2, Some(200), None),
        (Service::Ec2, Some(503), Some("RequestLimitExceeded")),
        (Service::Ec2, None, Some("Timeout")),
        (Service::Credentials, Some(500), Some("500")),
    ] {
        calls.call(CallReport {
            service,
            api: "CreateNetworkInterface",
            status,
            error,
            latency: Duration::from_millis(250),
        });
    }
    metrics.error("increaseIPPoolAllocENI");
    metrics.drop_in.started(Duration::from_secs(2), false);
    metrics.drop_in.initialised(false, Duration::from_secs(1));
    metrics.drop_in.connmark_reconciled(true);
    let during = told.metrics().await;
    assert_eq!(
        during.value("awscni_assigned_ip_per_cidr{cidr=\"10.0.1.0/32\"}"),
        1.0
    );
    cni.del_network(del(1)).await.unwrap();
    let scraped = told.metrics().await;
    assert_eq!(
        scraped.samples.keys().find(|s| s.contains("ip_per_cidr{")),
        None,
        "what no pod has is no series"
    );
    for (name, kind, labels, _) in ORIGINAL {
        let seen = if scraped.types.contains_key(*name) {
            &scraped
        } else {
            &during
        };
        assert_eq!(seen.types.get(*name).map(String::as_str), Some(*kind), "{name}");
        let wanted: BTreeSet<&str> = labels.iter().copied().collect();
        for found in &seen.labels[*name] {
            let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
            assert_eq!(found, wanted, "{name}");
        }
    }
    let known: BTreeSet<&str> = ORIGINAL.iter().map(|(name, ..)| *name).collect();
    for name in scraped.types.keys().filter(|n| !n.starts_with("vpcnet_")) {
        assert!(known.contains(name.as_str()), "{name} is not the original's");
        assert!(!LEFT_OUT.iter().any(|l| name.starts_with(l)), "{name}");
    }
    // And they mean what they mean there.
    for (series, value) in [
        ("awscni_no_available_ip_addresses", 1.0),
        ("awscni_add_ip_req_count", 2.0),
        ("awscni_del_ip_req_count{reason=\"PodDeleted\"}", 1.0),
        ("awscni_reconcile_count{fn=\"eniDataStorePoolReconcileAdd\"}", 1.0),
        ("awscni_ec2api_req_count{fn=\"CreateNetworkInterface\"}", 3.0),
        ("awscni_ec2api_error_count{fn=\"CreateNetworkInterface\"}", 2.0),
        (
            "awscni_aws_api_latency_ms_sum{api=\"CreateNetworkInterface\",error=\"false\",status=\"200\"}",
            250.0,
        ),
        (
            "awscni_aws_api_latency_ms_count{api=\"CreateNetworkInterface\",error=\"true\",status=\"\"}",
            1.0,
        ),
        ("awscni_ipamd_action_inprogress{fn=\"nodeInit\"}", 0.0),
        ("awscni_force_removed_ips", 0.0),
        ("awscni_eni_max", 3.0),
        ("awscni_ip_max", 27.0),
        ("awscni_total_ip_addresses", 2.0),
        (
            "vpcnet_ec2_calls_total{action=\"CreateNetworkInterface\",result=\"success\"}",
            1.0,
        ),
        (
            "vpcnet_ec2_calls_total{action=\"CreateNetworkInterface\",result=\"throttled\"}",
            1.0,
        ),
        (
            "vpcnet_ec2_calls_total{action=\"CreateNetworkInterface\",result=\"unanswered\"}",
            1.0,
        ),
        ("vpcnet_refusals_total{cause=\"target_reached\"}", 1.0),
        ("vpcnet_pool_free_addresses{subnet=\"subnet-1\"}", 2.0),
    ] {
        assert_eq!(scraped.value(series), value, "{series}");
    }
    assert!(scraped.value("process_resident_memory_bytes") > 1e6);
    assert!(scraped.value("process_start_time_seconds") > 1.6e9);
    assert!(scraped.value("process_open_fds") >= 5.0);
}

#[tokio::test]
async fn waiting_pods_are_counted_by_cause_and_subnets_by_what_they_have_left() {
    let told = Told::by(Agent::with_pool(0, true), &[]).await;
    assert!(
        !told
            .metrics()
            .await
            .types
            .contains_key("vpcnet_subnet_free_addresses")
    );
    told.agent.core.event(Event::SubnetFacts {
        subnet: "subnet-1".into(),
        free_addresses: 4_000,
        free_prefixes: Some(12),
    });
    let mut cni = told.agent.cni().await;
    let waits = tokio::spawn(async move { cni.add_network(add(1)).await });
    until("it waits", async || told.agent.waiting().await == 1).await;
    let scraped = told.metrics().await;
    assert_eq!(scraped.value("vpcnet_waiting_pods{cause=\"still_working\"}"), 1.0);
    assert_eq!(
        scraped.value("vpcnet_subnet_free_addresses{subnet=\"subnet-1\"}"),
        4_000.0
    );
    assert_eq!(
        scraped.value("vpcnet_subnet_free_prefixes{subnet=\"subnet-1\"}"),
        12.0
    );
    assert!(scraped.value("awscni_ipamd_action_inprogress{fn=\"increaseDatastorePool\"}") >= 1.0);
    waits.abort();
}

#[tokio::test]
async fn the_pages_list_themselves() {
    let told = Told::by(Agent::serve(), &[]).await;
    for path in ["/", "/v1/pods"] {
        let page = told.json(path).await;
        let paths: Vec<&str> = page["AvailableCommands"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_str().unwrap())
            .collect();
        for original in [
            "/v1/enis",
            "/v1/eni-configs",
            "/v1/networkutils-env-settings",
            "/v1/ipamd-env-settings",
        ] {
            assert!(paths.contains(&original), "{original}");
        }
    }
    let (status, body) = told.get("/v1/enis").await;
    assert!(status == 503 && body.contains("no pool yet"), "{status} {body}");
    let scraped = told.metrics().await;
    assert_eq!(
        scraped.value("awscni_ipamd_action_inprogress{fn=\"nodeInit\"}"),
        1.0
    );
}

/// A pool with a single address, a prefix and a /80, and a pod.
async fn mixed(mode: Mode) -> Told {
    let agent = Agent::serve();
    let mut start = started(2, false);
    let mut facts = start.pool.interfaces().next().unwrap();
    facts.prefixes.push("10.0.2.16/28".parse().unwrap());
    facts.ipv6_prefixes.push("fd00:1:2:3:4::/80".parse().unwrap());
    let now = vpcnetd::clock::now();
    let evidence = Evidence::Ec2;
    start.pool.handle(now, Event::InterfaceSeen { facts, evidence });
    let targets = Targets {
        mode,
        ..start.pool.targets().clone()
    };
    start.pool.handle(now, Event::TargetsChanged(targets));
    agent.core.start(start);
    let told = Told::by(agent, &[]).await;
    told.agent.cni().await.add_network(add(1)).await.unwrap();
    told
}

#[tokio::test]
async fn interfaces_are_shown_in_the_shape_of_the_original_with_prefixes_and_without_sandbox_ids() {
    let told = mixed(Mode::Prefixes).await;
    let (_, text) = told.get("/v1/enis").await;
    assert!(!text.contains("sandbox-1"), "{text}");
    let page: Value = serde_json::from_str(&text).unwrap();
    let eni = &page["0"]["ENIs"]["eni-1"];
    assert_eq!(page["0"]["TotalIPs"], json!(2 + 16 + (1_u64 << 48)));
    assert_eq!(page["0"]["AssignedIPs"], json!(1));
    let keys: Vec<&str> = eni.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = [
        "ID",
        "IsPrimary",
        "IsTrunk",
        "IsEFA",
        "DeviceNumber",
        "AvailableIPv4Cidrs",
        "IPv6Cidrs",
        "IsExcludedForPodIPs",
        "RouteTableID",
        "SubnetID",
    ];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    assert_eq!(
        (
            &eni["ID"],
            &eni["IsPrimary"],
            &eni["RouteTableID"],
            &eni["SubnetID"]
        ),
        (&json!("eni-1"), &json!(true), &json!(254), &json!("subnet-1"))
    );
    let cidrs = eni["AvailableIPv4Cidrs"].as_object().unwrap();
    let names: Vec<&str> = cidrs.keys().map(String::as_str).collect();
    assert_eq!(names, ["10.0.1.0/32", "10.0.1.1/32", "10.0.2.16/28"]);
    assert_eq!(
        cidrs["10.0.1.0/32"],
        json!({"Cidr": {"IP": "10.0.1.0", "Mask": "/////w=="}, "IPAddresses": {}, "IsPrefix": false, "AddressFamily": "4"})
    );
    let prefix = &cidrs["10.0.2.16/28"];
    assert_eq!(prefix["Cidr"], json!({"IP": "10.0.2.16", "Mask": "////8A=="}));
    assert_eq!(prefix["IsPrefix"], json!(true));
    let addresses = prefix["IPAddresses"].as_object().unwrap();
    let [(at, address)] = &addresses.iter().collect::<Vec<_>>()[..] else {
        panic!("{addresses:?}")
    };
    assert_eq!(address["Address"], json!(at));
    assert_eq!(
        address["IPAMKey"],
        json!({"networkName": "aws-cni", "containerID": "", "ifName": ""})
    );
    assert_eq!(
        address["IPAMMetadata"],
        json!({"k8sPodNamespace": "default", "k8sPodName": "pod-1", "interfacesCount": 1})
    );
    assert_eq!(address["UnassignedTime"], json!("0001-01-01T00:00:00Z"));
    assert!(address["AssignedTime"].as_str().unwrap().ends_with('Z'));
    let v6 = &eni["IPv6Cidrs"]["fd00:1:2:3:4::/80"];
    assert_eq!(v6["Cidr"]["Mask"], json!("/////////////wAAAAAAAA=="));
    assert_eq!(
        (&v6["IsPrefix"], &v6["AddressFamily"]),
        (&json!(true), &json!("6"))
    );
}

#[tokio::test]
async fn an_ipv6_pod_is_listed_under_its_prefix_and_counted() {
    let told = mixed(Mode::Ipv6).await;
    let page = told.json("/v1/enis").await;
    assert_eq!(page["0"]["AssignedIPs"], json!(1));
    let prefix = &page["0"]["ENIs"]["eni-1"]["IPv6Cidrs"]["fd00:1:2:3:4::/80"];
    assert_eq!(prefix["IPAddresses"].as_object().unwrap().len(), 1, "{prefix}");
    let scraped = told.metrics().await;
    assert_eq!(scraped.value("awscni_assigned_ip_addresses"), 1.0);
    assert_eq!(scraped.value("awscni_assigned_ip_per_eni{eni=\"eni-1\"}"), 1.0);
    assert_eq!(
        scraped.value("awscni_assigned_ip_per_cidr{cidr=\"fd00:1:2:3:4::/80\"}"),
        1.0
    );
}

#[tokio::test]
async fn interfaces_of_others_are_not_listed_and_excluded_ones_are_marked() {
    let agent = Agent::serve();
    let mut start = started(2, false);
    let now = vpcnetd::clock::now();
    let mut facts = start.pool.interfaces().next().unwrap();
    facts.id = "eni-9".into();
    facts.device = vpcnet_ipam::DeviceIndex(1);
    facts.is_primary = false;
    facts.managed = false;
    facts.kind = InterfaceKind::Interface;
    facts.mac = "02:00:00:00:00:09".into();
    facts.addresses.clear();
    let evidence = Evidence::Ec2;
    start.pool.handle(now, Event::InterfaceSeen { facts, evidence });
    let subnets = Subnets {
        excluded: ["subnet-1".into()].into(),
        custom: Some(CustomNetwork {
            name: "zone-a".into(),
            ..CustomNetwork::default()
        }),
        ..Subnets::default()
    };
    let targets = Targets {
        subnets,
        ..start.pool.targets().clone()
    };
    start.pool.handle(now, Event::TargetsChanged(targets));
    agent.core.start(start);
    let told = Told::by(agent, &[]).await;
    let page = told.json("/v1/enis").await;
    let enis = page["0"]["ENIs"].as_object().unwrap();
    assert_eq!(enis.keys().collect::<Vec<_>>(), ["eni-1"]);
    assert_eq!(enis["eni-1"]["IsExcludedForPodIPs"], json!(true));
    assert_eq!(told.json("/v1/eni-configs").await, json!("zone-a"));
    assert_eq!(
        told.metrics().await.value("awscni_eni_max"),
        2.0,
        "what others have is not ours"
    );
}

#[tokio::test]
async fn settings_are_shown_under_the_names_and_with_the_types_of_the_original() {
    let environment = [
        ("WARM_IP_TARGET", "4"),
        ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.9.0.0/16"),
        ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "hashrandom"),
    ];
    let told = Told::by(Agent::with_pool(1, false), &environment).await;
    assert_eq!(
        told.json("/v1/networkutils-env-settings").await,
        json!({
            "AWS_VPC_K8S_CNI_CONNMARK": 128,
            "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": ["10.9.0.0/16"],
            "AWS_VPC_K8S_CNI_EXTERNALSNAT": false,
            "AWS_EXTERNAL_SERVICE_CIDRS": null,
            "AWS_VPC_ENI_MTU": 9001,
            "AWS_VPC_K8S_CNI_VETHPREFIX": "eni",
            "AWS_VPC_CNI_NODE_PORT_SUPPORT": true,
            "AWS_VPC_K8S_CNI_RANDOMIZESNAT": 1,
        })
    );
    let pool = told.json("/v1/ipamd-env-settings").await;
    assert_eq!(pool["WARM_IP_TARGET"], json!(4));
    assert_eq!(pool["WARM_ENI_TARGET"], json!(1));
    for name in [
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
        "AWS_MANAGE_ENIS_NON_SCHEDULABLE",
        "ENABLE_SUBNET_DISCOVERY",
    ] {
        assert!(pool[name].is_boolean(), "{name}: {pool}");
    }
    let (status, _) = told.get("/v1/eni-configs").await;
    assert_eq!(status, 404, "no ENIConfig is in force");
}

#[tokio::test]
async fn one_pod_is_explained_with_what_it_has_or_why_it_was_refused() {
    let told = Told::by(Agent::with_pool(1, false), &[]).await;
    let mut cni = told.agent.cni().await;
    cni.add_network(add(1)).await.unwrap();
    for _ in 0..2 {
        cni.add_network(add(2)).await.unwrap_err();
    }
    let has = told.json("/v1/vpcnet/explain?namespace=default&name=pod-1").await;
    let held = &has["pod"]["holds"][0];
    assert_eq!(
        (&held["address"], &held["eni"]),
        (&json!("10.0.1.0"), &json!("eni-1"))
    );
    assert!(held["why"].as_str().unwrap().contains("idle longest"), "{held}");
    assert!(has["refused"].is_null());
    let musts = has["kernel"][0]["musts"].as_array().unwrap();
    let of = |text: &str| musts.iter().find(|m| m["what"].as_str().unwrap().contains(text));
    assert_eq!(
        of("rule 512").unwrap()["is_so"],
        json!(false),
        "nobody made it here: {musts:#?}"
    );
    let refused = told.json("/v1/vpcnet/explain?namespace=default&name=pod-2").await;
    assert_eq!(refused["refused"]["times"], json!(2));
    assert!(
        refused["refused"]["message"]
            .as_str()
            .unwrap()
            .contains("provisioning is off"),
        "{refused}"
    );
    assert_eq!(refused["pod"]["holds"], json!([]));
    let status = told.json("/v1/vpcnet/status").await;
    assert_eq!(status["refused"][0]["meta"]["name"], json!("pod-2"));
    let nobody = told.json("/v1/vpcnet/explain?namespace=default&name=pod-3").await;
    assert!(nobody["refused"].is_null() && nobody["pod"]["waits"] == json!([]));
    let (status, _) = told.get("/v1/vpcnet/explain?namespace=default").await;
    assert_eq!(status, 400);
}
