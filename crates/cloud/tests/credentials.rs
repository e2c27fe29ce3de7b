//! Where credentials come from, and how they are kept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::{Say, Server, until};
use vpcnet_cloud::{ConfigError, CredentialProvider, CredentialSource, Imds};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn chosen(variables: &[(&str, &str)]) -> Result<CredentialSource, ConfigError> {
    let map: HashMap<String, String> = variables
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let imds = Imds::new(Some("http://127.0.0.1:1".to_owned())).unwrap();
    CredentialSource::from_environment(&|name| map.get(name).cloned(), &imds, "eu-west-1")
}

const KEY: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKID"),
    ("AWS_SECRET_ACCESS_KEY", "secret-value"),
    ("AWS_SESSION_TOKEN", "secret-token"),
];
const WEB: [(&str, &str); 2] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token"),
    ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
];
const CONTAINER: [(&str, &str); 1] = [(
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "http://169.254.170.23/v1/credentials",
)];

#[test]
fn the_first_source_that_applies_is_taken() {
    let all: Vec<_> = KEY.iter().chain(&WEB).chain(&CONTAINER).copied().collect();
    assert!(matches!(chosen(&all), Ok(CredentialSource::Static(_))));
    assert!(matches!(
        chosen(all.get(3..).unwrap()),
        Ok(CredentialSource::WebIdentity(_))
    ));
    assert!(matches!(chosen(&CONTAINER), Ok(CredentialSource::Container(_))));
    assert!(matches!(chosen(&[]), Ok(CredentialSource::ImdsRole(_))));
    assert!(
        matches!(
            chosen(&[("AWS_ROLE_ARN", "x")]),
            Ok(CredentialSource::ImdsRole(_))
        ),
        "a role alone says nothing"
    );
}

#[test]
fn half_a_source_is_an_error_that_names_the_other_half() {
    for (set, missing) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ] {
        assert_eq!(
            chosen(&[(set, "x")]).unwrap_err(),
            ConfigError::Incomplete { set, missing }
        );
    }
    let open = chosen(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/x")]).unwrap_err();
    assert_eq!(
        open,
        ConfigError::InsecureCredentialsEndpoint("192.0.2.1".to_owned())
    );
}

#[test]
fn nothing_secret_is_in_the_debug_output_of_a_source() {
    let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret-auth");
    for variables in [
        KEY.to_vec(),
        WEB.to_vec(),
        [CONTAINER.as_slice(), &[token]].concat(),
    ] {
        let shown = format!("{:?}", chosen(&variables).unwrap());
        assert!(!shown.contains("secret-"), "{shown}");
    }
}

/// A time `seconds` from now (or before now), as RFC 3339. Whole days are enough to be exact about, so the rest is written as it is.
fn from_now(seconds: i64) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let then = now + seconds;
    let (mut year, mut left) = (1970, then / 86_400);
    let leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    while left >= 365 + i64::from(leap(year)) {
        left -= 365 + i64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [
        31,
        28 + i64::from(leap(year)),
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
    let second = then % 86_400;
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}Z",
        left + 1,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn document(key: &str, expiration: &str) -> String {
    format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{key}","SecretAccessKey":"secret-value","Token":"secret-token","Expiration":"{expiration}"}}"#
    )
}

/// IMDS with a role whose documents come from `answer`, called with how many came before.
async fn role(answer: impl Fn(usize) -> Say + Send + Sync + 'static) -> (CredentialProvider, Server) {
    let count = Mutex::new(0);
    let server = Server::start(move |_, asked| match asked.path.as_str() {
        "/latest/api/token" => Say::ok("t"),
        "/latest/meta-data/iam/security-credentials/" => Say::ok("node-role\n"),
        "/latest/meta-data/iam/security-credentials/node-role" => {
            let mut count = count.lock().unwrap();
            *count += 1;
            answer(*count - 1)
        }
        _ => Say::status(404),
    })
    .await;
    let imds = Imds::new(Some(server.url())).unwrap();
    (
        CredentialProvider::new(CredentialSource::ImdsRole(imds)).unwrap(),
        server,
    )
}

#[tokio::test]
async fn the_instances_role_gives_credentials_and_is_asked_once() {
    let (provider, server) = role(|n| Say::ok(document(&format!("AKID{n}"), &from_now(6 * 3600)))).await;
    assert_eq!(server.asked().len(), 0, "not before somebody needs them");
    let first = provider.get(soon()).await.unwrap();
    assert_eq!(first.access_key_id, "AKID0");
    assert_eq!(first.session_token.as_ref().unwrap().expose(), "secret-token");
    assert_eq!(provider.get(soon()).await.unwrap(), first);
    assert_eq!(server.asked_for("/node-role"), 1);
}

