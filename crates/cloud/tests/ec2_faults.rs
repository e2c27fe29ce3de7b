//! What the EC2 client does when EC2, or the way to it, misbehaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use support::{Asked, Say, Server, until};
use vpcnet_cloud::{
    AddressRequest, CallReport, CredentialProvider, CredentialSource, Credentials, Ec2, Ec2Action, Ec2Config,
    ErrorClass, Imds, Observer, Service,
};

const FOUND: &str = "<DescribeNetworkInterfacesResponse><networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId></item></networkInterfaceSet></DescribeNetworkInterfacesResponse>";

fn config(url: String) -> Ec2Config {
    let source = CredentialSource::Static(Credentials::new(
        "AKIDEXAMPLE",
        "very-secret-key",
        Some("very-secret-token"),
    ));
    let mut config = Ec2Config::new("eu-west-1", CredentialProvider::new(source).unwrap());
    config.endpoint = Some(url);
    config.http_timeout = Duration::from_secs(5);
    config
}

fn client(server: &Server) -> Ec2 {
    Ec2::new(config(server.url())).unwrap()
}

fn hasty(server: &Server) -> Ec2 {
    Ec2::new(Ec2Config {
        http_timeout: Duration::from_millis(600),
        ..config(server.url())
    })
    .unwrap()
}

fn ids() -> Vec<String> {
    vec!["eni-1".to_owned()]
}

#[tokio::test]
async fn a_read_is_tried_three_times_and_a_failing_one_says_when_to_come_back() {
    let server = Server::start(|before, _| {
        if before < 2 {
            Say::error(500, "InternalError", "x")
        } else {
            Say::ok(FOUND)
        }
    })
    .await;
    assert_eq!(
        client(&server)
            .describe_network_interfaces(&ids())
            .await
            .unwrap()
            .len(),
        1
    );

    let server = Server::start(|_, _| Say::error(503, "Unavailable", "x")).await;
    let error = client(&server)
        .describe_network_interfaces(&ids())
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str(), error.effect_unknown),
        (ErrorClass::Retry, "Unavailable", false)
    );
    assert_eq!(
        error.request_id.as_deref(),
        Some("4f1b5e4f-0000-4000-8000-000000000000")
    );
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_read_that_meets_silence_ends_within_three_timeouts() {
    let server = Server::start(|_, _| Say::Hang).await;
    let began = Instant::now();
    let error = hasty(&server)
        .describe_network_interfaces(&ids())
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str(), error.effect_unknown),
        (ErrorClass::Retry, "RequestTimeout", false)
    );
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_change_is_sent_once_and_says_when_its_effect_is_unknown() {
    let broken = Server::raw(b"").await;
    let error = client(&broken)
        .assign_private_ip_addresses("eni-1", AddressRequest::Addresses(1))
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str(), error.effect_unknown),
        (ErrorClass::Retry, "ConnectionBroken", true)
    );
    assert_eq!(broken.accepted(), 1);

    for (say, code) in [
        (Say::Hang, "RequestTimeout"),
        (Say::error(500, "InternalError", "x"), "InternalError"),
        (Say::ok("<html/>"), "MalformedResponse"),
        (
            Say::ok("<AssignPrivateIpAddressesResponse><assigned"),
            "MalformedResponse",
        ),
    ] {
        let server = Server::start(move |_, _| say.clone()).await;
        let error = hasty(&server)
            .assign_private_ip_addresses("eni-1", AddressRequest::Addresses(1))
            .await
            .unwrap_err();
        assert_eq!(
            (error.class, error.code.as_str(), error.effect_unknown),
            (ErrorClass::Retry, code, true)
        );
        assert!(error.to_string().contains("may have been carried out"), "{error}");
        assert_eq!(server.asked().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_change_that_was_refused_or_never_sent_has_a_known_effect() {
    for (status, code, class) in [
        (400, "InsufficientFreeAddressesInSubnet", ErrorClass::Exhausted),
        (400, "InsufficientCidrBlocks", ErrorClass::Exhausted),
        (400, "PrivateIpAddressLimitExceeded", ErrorClass::LimitReached),
        (403, "UnauthorizedOperation", ErrorClass::Refused),
        (400, "InvalidNetworkInterfaceID.NotFound", ErrorClass::Gone),
        (503, "RequestLimitExceeded", ErrorClass::Throttled),
        (400, "IncorrectState", ErrorClass::Retry),
    ] {
        let server = Server::start(move |_, _| Say::error(status, code, "words of EC2")).await;
        let error = client(&server)
            .assign_private_ip_addresses("eni-1", AddressRequest::Prefixes(1))
            .await
            .unwrap_err();
        assert_eq!(
            (error.class, error.code.as_str(), error.effect_unknown),
            (class, code, false)
        );
        assert_eq!(error.message, "words of EC2");
        assert_eq!(server.asked().len(), 1, "{code}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Ec2::new(config(url))
        .unwrap()
        .delete_network_interface("eni-1")
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str(), error.effect_unknown),
        (ErrorClass::Retry, "ConnectionFailed", false)
    );
}

#[tokio::test]
async fn an_endpoint_that_does_not_speak_tls_is_no_connection() {
    let server = Server::raw(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let url = server.url().replace("http://", "https://");
    let error = Ec2::new(config(url))
        .unwrap()
        .delete_network_interface("eni-1")
        .await
        .unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.effect_unknown),
        ("ConnectionFailed", false)
    );
}

#[tokio::test]
async fn a_throttled_action_is_not_sent_again_before_its_time_and_others_are() {
    let server = Server::start(|_, asked| match asked.form().get("Action").map(String::as_str) {
        Some("CreateTags") => Say::error(503, "RequestLimitExceeded", "Request limit exceeded."),
        _ => Say::ok("<DeleteTagsResponse><return>true</return></DeleteTagsResponse>"),
    })
    .await;
    // No patience, so that a wait shows as an error.
    let ec2 = Ec2::new(Ec2Config {
        http_timeout: Duration::from_millis(600),
        ..config(server.url())
    })
    .unwrap();
    let mut throttled = 0;
    let error = loop {
        let error = ec2.create_tags(&ids(), &[]).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Throttled);
        if error.code == "BackingOff" {
            break error;
        }
        throttled += 1;
        assert!(throttled < 50, "it is sent again and again");
    };
    assert!(error.retry_at.unwrap() > Instant::now());
    assert_eq!(server.asked().len(), throttled, "the last one was not sent");
    ec2.delete_tags(&ids(), &[]).await.unwrap();
}

