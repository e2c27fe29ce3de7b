//! The metadata client against a server that behaves as IMDS does on its good and on its bad days.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Say, Server, imds, tree};
use vpcnet_cloud::{CallReport, Imds, ImdsConfig, ImdsError, Observer, Service};

fn client(server: &Server) -> Imds {
    Imds::new(Some(server.url())).unwrap()
}

fn hasty(server: &Server) -> Imds {
    Imds::with_config(ImdsConfig {
        endpoint: Some(server.url()),
        try_timeout: Duration::from_millis(400),
        timeout: Duration::from_secs(2),
        ..ImdsConfig::default()
    })
    .unwrap()
}

#[tokio::test]
async fn the_instance_is_read_with_values_trimmed() {
    let server = Server::start(imds(tree())).await;
    let facts = client(&server).instance_facts().await.unwrap();
    let identity = &facts.identity;
    assert_eq!(
        (identity.region.as_str(), identity.availability_zone.as_str()),
        ("eu-west-1", "eu-west-1a")
    );
    assert_eq!(
        (identity.instance_id.as_str(), identity.instance_type.as_str()),
        ("i-0aaa", "m5.large")
    );
    assert_eq!(
        (identity.mac.as_str(), identity.local_ipv4.to_string().as_str()),
        ("06:00:00:00:00:01", "10.0.0.10")
    );
    assert_eq!(
        (
            facts.interface_id.as_str(),
            facts.subnet_id.as_str(),
            facts.vpc_id.as_str()
        ),
        ("eni-0001", "subnet-0a", "vpc-0a")
    );
    let cidrs: Vec<String> = facts.vpc_ipv4_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.0.0.0/16", "100.64.0.0/16"]);
    assert_eq!(facts.security_groups, ["sg-1", "sg-2"]);
}

#[tokio::test]
async fn the_region_comes_from_the_identity_document_where_its_own_path_is_missing() {
    let mut tree = tree();
    tree.remove("/latest/meta-data/placement/region");
    tree.insert(
        "/latest/dynamic/instance-identity/document".to_owned(),
        r#"{"region":"eu-west-1","x":1}"#.to_owned(),
    );
    let server = Server::start(imds(tree)).await;
    assert_eq!(client(&server).identity().await.unwrap().region, "eu-west-1");
}

#[tokio::test]
async fn interfaces_come_with_every_field_and_only_listed_fields_are_asked_for() {
    let server = Server::start(imds(tree())).await;
    let listing = client(&server).interfaces().await.unwrap();
    assert!(listing.skipped.is_empty());
    let [first, second] = listing.interfaces.as_slice() else {
        panic!("two interfaces: {listing:?}")
    };
    assert_eq!(
        (first.id.as_str(), first.primary, first.device, first.card),
        ("eni-0001", true, 0, 0)
    );
    assert_eq!(first.primary_ipv4().unwrap().to_string(), "10.0.0.10");
    assert_eq!(first.local_ipv4s.len(), 3);
    assert_eq!(first.subnet_ipv4_cidr.unwrap().to_string(), "10.0.0.0/20");
    assert_eq!(
        (second.id.as_str(), second.primary, second.device, second.card),
        ("eni-0002", false, 1, 1)
    );
    assert_eq!(
        second
            .ipv4_prefixes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["10.0.1.16/28", "10.0.1.32/28"]
    );
    assert_eq!(
        second.ipv6_prefixes.first().unwrap().to_string(),
        "2001:db8:0:0:1::/80"
    );
    assert_eq!(
        (
            second.ipv6s.len(),
            second.subnet_ipv6_cidrs.len(),
            second.subnet_ipv4_cidr
        ),
        (1, 1, None)
    );
    assert_eq!(
        server.asked_for("06:00:00:00:00:01/ipv4-prefix"),
        0,
        "it is not in the list of fields"
    );
}

