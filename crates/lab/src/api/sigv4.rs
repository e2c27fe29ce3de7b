//! Signature Version 4, the checking side (AWS IAM user guide, "Create a signed AWS API request").

use std::time::Duration;

use hyper::http::request::Parts;
use ring::{digest, hmac};

use super::params::decode;
use crate::model::{ApiError, Credentials};

/// How far a request's time may be from ours.
const SKEW: Duration = Duration::from_secs(300);

/// What a request says about its signer, before any of it is believed.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    pub(crate) access_key: String,
    day: String,
    region: String,
    signed_headers: Vec<String>,
    signature: Vec<u8>,
    moment: String,
}

/// Reads the claim of a request.
pub(crate) fn claim(head: &Parts) -> Result<Claim, ApiError> {
    let text = header(head, "authorization").ok_or_else(|| {
        ApiError::with_status(
            403,
            "MissingAuthenticationToken",
            "Request is missing Authentication Token",
        )
    })?;
    let fields = text
        .strip_prefix("AWS4-HMAC-SHA256")
        .ok_or_else(|| incomplete("The lab checks AWS4-HMAC-SHA256 signatures only"))?;
    let field = |name: &str| {
        fields
            .split(',')
            .filter_map(|f| f.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .ok_or_else(|| incomplete(&format!("Authorization header requires '{name}' parameter")))
    };
    let credential: Vec<&str> = field("Credential")?.split('/').collect();
    let [access_key, day, region, service, "aws4_request"] = credential.as_slice() else {
        return Err(incomplete(
            "Credential must be KEY/DAY/REGION/SERVICE/aws4_request",
        ));
    };
    if *service != "ec2" {
        return Err(mismatch("Credential should be scoped to correct service: 'ec2'."));
    }
    let signature = unhex(field("Signature")?).ok_or_else(|| incomplete("Signature must be hexadecimal"))?;
    let signed_headers: Vec<String> = field("SignedHeaders")?.split(';').map(str::to_owned).collect();
    for needed in ["host", "x-amz-date"] {
        if !signed_headers.iter().any(|h| h == needed) {
            return Err(incomplete(&format!(
                "'{needed}' must be a 'SignedHeader' in the AWS Authorization."
            )));
        }
    }
    let moment = header(head, "x-amz-date").ok_or_else(|| incomplete("X-Amz-Date is missing"))?;
    if !moment.starts_with(day) {
        return Err(mismatch(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP",
        ));
    }
    Ok(Claim {
        access_key: (*access_key).to_owned(),
        day: (*day).to_owned(),
        region: (*region).to_owned(),
        signed_headers,
        signature,
        moment,
    })
}

/// Checks that the holder of the credentials signed exactly this request for this region, not long ago.
///
/// `unix`: our time in seconds.
pub(crate) fn verify(
    claim: &Claim,
    head: &Parts,
    body: &[u8],
    credentials: &Credentials,
    region: &str,
    unix: u64,
) -> Result<(), ApiError> {
    if claim.region != region {
        return Err(mismatch(&format!(
            "Credential should be scoped to a valid region: '{region}'."
        )));
    }
    let signed_at =
        unix_of(&claim.moment).ok_or_else(|| incomplete("X-Amz-Date must be YYYYMMDD'T'HHMMSS'Z'"))?;
    if signed_at.abs_diff(unix) > SKEW.as_secs() {
        return Err(ApiError::client("RequestExpired", "Request has expired."));
    }
    if header(head, "x-amz-security-token") != credentials.session_token {
        return Err(not_validated());
    }
    let scope = format!("{}/{}/ec2/aws4_request", claim.day, claim.region);
    let canonical =
        hex(digest::digest(&digest::SHA256, canonical_request(claim, head, body).as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{canonical}", claim.moment);
    let key = signing_key(&credentials.secret_key, &claim.day, &claim.region, "ec2");
    hmac::verify(&key, to_sign.as_bytes(), &claim.signature).map_err(|_| not_validated())
}

/// EC2's answer to an unknown key and to a wrong signature alike.
pub(crate) fn not_validated() -> ApiError {
    ApiError::with_status(
        401,
        "AuthFailure",
        "AWS was not able to validate the provided access credentials",
    )
}

fn incomplete(message: &str) -> ApiError {
    ApiError::client("IncompleteSignature", message)
}

fn mismatch(message: &str) -> ApiError {
    ApiError::with_status(403, "SignatureDoesNotMatch", message)
}

fn canonical_request(claim: &Claim, head: &Parts, body: &[u8]) -> String {
    let mut query: Vec<(String, String)> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (encode(&decode(k)), encode(&decode(v))))
        .collect();
    query.sort();
    let query: Vec<String> = query.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut headers = String::new();
    for name in &claim.signed_headers {
        let value = header(head, name).unwrap_or_default();
        let value: Vec<&str> = value.split_ascii_whitespace().collect();
        headers.push_str(&format!("{name}:{}\n", value.join(" ")));
    }
    let path = if head.uri.path().is_empty() {
        "/"
    } else {
        head.uri.path()
    };
    format!(
        "{}\n{path}\n{}\n{headers}\n{}\n{}",
        head.method,
        query.join("&"),
        claim.signed_headers.join(";"),
        hex(digest::digest(&digest::SHA256, body).as_ref())
    )
}

/// A header's value; several of one name are one list.
fn header(head: &Parts, name: &str) -> Option<String> {
    let values: Vec<&str> = head
        .headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    if values.is_empty() {
        None
    } else {
        Some(values.join(","))
    }
}

fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> hmac::Key {
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    for part in [day, region, service, "aws4_request"] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    key
}

/// Percent-encoding with AWS's set of characters that stay.
fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(*byte))
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(high * 16 + low).ok())
        .collect()
}