#[tokio::test]
async fn a_throttled_read_waits_and_succeeds_within_its_patience() {
    let server = Server::start(|before, _| {
        if before == 0 {
            Say::error(503, "RequestLimitExceeded", "x")
        } else {
            Say::ok(FOUND)
        }
    })
    .await;
    // The wait is drawn from 0 to 10 s; 12 s of patience.
    let patient = Ec2Config {
        http_timeout: Duration::from_secs(6),
        ..config(server.url())
    };
    assert_eq!(
        Ec2::new(patient)
            .unwrap()
            .describe_network_interfaces(&ids())
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn callers_of_an_action_share_its_few_places() {
    let open = Arc::new(Mutex::new(false));
    let server = Server::start({
        let open = open.clone();
        move |before, _| {
            // The first call goes alone until it is answered.
            if before == 0 || *open.lock().unwrap() {
                Say::ok("<DeleteNetworkInterfaceResponse/>")
            } else {
                Say::Hang
            }
        }
    })
    .await;
    let ec2 = client(&server);
    ec2.delete_network_interface("eni-first").await.unwrap();
    let calls: Vec<_> = (0..12)
        .map(|n| {
            let ec2 = ec2.clone();
            tokio::spawn(async move { ec2.delete_network_interface(&format!("eni-{n}")).await })
        })
        .collect();
    until(|| server.asked().len() == 5).await;
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.asked().len(), 5, "no more than four at a time");
    *open.lock().unwrap() = true;
    // The four that hang are given up on; the others then go.
    for call in calls.iter().take(4) {
        call.abort();
    }
    let mut done = 0;
    for call in calls {
        done += usize::from(matches!(call.await, Ok(Ok(()))));
    }
    assert_eq!(done, 8);
}

#[tokio::test]
async fn an_answer_beyond_the_cap_is_not_kept() {
    let server = Server::start(|_, _| {
        Say::ok(format!(
            "<DescribeVpcsResponse>{}</DescribeVpcsResponse>",
            " ".repeat(9 << 20)
        ))
    })
    .await;
    let error = client(&server).describe_vpcs(&ids(), &[]).await.unwrap_err();
    assert_eq!(error.code, "MalformedResponse");
    assert!(error.message.contains("longer than"), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_is_not_ec2_is_told_apart() {
    let server =
        Server::start(|_, _| Say::Status(404, vec![], "<html><body>not here</body></html>".to_owned())).await;
    let error = client(&server).describe_vpcs(&[], &[]).await.unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str()),
        (ErrorClass::Refused, "HttpStatus")
    );
    assert!(
        error.message.contains("404") && error.message.contains("endpoint"),
        "{error}"
    );
}

#[tokio::test]
async fn missing_rights_say_what_to_do() {
    let server =
        Server::start(|_, _| Say::error(403, "UnauthorizedOperation", "You are not authorized")).await;
    let error = client(&server)
        .delete_network_interface("eni-1")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ec2:DeleteNetworkInterface") && error.contains("IAM"),
        "{error}"
    );
}