#[tokio::test]
async fn many_callers_without_credentials_make_one_request() {
    let (provider, server) = role(|_| Say::ok(document("AKID", &from_now(6 * 3600)))).await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let provider = provider.clone();
            tokio::spawn(async move { provider.get(soon()).await.map(|c| c.access_key_id.clone()) })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "AKID");
    }
    assert_eq!(server.asked_for("/node-role"), 1);
}

#[tokio::test]
async fn credentials_already_past_their_end_are_used_and_not_asked_for_on_each_call() {
    // As with a lagging IMDS, or a wrong clock here: EC2 is the judge.
    let (provider, server) = role(|_| Say::ok(document("AKID", &from_now(-3600)))).await;
    for _ in 0..3 {
        assert_eq!(provider.get(soon()).await.unwrap().access_key_id, "AKID");
    }
    assert_eq!(server.asked_for("/node-role"), 1);
}

#[tokio::test]
async fn a_source_that_fails_is_not_asked_again_at_once() {
    let (provider, server) =
        role(|_| Say::ok(r#"{"Code":"AssumeRoleUnauthorizedAccess","Message":"secret-hint"}"#)).await;
    let error = provider.get(soon()).await.unwrap_err();
    assert!(
        error.to_string().contains("AssumeRoleUnauthorizedAccess"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("secret-"));
    assert!(error.may_pass() && error.retry_at().unwrap() > Instant::now());
    let again = provider.get(soon()).await.unwrap_err();
    assert_eq!(again, error);
    assert_eq!(server.asked_for("/node-role"), 1);
}

#[tokio::test]
async fn broken_documents_are_errors_that_quote_nothing() {
    for body in [
        r#"{"AccessKeyId":"AKID","SecretAccessKey":["secret-value"]}"#,
        r#""secret-value""#,
        r#"{"AccessKeyId":"AKID"}"#,
        r#"{"AccessKeyId":"AKID","SecretAccessKey":"secret-value","Expiration":"secret-soon"}"#,
        "<html>secret-page</html>",
        "",
    ] {
        let (provider, _server) = role(move |_| Say::ok(body)).await;
        let error = provider.get(soon()).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret-"), "{error}");
    }
}

#[tokio::test]
async fn an_instance_without_a_role_is_told_so() {
    let server = Server::start(support::imds(HashMap::new())).await;
    let imds = Imds::new(Some(server.url())).unwrap();
    let provider = CredentialProvider::new(CredentialSource::ImdsRole(imds)).unwrap();
    let error = provider.get(soon()).await.unwrap_err();
    assert!(!error.may_pass());
    assert!(error.to_string().contains("instance profile"), "{error}");
}

#[tokio::test]
async fn a_silent_source_is_waited_for_until_the_callers_deadline() {
    let (provider, _server) = role(|_| Say::Hang).await;
    let began = Instant::now();
    let error = provider
        .get(Instant::now() + Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(error.may_pass());
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// A provider that asks a container credentials endpoint, with these variables beside the endpoint's own.
async fn container(
    answer: impl Fn(usize) -> Say + Send + Sync + 'static,
    token: &[(&str, &str)],
) -> (CredentialProvider, Server) {
    let server = Server::start(move |before, _| answer(before)).await;
    let url = format!("{}/v1/credentials?x=1", server.url());
    let variables = [&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str())], token].concat();
    (
        CredentialProvider::new(chosen(&variables).unwrap()).unwrap(),
        server,
    )
}

#[tokio::test]
async fn a_container_endpoint_is_asked_with_its_token() {
    let (provider, server) = container(
        |_| Say::ok(document("AKID", &from_now(3600))),
        &[("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token-1")],
    )
    .await;
    assert_eq!(provider.get(soon()).await.unwrap().access_key_id, "AKID");
    let asked = server.asked();
    let one = asked.first().unwrap();
    assert_eq!(
        (one.path.as_str(), one.header("authorization")),
        ("/v1/credentials?x=1", Some("token-1"))
    );
}

#[tokio::test]
async fn a_token_file_is_read_for_each_renewal_and_may_end_in_a_line_break() {
    let directory = std::env::temp_dir().join(format!("vpcnet-cloud-token-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("token");
    std::fs::write(&file, "token-from-file\n").unwrap();
    let (provider, server) = container(
        |_| Say::ok(document("AKID", &from_now(3600))),
        &[
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not-this"),
        ],
    )
    .await;
    provider.get(soon()).await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(
        server.asked().first().unwrap().header("authorization"),
        Some("token-from-file")
    );
}

#[tokio::test]
async fn tokens_that_could_forge_a_header_are_refused() {
    let (provider, server) = container(
        |_| Say::status(200),
        &[("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret-a\r\nx-evil: 1")],
    )
    .await;
    let error = provider.get(soon()).await.unwrap_err();
    assert!(!format!("{error:?}").contains("secret-"), "{error:?}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_container_endpoints_refusal_lasts_and_its_trouble_passes() {
    for (status, passes) in [(403, false), (404, false), (429, true), (500, true)] {
        let (provider, _server) = container(move |_| Say::status(status), &[]).await;
        assert_eq!(
            provider.get(soon()).await.unwrap_err().may_pass(),
            passes,
            "{status}"
        );
    }
}

/// A token file of this test's own, removed with it.
struct TokenFile(std::path::PathBuf);

impl TokenFile {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vpcnet-cloud-{name}-{}", std::process::id()));
        std::fs::write(&path, "eyJ.secret-jwt/+=\n").unwrap();
        Self(path)
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn sts(server: &Server, file: &TokenFile) -> CredentialProvider {
    let url = server.url();
    let source = chosen(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.0.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/node"),
        ("AWS_ROLE_SESSION_NAME", "session-1"),
        ("AWS_ENDPOINT_URL_STS", &url),
    ]);
    CredentialProvider::new(source.unwrap()).unwrap()
}

#[tokio::test]
async fn a_web_identity_is_exchanged_at_sts_unsigned_and_in_the_body() {
    let file = TokenFile::new("exchange");
    let expiration = from_now(3600);
    let server = Server::start(move |_, _| {
        Say::ok(format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
             <SubjectFromWebIdentityToken>system:serviceaccount:kube-system:aws-node</SubjectFromWebIdentityToken><Audience>sts.amazonaws.com</Audience>\
             <AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/node/session-1</Arn><AssumedRoleId>X:session-1</AssumedRoleId></AssumedRoleUser>\
             <Credentials><SessionToken>st</SessionToken><SecretAccessKey>sk</SecretAccessKey><Expiration>{expiration}</Expiration>\
             <AccessKeyId>ASIA1</AccessKeyId></Credentials><Provider>arn:aws:iam::1:oidc-provider/x</Provider></AssumeRoleWithWebIdentityResult>\
             <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
        ))
    })
    .await;
    let credentials = sts(&server, &file).get(soon()).await.unwrap();
    assert_eq!(
        (
            credentials.access_key_id.as_str(),
            credentials.secret_access_key.expose()
        ),
        ("ASIA1", "sk")
    );
    assert!(credentials.expires.unwrap() > SystemTime::now());
    let asked = server.asked();
    let one = asked.first().unwrap();
    assert_eq!(
        (
            one.method.as_str(),
            one.path.as_str(),
            one.header("authorization")
        ),
        ("POST", "/", None)
    );
    assert!(
        one.body.contains("WebIdentityToken=eyJ.secret-jwt%2F%2B%3D"),
        "{}",
        one.body
    );
    let form = one.form();
    assert_eq!(
        form.get("RoleArn").map(String::as_str),
        Some("arn:aws:iam::123456789012:role/node")
    );
    assert_eq!(form.get("RoleSessionName").map(String::as_str), Some("session-1"));
}

#[tokio::test]
async fn what_sts_refuses_is_told_with_the_role() {
    let file = TokenFile::new("refuse");
    let server = Server::start(|_, _| {
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>";
        Say::Status(403, vec![], body.to_owned())
    })
    .await;
    let error = sts(&server, &file).get(soon()).await.unwrap_err();
    assert!(!error.may_pass());
    assert!(
        error.to_string().contains("AccessDenied") && error.to_string().contains("role/node"),
        "{error}"
    );
    assert!(!error.to_string().contains("secret-"));
}

#[tokio::test]
async fn a_missing_token_file_is_named() {
    let provider = CredentialProvider::new(chosen(&WEB).unwrap()).unwrap();
    let error = provider.get(soon()).await.unwrap_err();
    assert!(
        error.may_pass() && error.to_string().contains("/nowhere/token"),
        "{error}"
    );
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_block_the_next() {
    let hang = Arc::new(Mutex::new(true));
    let now = hang.clone();
    let (provider, server) = container(
        move |_| {
            if *now.lock().unwrap() {
                Say::Hang
            } else {
                Say::ok(document("AKID", &from_now(3600)))
            }
        },
        &[],
    )
    .await;
    let caller = tokio::spawn({
        let provider = provider.clone();
        async move { provider.get(soon()).await.is_ok() }
    });
    until(|| server.asked().len() == 1).await;
    caller.abort();
    *hang.lock().unwrap() = false;
    assert_eq!(provider.get(soon()).await.unwrap().access_key_id, "AKID");
}
