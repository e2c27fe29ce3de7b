use std::time::Duration;

use vpcnet_config::{Variable, report, vars};

use crate::case::{Case, read, says, silent};

const NO_URLS: [&str; 11] = [
    "127.0.0.1:5000",
    "ftp://host",
    "http://",
    "http:///path",
    "http://user:pw@host",
    "http://host?x=1",
    "http://ho st",
    "http://host:port",
    "http://host:65536",
    "http://[fd00::zz]",
    "http://ho\"st",
];

#[test]
fn aws_endpoint_url_ec2() {
    Case::new(&vars::AWS_ENDPOINT_URL_EC2, |c| c.cloud.ec2_endpoint.clone())
        .with(&[("AWS_EC2_ENDPOINT", "http://older")])
        .unset(Some("http://older".into()))
        .takes(&[
            ("http://a:8773", Some("http://a:8773".into())),
            ("https://a/path", Some("https://a/path".into())),
            (
                "http://[fd00:ec2::254]:80",
                Some("http://[fd00:ec2::254]:80".into()),
            ),
        ])
        .refuses(&NO_URLS);
}

#[test]
fn aws_ec2_endpoint() {
    Case::new(&vars::AWS_EC2_ENDPOINT, |c| {
        (c.cloud.ec2_endpoint.clone(), c.cloud.imds_endpoint.clone())
    })
    .unset((None, None))
    // EC2's, and not IMDS's.
    .takes(&[("http://b", (Some("http://b".into()), None))])
    .refuses(&NO_URLS);
    says(
        &[
            ("AWS_EC2_ENDPOINT", "http://b"),
            ("AWS_ENDPOINT_URL_EC2", "http://a"),
        ],
        &["AWS_EC2_ENDPOINT=http://b has no effect"],
    );
    silent(&[
        ("AWS_EC2_ENDPOINT", "http://a"),
        ("AWS_ENDPOINT_URL_EC2", "http://a"),
    ]);
}

#[test]
fn aws_ec2_metadata_service_endpoint() {
    Case::new(&vars::AWS_EC2_METADATA_SERVICE_ENDPOINT, |c| {
        c.cloud.imds_endpoint.clone()
    })
    .unset(None)
    .takes(&[("http://[fd00:ec2::254]", Some("http://[fd00:ec2::254]".into()))])
    .refuses(&NO_URLS);
}

const NO_REGIONS: [&str; 4] = ["EU-WEST-1", "eu west", "a.b/", "a@b"];

#[test]
fn aws_region() {
    Case::new(&vars::AWS_REGION, |c| c.cloud.region.clone())
        .with(&[("AWS_DEFAULT_REGION", "us-east-1")])
        .unset(Some("us-east-1".into()))
        .takes(&[("eu-west-1", Some("eu-west-1".into()))])
        .refuses(&NO_REGIONS);
}

#[test]
fn aws_default_region() {
    Case::new(&vars::AWS_DEFAULT_REGION, |c| c.cloud.region.clone())
        .unset(None)
        .takes(&[("eu-west-1", Some("eu-west-1".into()))])
        .refuses(&NO_REGIONS);
    says(
        &[("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_REGION", "eu-west-1")],
        &["AWS_DEFAULT_REGION=us-east-1 has no effect"],
    );
}

#[test]
fn http_timeout() {
    Case::new(&vars::HTTP_TIMEOUT, |c| c.cloud.timeout)
        .unset(Duration::from_secs(10))
        .takes(&[("10", Duration::from_secs(10)), ("25", Duration::from_secs(25))])
        .passes_over(&["9", "0", "-1", "10s"]);
}

#[test]
fn vpc_cni_version() {
    Case::new(&vars::VPC_CNI_VERSION, |c| c.cloud.version.clone())
        .unset(None)
        .takes(&[("v1.23.1", Some("v1.23.1".into()))]);
}

/// What another crate reads changes nothing here, is known, and is shown only if it is no secret.
fn handed_on(variable: &Variable) {
    let text = "sesame-42";
    let reading = read(&[(variable.name, text)]);
    assert_eq!(reading.config, read(&[]).config);
    let report = report(&[(variable.name.to_owned(), text.to_owned())], Vec::new()).text();
    assert!(report.contains(&format!("  {}", variable.name)), "{report}");
    assert!(!report.contains("is not a setting"), "{report}");
    assert_eq!(report.contains(text), !variable.is_secret(), "{report}");
}

#[test]
fn aws_access_key_id() {
    handed_on(&vars::AWS_ACCESS_KEY_ID);
    says(
        &[("AWS_ACCESS_KEY_ID", "A")],
        &["AWS_ACCESS_KEY_ID without AWS_SECRET_ACCESS_KEY"],
    );
    assert!(read(&[("AWS_ACCESS_KEY_ID", "A")]).accept().is_err());
}

#[test]
fn aws_secret_access_key() {
    handed_on(&vars::AWS_SECRET_ACCESS_KEY);
    assert!(vars::AWS_SECRET_ACCESS_KEY.is_secret());
    says(
        &[("AWS_SECRET_ACCESS_KEY", "A")],
        &["AWS_SECRET_ACCESS_KEY without AWS_ACCESS_KEY_ID"],
    );
    silent(&[("AWS_SECRET_ACCESS_KEY", "A"), ("AWS_ACCESS_KEY_ID", "B")]);
}

#[test]
fn aws_session_token() {
    handed_on(&vars::AWS_SESSION_TOKEN);
    assert!(vars::AWS_SESSION_TOKEN.is_secret());
}

#[test]
fn aws_web_identity_token_file() {
    handed_on(&vars::AWS_WEB_IDENTITY_TOKEN_FILE);
    says(
        &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")],
        &["AWS_WEB_IDENTITY_TOKEN_FILE without AWS_ROLE_ARN"],
    );
    silent(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:x")]);
    // Fixed credentials go before it.
    silent(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"),
        ("AWS_ACCESS_KEY_ID", "A"),
        ("AWS_SECRET_ACCESS_KEY", "B"),
    ]);
}

#[test]
fn aws_role_arn() {
    handed_on(&vars::AWS_ROLE_ARN);
}

#[test]
fn aws_role_session_name() {
    handed_on(&vars::AWS_ROLE_SESSION_NAME);
}

#[test]
fn aws_endpoint_url_sts() {
    handed_on(&vars::AWS_ENDPOINT_URL_STS);
}

#[test]
fn aws_container_credentials_relative_uri() {
    handed_on(&vars::AWS_CONTAINER_CREDENTIALS_RELATIVE_URI);
}

#[test]
fn aws_container_credentials_full_uri() {
    handed_on(&vars::AWS_CONTAINER_CREDENTIALS_FULL_URI);
}

#[test]
fn aws_container_authorization_token_file() {
    handed_on(&vars::AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE);
}

#[test]
fn aws_container_authorization_token() {
    handed_on(&vars::AWS_CONTAINER_AUTHORIZATION_TOKEN);
    assert!(vars::AWS_CONTAINER_AUTHORIZATION_TOKEN.is_secret());
}

#[test]
fn aws_ec2_metadata_service_endpoint_mode() {
    handed_on(&vars::AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE);
}

#[test]
fn aws_ec2_metadata_v1_disabled() {
    handed_on(&vars::AWS_EC2_METADATA_V1_DISABLED);
}