/// `20260101T000000Z` as Unix seconds.
fn unix_of(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    if text.len() != 16 || text.get(8..9) != Some("T") || !text.ends_with('Z') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    // Years from March on, so that the leap day is the last of the year.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some(days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Caller;

    /// The signing key of AWS's published example ("Signature Version 4 signing examples").
    #[test]
    fn the_key_of_the_published_example_is_derived() {
        let key = signing_key(
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "20120215",
            "us-east-1",
            "iam",
        );
        // What the published key signs the empty text to.
        let published = unhex("f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d").unwrap();
        let published = hmac::Key::new(hmac::HMAC_SHA256, &published);
        assert_eq!(
            hmac::sign(&key, b"").as_ref(),
            hmac::sign(&published, b"").as_ref()
        );
    }

    #[test]
    fn moments_are_read() {
        assert_eq!(unix_of("19700101T000000Z"), Some(0));
        assert_eq!(unix_of("20000229T000001Z"), Some(951_782_401));
        assert_eq!(unix_of("20260101T000000Z"), Some(1_767_225_600));
        for bad in [
            "",
            "20260101",
            "20261301T000000Z",
            "20260101 000000Z",
            "2026-01-01T00:00:00Z",
        ] {
            assert_eq!(unix_of(bad), None, "{bad}");
        }
    }

    fn request(secret: &str, body: &str) -> (Claim, Parts, Credentials) {
        let credentials = Credentials {
            access_key: "AKIA".to_owned(),
            secret_key: "right".to_owned(),
            session_token: None,
            caller: Caller::admin(),
            issued: Duration::ZERO,
            expires: None,
        };
        let build = |signature: &str| {
            hyper::Request::post("/")
                .header("host", "ec2")
                .header("x-amz-date", "20260101T000000Z")
                .header(
                    "authorization",
                    format!(
                        "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-west-2/ec2/aws4_request, \
                         SignedHeaders=host;x-amz-date, Signature={signature}"
                    ),
                )
                .body(())
                .unwrap()
                .into_parts()
                .0
        };
        let head = build("00");
        let unsigned = claim(&head).unwrap();
        let canonical = canonical_request(&unsigned, &head, body.as_bytes());
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n20260101T000000Z\n20260101/us-west-2/ec2/aws4_request\n{}",
            hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
        );
        let key = signing_key(secret, "20260101", "us-west-2", "ec2");
        let head = build(&hex(hmac::sign(&key, to_sign.as_bytes()).as_ref()));
        (claim(&head).unwrap(), head, credentials)
    }

    #[test]
    fn only_the_right_secret_body_region_and_hour_pass() {
        const NOW: u64 = 1_767_225_600;
        let (c, head, keys) = request("right", "a=b");
        assert_eq!(verify(&c, &head, b"a=b", &keys, "us-west-2", NOW + 299), Ok(()));
        let code = |r: Result<(), ApiError>| r.unwrap_err().code;
        assert_eq!(
            code(verify(&c, &head, b"a=c", &keys, "us-west-2", NOW)),
            "AuthFailure"
        );
        assert_eq!(
            code(verify(&c, &head, b"a=b", &keys, "us-east-1", NOW)),
            "SignatureDoesNotMatch"
        );
        assert_eq!(
            code(verify(&c, &head, b"a=b", &keys, "us-west-2", NOW + 301)),
            "RequestExpired"
        );
        let session = Credentials {
            session_token: Some("t".to_owned()),
            ..keys
        };
        assert_eq!(
            code(verify(&c, &head, b"a=b", &session, "us-west-2", NOW)),
            "AuthFailure"
        );
        let (c, head, keys) = request("wrong", "a=b");
        assert_eq!(
            code(verify(&c, &head, b"a=b", &keys, "us-west-2", NOW)),
            "AuthFailure"
        );
    }

    #[test]
    fn a_request_without_a_signature_is_told_so() {
        let head = hyper::Request::post("/").body(()).unwrap().into_parts().0;
        assert_eq!(claim(&head).unwrap_err().code, "MissingAuthenticationToken");
    }
}
