//! Signature Version 4, as AWS describes it
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>), by ring's SHA-256 and HMAC.
//!
//! Paths are signed as they are given: callers pass paths that need no normalising.

use std::fmt::Write;

use ring::{digest, hmac};

use crate::Credentials;
use crate::percent::encode_into;

/// What a signature covers.
#[derive(Clone, Debug)]
pub struct Signable<'a> {
    /// `POST`, `GET`.
    pub method: &'a str,
    /// Absolute path, not encoded; empty means `/`.
    pub path: &'a str,
    /// Query parameters, not encoded, in any order.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers to sign, names in lower case, in any order; `host` and `x-amz-date` must be among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// Where and when a signature is valid.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// `eu-west-1`.
    pub region: &'a str,
    /// `ec2`.
    pub service: &'a str,
    /// The time in the form of `X-Amz-Date`, `20150830T123600Z`.
    pub date: &'a str,
}

impl Scope<'_> {
    fn day(&self) -> &str {
        self.date.get(..8).unwrap_or(self.date)
    }
}

/// The value of the `Authorization` header.
pub fn authorization(request: &Signable<'_>, scope: Scope<'_>, credentials: &Credentials) -> String {
    let (canonical, names) = canonical_request(request);
    let credential_scope = format!("{}/{}/{}/aws4_request", scope.day(), scope.region, scope.service);
    let string_to_sign = format!(
        "AWS4-HMAC-SHA256\n{}\n{credential_scope}\n{}",
        scope.date,
        sha256_hex(canonical.as_bytes())
    );
    let signature = hex(hmac_sha256(&signing_key(scope, credentials), string_to_sign.as_bytes()).as_ref());
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{credential_scope}, SignedHeaders={names}, Signature={signature}",
        credentials.access_key_id
    )
}

/// The canonical request and the list of signed headers.
fn canonical_request(request: &Signable<'_>) -> (String, String) {
    let mut text = String::with_capacity(512);
    text.push_str(request.method);
    text.push('\n');
    encode_into(
        &mut text,
        if request.path.is_empty() {
            "/"
        } else {
            request.path
        },
        true,
    );
    text.push('\n');

    let mut query: Vec<(String, String)> = request
        .query
        .iter()
        .map(|(name, value)| (crate::percent::encode(name), crate::percent::encode(value)))
        .collect();
    query.sort_unstable();
    for (at, (name, value)) in query.iter().enumerate() {
        let _ = write!(text, "{}{name}={value}", if at == 0 { "" } else { "&" });
    }
    text.push('\n');

    let mut headers: Vec<(&str, &str)> = request.headers.to_vec();
    headers.sort();
    let mut names = String::new();
    let mut last = None;
    for (name, value) in headers {
        let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        if last == Some(name) {
            text.pop();
            let _ = writeln!(text, ",{value}");
            continue;
        }
        let _ = writeln!(text, "{name}:{value}");
        let _ = write!(names, "{}{name}", if names.is_empty() { "" } else { ";" });
        last = Some(name);
    }
    let _ = write!(text, "\n{names}\n{}", sha256_hex(request.body));
    (text, names)
}

fn signing_key(scope: Scope<'_>, credentials: &Credentials) -> hmac::Tag {
    let start = format!("AWS4{}", credentials.secret_access_key.expose());
    let mut key = hmac_sha256_raw(start.as_bytes(), scope.day().as_bytes());
    for part in [scope.region, scope.service, "aws4_request"] {
        key = hmac_sha256(&key, part.as_bytes());
    }
    key
}

fn hmac_sha256_raw(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

fn hmac_sha256(key: &hmac::Tag, data: &[u8]) -> hmac::Tag {
    hmac_sha256_raw(key.as_ref(), data)
}

fn sha256_hex(data: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, data).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    //! The vectors are AWS's own: the SigV4 test suite (its cases' names are the tests' names) and the worked example of the IAM guide.

    use super::*;

    const DATE: &str = "20150830T123600Z";
    const HOST: [(&str, &str); 2] = [("host", "example.amazonaws.com"), ("x-amz-date", DATE)];
    const SUITE: Scope<'_> = Scope {
        region: "us-east-1",
        service: "service",
        date: DATE,
    };

    fn suite_credentials() -> Credentials {
        Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
    }

    fn signature(request: &Signable<'_>, scope: Scope<'_>) -> String {
        let header = authorization(request, scope, &suite_credentials());
        header
            .rsplit_once("Signature=")
            .map(|(_, s)| s.to_owned())
            .unwrap()
    }

    fn get<'a>(query: &'a [(&'a str, &'a str)]) -> Signable<'a> {
        Signable {
            method: "GET",
            path: "/",
            query,
            headers: &HOST,
            body: b"",
        }
    }

    #[test]
    fn get_vanilla() {
        assert_eq!(
            authorization(&get(&[]), SUITE, &suite_credentials()),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn get_vanilla_query_order_key_case() {
        assert_eq!(
            signature(&get(&[("Param2", "value2"), ("Param1", "value1")]), SUITE),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        );
    }

    #[test]
    fn get_header_value_trim() {
        let headers = [
            ("host", "example.amazonaws.com"),
            ("my-header1", " value1"),
            ("my-header2", " \"a   b   c\""),
            ("x-amz-date", DATE),
        ];
        assert_eq!(
            signature(
                &Signable {
                    headers: &headers,
                    ..get(&[])
                },
                SUITE
            ),
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"
        );
    }

    #[test]
    fn post_vanilla() {
        assert_eq!(
            signature(
                &Signable {
                    method: "POST",
                    ..get(&[])
                },
                SUITE
            ),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
    }

    #[test]
    fn post_x_www_form_urlencoded() {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", "example.amazonaws.com"),
            ("x-amz-date", DATE),
        ];
        assert_eq!(
            signature(
                &Signable {
                    method: "POST",
                    headers: &headers,
                    body: b"Param1=value1",
                    ..get(&[])
                },
                SUITE
            ),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
    }

    #[test]
    fn iam_guide_list_users() {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", DATE),
        ];
        let query = [("Version", "2010-05-08"), ("Action", "ListUsers")];
        assert_eq!(
            signature(
                &Signable {
                    headers: &headers,
                    ..get(&query)
                },
                Scope {
                    service: "iam",
                    ..SUITE
                }
            ),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }
}