#[tokio::test]
async fn one_connection_and_one_token_serve_every_read() {
    let server = Server::start(imds(tree())).await;
    let client = client(&server);
    let other = client.clone();
    for _ in 0..20 {
        // At the same time: they take turns on the connection.
        let (a, b) = tokio::join!(
            client.vpc_ipv4_cidrs("06:00:00:00:00:01"),
            other.security_groups("06:00:00:00:00:01")
        );
        a.unwrap();
        b.unwrap();
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(server.asked_for("/latest/api/token"), 1);
}

#[tokio::test]
async fn a_token_that_is_no_longer_known_is_replaced_and_the_read_repeated() {
    let known = Mutex::new("first".to_owned());
    let known = Arc::new(known);
    let current = known.clone();
    let server = Server::start(move |_, asked| {
        let current = current.lock().unwrap().clone();
        if asked.path == "/latest/api/token" {
            return Say::ok(current);
        }
        if asked.header("x-aws-ec2-metadata-token") == Some(&current) {
            Say::ok("yes")
        } else {
            Say::status(401)
        }
    })
    .await;
    let client = client(&server);
    assert_eq!(client.get("mac").await.unwrap().as_deref(), Some("yes"));
    *known.lock().unwrap() = "second".to_owned();
    assert_eq!(client.get("mac").await.unwrap().as_deref(), Some("yes"));
    assert_eq!(server.asked_for("/latest/api/token"), 2);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_short_lived_token_is_renewed_before_it_ends() {
    let server = Server::start(|before, asked| {
        if asked.path == "/latest/api/token" {
            let ttl = vec![("x-aws-ec2-metadata-token-ttl-seconds", "0".to_owned())];
            return Say::Status(200, ttl, format!("token-{before}"));
        }
        Say::ok(asked.header("x-aws-ec2-metadata-token").unwrap_or_default())
    })
    .await;
    let client = client(&server);
    assert_eq!(client.get("a").await.unwrap().as_deref(), Some("token-0"));
    assert_eq!(client.get("a").await.unwrap().as_deref(), Some("token-2"));
}

#[tokio::test]
async fn its_own_token_refused_again_and_again_ends_as_an_error() {
    let server = Server::start(|_, asked| {
        if asked.method == "PUT" {
            Say::ok("t")
        } else {
            Say::status(401)
        }
    })
    .await;
    assert!(matches!(
        client(&server).get("mac").await,
        Err(ImdsError::Unauthorized { .. })
    ));
}

#[tokio::test]
async fn without_tokens_it_goes_on_with_version_1_for_the_statuses_the_sdks_accept() {
    for status in [403, 404, 405] {
        let server = Server::start(move |_, asked| {
            if asked.method == "PUT" {
                Say::status(status)
            } else {
                Say::ok("v1")
            }
        })
        .await;
        let client = client(&server);
        assert_eq!(client.get("mac").await.unwrap().as_deref(), Some("v1"));
        client.get("mac").await.unwrap();
        assert_eq!(
            server.asked_for("/latest/api/token"),
            1,
            "it is not asked for again"
        );
        assert!(
            server
                .asked()
                .iter()
                .all(|a| a.header("x-aws-ec2-metadata-token").is_none())
        );
    }
}

#[tokio::test]
async fn other_refusals_of_a_token_and_forbidden_version_1_are_errors() {
    let server = Server::start(|_, _| Say::status(400)).await;
    assert!(matches!(
        client(&server).get("mac").await,
        Err(ImdsError::Token { status: 400, .. })
    ));
    let server = Server::start(|_, _| Say::status(403)).await;
    let config = ImdsConfig {
        endpoint: Some(server.url()),
        allow_v1: false,
        ..ImdsConfig::default()
    };
    let client = Imds::with_config(config).unwrap();
    assert!(matches!(
        client.get("mac").await,
        Err(ImdsError::Token { status: 403, .. })
    ));
    assert_eq!(server.asked().len(), 1, "no read is sent without a token");
}

/// Answers the first requests for values badly, then well.
fn bad_then_good(bad: usize, say: Say) -> impl Fn(usize, &support::Asked) -> Say {
    let left = Mutex::new(bad);
    move |_, asked| {
        if asked.method == "PUT" {
            return Say::ok("t");
        }
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return say.clone();
        }
        Say::ok("good")
    }
}

#[tokio::test]
async fn throttling_and_server_errors_pass() {
    for status in [429, 500, 503] {
        let server = Server::start(bad_then_good(2, Say::status(status))).await;
        assert_eq!(
            client(&server).get("mac").await.unwrap().as_deref(),
            Some("good"),
            "{status}"
        );
    }
    let server = Server::start(bad_then_good(99, Say::status(503))).await;
    assert_eq!(
        client(&server).get("mac").await,
        Err(ImdsError::Status {
            path: "mac".to_owned(),
            status: 503
        })
    );
    assert_eq!(server.asked_for("/mac"), 3);
}

#[tokio::test]
async fn silence_once_costs_a_try_and_silence_for_good_the_deadline() {
    let server = Server::start(bad_then_good(1, Say::Hang)).await;
    assert_eq!(hasty(&server).get("mac").await.unwrap().as_deref(), Some("good"));
    let server = Server::start(|_, _| Say::Hang).await;
    let began = Instant::now();
    assert!(matches!(
        hasty(&server).get("mac").await,
        Err(ImdsError::Deadline { .. })
    ));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_reader_that_goes_away_does_not_leave_its_answer_to_the_next() {
    let server = Server::start(|_, asked| match asked.path.as_str() {
        "/latest/api/token" => Say::ok("t"),
        "/latest/meta-data/slow" => Say::Hang,
        other => Say::ok(other),
    })
    .await;
    let client = client(&server);
    client.get("first").await.unwrap();
    let gone = tokio::time::timeout(Duration::from_millis(30), client.get("slow")).await;
    assert!(gone.is_err());
    assert_eq!(
        client.get("next").await.unwrap().as_deref(),
        Some("/latest/meta-data/next")
    );
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Imds::new(Some(url)).unwrap().get("mac").await.unwrap_err();
    assert!(matches!(error, ImdsError::Unreachable { .. }), "{error}");
    assert!(error.may_pass());
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced_unnoticed() {
    let server = Server::raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let client = client(&server);
    for _ in 0..3 {
        assert_eq!(client.get("mac").await.unwrap().as_deref(), Some("ok"));
    }
    assert!(server.accepted() >= 4, "each answer came on its own connection");
}

#[tokio::test]
async fn not_found_is_none_or_missing() {
    let server = Server::start(imds(tree())).await;
    let client = client(&server);
    assert_eq!(client.get("ipv6").await.unwrap(), None);
    assert_eq!(client.list("ipv6s").await.unwrap(), Vec::<String>::new());
    assert!(matches!(
        client.require("ipv6").await,
        Err(ImdsError::Missing { .. })
    ));
}

#[tokio::test]
async fn the_instances_own_ipv6_address_is_read_where_it_has_one() {
    let mut tree = tree();
    let server = Server::start(imds(tree.clone())).await;
    assert_eq!(client(&server).primary_ipv6().await.unwrap(), None);
    tree.insert("/latest/meta-data/ipv6".to_owned(), "2001:db8::5\n".to_owned());
    let server = Server::start(imds(tree.clone())).await;
    let own = client(&server).primary_ipv6().await.unwrap();
    assert_eq!(own, Some("2001:db8::5".parse().unwrap()));
    tree.insert("/latest/meta-data/ipv6".to_owned(), "10.0.0.5".to_owned());
    let server = Server::start(imds(tree)).await;
    let refused = client(&server).primary_ipv6().await;
    assert!(matches!(refused, Err(ImdsError::Malformed { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_page_of_html_is_no_metadata() {
    let server = Server::start(|_, asked| {
        if asked.method == "PUT" {
            Say::ok("t")
        } else {
            Say::ok("<html><body>Please log in</body></html>")
        }
    })
    .await;
    let client = client(&server);
    assert!(matches!(
        client.identity().await,
        Err(ImdsError::Malformed { .. })
    ));
    assert!(client.vpc_ipv4_cidrs("06:00:00:00:00:01").await.is_err());
    assert!(client.security_groups("06:00:00:00:00:01").await.is_err());
    let listing = client.interfaces().await.unwrap();
    assert!(
        listing.interfaces.is_empty() && !listing.skipped.is_empty(),
        "{listing:?}"
    );
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let server = Server::start(|_, asked| {
        if asked.method == "PUT" {
            Say::ok("t")
        } else {
            Say::ok("x".repeat(1 << 20))
        }
    })
    .await;
    assert!(matches!(
        client(&server).get("mac").await,
        Err(ImdsError::Malformed { .. })
    ));
}

#[tokio::test]
async fn a_security_group_with_markup_in_it_is_none() {
    for value in ["sg-0123<html>", "sg-1 sg-2</body>", "sg-\u{e4}"] {
        let mut tree = tree();
        let path = "network/interfaces/macs/06:00:00:00:00:01/security-group-ids";
        tree.insert(format!("/latest/meta-data/{path}"), value.to_owned());
        let server = Server::start(imds(tree)).await;
        let error = client(&server)
            .security_groups("06:00:00:00:00:01")
            .await
            .unwrap_err();
        assert!(
            matches!(&error, ImdsError::Malformed { path: named, .. } if named == path),
            "{value}: {error}"
        );
    }
}

fn without(paths: &[&str]) -> HashMap<String, String> {
    let mut tree = tree();
    for path in paths {
        assert!(
            tree.remove(&format!("/latest/meta-data/{path}")).is_some(),
            "{path}"
        );
    }
    tree
}

#[tokio::test]
async fn an_interface_on_its_way_is_skipped_and_the_others_are_not() {
    for field in ["interface-id", "device-number", "subnet-id", ""] {
        let missing = format!("network/interfaces/macs/06:00:00:00:00:02/{field}");
        let server = Server::start(imds(without(&[&missing]))).await;
        let listing = client(&server).interfaces().await.unwrap();
        assert_eq!(listing.interfaces.len(), 1, "{field}");
        assert_eq!(listing.skipped.len(), 1, "{field}");
        let skipped = listing.skipped.first().unwrap();
        assert_eq!(
            (skipped.mac.as_str(), &skipped.cause),
            ("06:00:00:00:00:02/", &ImdsError::Missing { path: missing })
        );
    }
}

#[tokio::test]
async fn optional_fields_may_be_listed_and_gone() {
    let base = "network/interfaces/macs/06:00:00:00:00:02";
    let gone: Vec<String> = [
        "local-ipv4s",
        "ipv4-prefix",
        "ipv6s",
        "ipv6-prefix",
        "network-card",
        "subnet-ipv6-cidr-blocks",
    ]
    .iter()
    .map(|field| format!("{base}/{field}"))
    .collect();
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    let server = Server::start(imds(without(&gone))).await;
    let listing = client(&server).interfaces().await.unwrap();
    let second = listing.interfaces.last().unwrap();
    assert_eq!((second.id.as_str(), second.card), ("eni-0002", 0));
    assert!(second.local_ipv4s.is_empty() && second.ipv4_prefixes.is_empty() && second.ipv6s.is_empty());
}

#[tokio::test]
async fn a_field_that_is_not_of_its_form_skips_its_interface() {
    for (field, value) in [
        ("device-number", "one"),
        ("local-ipv4s", "10.0.0.300"),
        ("ipv4-prefix", "10.0.0.0/33"),
        ("interface-id", "vol-1"),
    ] {
        let mut tree = tree();
        tree.insert(
            format!("/latest/meta-data/network/interfaces/macs/06:00:00:00:00:02/{field}"),
            value.to_owned(),
        );
        let server = Server::start(imds(tree)).await;
        let listing = client(&server).interfaces().await.unwrap();
        assert_eq!(
            (listing.interfaces.len(), listing.skipped.len()),
            (1, 1),
            "{field}"
        );
    }
}

#[tokio::test]
async fn imds_going_silent_in_the_middle_fails_the_listing() {
    let tree = imds(tree());
    let server = Server::start(move |before, asked| {
        if asked.path.contains("00:02/device-number") {
            Say::Hang
        } else {
            tree(before, asked)
        }
    })
    .await;
    assert!(matches!(
        hasty(&server).interfaces().await,
        Err(ImdsError::Deadline { .. })
    ));
}

#[tokio::test]
async fn a_list_without_interfaces_is_not_believed() {
    let mut tree = tree();
    tree.insert(
        "/latest/meta-data/network/interfaces/macs".to_owned(),
        " \n".to_owned(),
    );
    let server = Server::start(imds(tree)).await;
    assert!(matches!(
        client(&server).interfaces().await,
        Err(ImdsError::Malformed { .. })
    ));
    let server = Server::start(imds(without(&[
        "network/interfaces/macs/06:00:00:00:00:01/vpc-ipv4-cidr-blocks",
    ])))
    .await;
    assert!(matches!(
        client(&server).vpc_ipv4_cidrs("06:00:00:00:00:01").await,
        Err(ImdsError::Missing { .. })
    ));
}

#[tokio::test]
async fn the_primary_interface_is_device_0_whatever_imds_says() {
    let mut tree = tree();
    tree.insert(
        "/latest/meta-data/network/interfaces/macs/06:00:00:00:00:01/device-number".to_owned(),
        "2".to_owned(),
    );
    let server = Server::start(imds(tree)).await;
    let first = client(&server).interface("06:00:00:00:00:01").await.unwrap();
    assert_eq!((first.primary, first.device), (true, 0));
}

/// Service, name, status, error.
type Heard = (Service, String, Option<u16>, Option<String>);

#[derive(Default)]
struct Log(Mutex<Vec<Heard>>);

impl Observer for Log {
    fn call(&self, r: CallReport<'_>) {
        self.0
            .lock()
            .unwrap()
            .push((r.service, r.api.to_owned(), r.status, r.error.map(str::to_owned)));
    }
}

#[tokio::test]
async fn the_observer_hears_of_each_read() {
    let server = Server::start(imds(tree())).await;
    let log = Arc::new(Log::default());
    let config = ImdsConfig {
        endpoint: Some(server.url()),
        observer: log.clone(),
        ..ImdsConfig::default()
    };
    let client = Imds::with_config(config).unwrap();
    client.get("mac").await.unwrap();
    client.get("ipv6").await.unwrap();
    let heard = log.0.lock().unwrap().clone();
    assert_eq!(
        heard,
        [
            (Service::Imds, "meta-data/mac".to_owned(), Some(200), None),
            (Service::Imds, "meta-data/ipv6".to_owned(), Some(404), None)
        ]
    );
}