fn role(keys: &Arc<AtomicUsize>) -> impl Fn(usize, &Asked) -> Say + Send + Sync + 'static {
    let keys = keys.clone();
    move |_, asked| match asked.path.as_str() {
        "/latest/api/token" => Say::ok("t"),
        "/latest/meta-data/iam/security-credentials/" => Say::ok("node-role"),
        _ => {
            let n = keys.fetch_add(1, Ordering::SeqCst) + 1;
            Say::ok(format!(
                r#"{{"Code":"Success","AccessKeyId":"AKID{n}","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}}"#
            ))
        }
    }
}

#[tokio::test]
async fn credentials_that_ec2_no_longer_accepts_are_replaced_and_the_call_repeated() {
    let keys = Arc::new(AtomicUsize::new(0));
    let imds = Server::start(role(&keys)).await;
    let server = Server::start(|_, asked| {
        if asked
            .header("authorization")
            .unwrap()
            .contains("Credential=AKID1/")
        {
            Say::error(400, "RequestExpired", "Request has expired.")
        } else {
            Say::ok("<CreateTagsResponse><return>true</return></CreateTagsResponse>")
        }
    })
    .await;
    let source = CredentialSource::ImdsRole(Imds::new(Some(imds.url())).unwrap());
    let credentials = CredentialProvider::new(source).unwrap();
    let ec2 = Ec2::new(Ec2Config {
        credentials,
        ..config(server.url())
    })
    .unwrap();
    ec2.create_tags(&ids(), &[]).await.unwrap();
    assert_eq!((keys.load(Ordering::SeqCst), server.asked().len()), (2, 2));
}

#[tokio::test]
async fn credentials_refused_for_good_end_as_an_error_after_one_renewal() {
    let keys = Arc::new(AtomicUsize::new(0));
    let imds = Server::start(role(&keys)).await;
    let server = Server::start(|_, _| {
        Say::error(
            401,
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        )
    })
    .await;
    let source = CredentialSource::ImdsRole(Imds::new(Some(imds.url())).unwrap());
    let credentials = CredentialProvider::new(source).unwrap();
    let ec2 = Ec2::new(Ec2Config {
        credentials,
        ..config(server.url())
    })
    .unwrap();
    let error = ec2.describe_vpcs(&ids(), &[]).await.unwrap_err();
    assert_eq!(
        (error.class, keys.load(Ordering::SeqCst), server.asked().len()),
        (ErrorClass::Refused, 2, 2)
    );
}

#[tokio::test]
async fn without_credentials_nothing_is_sent_and_the_error_says_why() {
    let imds = Server::start(support::imds(HashMap::new())).await;
    let server = Server::start(|_, _| Say::ok(FOUND)).await;
    let source = CredentialSource::ImdsRole(Imds::new(Some(imds.url())).unwrap());
    let credentials = CredentialProvider::new(source).unwrap();
    let ec2 = Ec2::new(Ec2Config {
        credentials,
        ..config(server.url())
    })
    .unwrap();
    let error = ec2.describe_network_interfaces(&ids()).await.unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str()),
        (ErrorClass::Refused, "NoCredentials")
    );
    assert!(error.message.contains("instance profile"), "{error}");
    assert!(server.asked().is_empty());
}

