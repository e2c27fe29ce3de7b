//! EC2 calls by whoever runs the lab: the same calls, without HTTP and signature.

use std::fmt::Write as _;

use super::engine::Engine;
use super::params::Params;
use super::{parse, render};
use crate::model::{ApiError, Caller, Fate};

/// Carries out a call as the lab's administrator and returns EC2's XML. The version need not be given.
///
/// # Errors
/// What EC2 would refuse the call with, or `Unavailable` where the fault plan took the answer.
pub async fn operator_call(engine: &Engine, parameters: &[(String, String)]) -> Result<String, ApiError> {
    let mut form = format!("Version={}", parse::VERSION);
    for (name, value) in parameters {
        let _ = write!(form, "&{}={}", encode(name), encode(value));
    }
    let params = Params::read(&[form.as_bytes()]);
    let action = params.peek("Action").unwrap_or("-").to_owned();
    let request = parse::request(params)?;
    let (reply, body) = engine.with(|vpc, now| {
        let reply = vpc.call(now, &Caller::admin(), request);
        let body = render::render(vpc, &action, &reply.request_id, &reply.outcome);
        (reply, body)
    });
    tokio::time::sleep(reply.latency).await;
    if reply.fate != Fate::Deliver {
        return Err(ApiError::with_status(
            503,
            "Unavailable",
            "The lab's fault plan took the answer",
        ));
    }
    reply.outcome.map(|_| body)
}

fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => drop(write!(out, "%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Vpc, VpcConfig};

    #[tokio::test]
    async fn the_operator_is_answered_in_ec2s_xml_and_refused_in_its_words() {
        let engine = Engine::new(Vpc::new(VpcConfig::instant(), 1));
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let answer = operator_call(&engine, &[pair("Action", "DescribeSubnets")])
            .await
            .unwrap();
        assert!(answer.contains("<cidrBlock>10.0.16.0/20</cidrBlock>"), "{answer}");
        let odd = [pair("Action", "DescribeSubnets"), pair("Colour", "a&b=c")];
        assert_eq!(
            operator_call(&engine, &odd).await.unwrap_err().code,
            "UnknownParameter"
        );
    }
}