/// The form of `Date`, some hours ahead of this machine's clock.
fn http_date_ahead() -> (String, String) {
    let ahead = SystemTime::now() + Duration::from_secs(6 * 3600);
    let seconds = ahead.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (mut year, mut left) = (1970, seconds / 86_400);
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let names = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut month = 0;
    for length in [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    let (day, second) = (left + 1, seconds % 86_400);
    let name = names.get(month).unwrap();
    let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    (
        format!("Thu, {day:02} {name} {year} {time} GMT"),
        format!("{year:04}{:02}{day:02}T{:02}", month + 1, second / 3600),
    )
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_corrected_by_ec2s() {
    let (date, hour) = http_date_ahead();
    let server = Server::start(move |_, asked| {
        if asked.header("x-amz-date").unwrap().starts_with(&hour) {
            return Say::ok(FOUND);
        }
        let Say::Status(status, _, body) = Say::error(400, "RequestExpired", "Request has expired.") else {
            unreachable!()
        };
        Say::Status(status, vec![("date", date.clone())], body)
    })
    .await;
    let ec2 = client(&server);
    ec2.describe_network_interfaces(&ids()).await.unwrap();
    assert_eq!(server.asked().len(), 2);
    ec2.describe_network_interfaces(&ids()).await.unwrap();
    assert_eq!(server.asked().len(), 3, "it is remembered");
}

/// Service, name, status, error.
type Heard = (Service, String, Option<u16>, Option<String>);

#[derive(Default)]
struct Log(Mutex<Vec<Heard>>);

impl Observer for Log {
    fn call(&self, r: CallReport<'_>) {
        assert!(r.latency < Duration::from_secs(60));
        self.0
            .lock()
            .unwrap()
            .push((r.service, r.api.to_owned(), r.status, r.error.map(str::to_owned)));
    }
}

#[tokio::test]
async fn the_observer_hears_of_each_try() {
    let server = Server::start(|before, _| {
        if before == 0 {
            Say::error(500, "InternalError", "x")
        } else {
            Say::ok(FOUND)
        }
    })
    .await;
    let log = Arc::new(Log::default());
    let ec2 = Ec2::new(Ec2Config {
        observer: log.clone(),
        ..config(server.url())
    })
    .unwrap();
    ec2.describe_network_interfaces(&ids()).await.unwrap();
    let api = Ec2Action::DescribeNetworkInterfaces.name().to_owned();
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            (
                Service::Ec2,
                api.clone(),
                Some(500),
                Some("InternalError".to_owned())
            ),
            (Service::Ec2, api, Some(200), None)
        ]
    );
}

#[tokio::test]
async fn no_secret_is_ever_shown() {
    let server = Server::start(|_, _| Say::error(400, "InvalidParameterValue", "x")).await;
    let config = config(server.url());
    let shown = format!(
        "{:?} {:?}",
        config.credentials,
        Credentials::new("AKIDEXAMPLE", "very-secret-key", Some("very-secret-token"))
    );
    let ec2 = Ec2::new(config).unwrap();
    let error = ec2.delete_network_interface("eni-1").await.unwrap_err();
    let all = format!("{shown} {ec2:?} {error:?} {error}");
    assert!(!all.contains("very-secret"), "{all}");
    // A session token that no header can hold: the error must not quote it.
    let source = CredentialSource::Static(Credentials::new(
        "AKIDEXAMPLE",
        "very-secret-key",
        Some("very-secret\ntoken"),
    ));
    let mut config = Ec2Config::new("eu-west-1", CredentialProvider::new(source).unwrap());
    config.endpoint = Some(server.url());
    let error = Ec2::new(config)
        .unwrap()
        .delete_network_interface("eni-1")
        .await
        .unwrap_err();
    assert!(!format!("{error:?}").contains("very-secret"), "{error:?}");
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let made = |region: &str, endpoint: Option<&str>| {
        let source = CredentialSource::Static(Credentials::new("a", "b", None));
        let mut config = Ec2Config::new(region, CredentialProvider::new(source).unwrap());
        config.endpoint = endpoint.map(str::to_owned);
        Ec2::new(config)
    };
    assert_eq!(
        made("cn-north-1", None).unwrap().endpoint(),
        "https://ec2.cn-north-1.amazonaws.com.cn/"
    );
    assert!(made("not a region", None).is_err());
    assert!(
        made("not a region", Some("http://127.0.0.1:1")).is_err(),
        "it is part of the signature"
    );
    assert!(made("eu-west-1", Some("127.0.0.1:1")).is_err());
}
