//! The EC2 Query API over HTTP: who asks, what for, and the answer in its time.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Response, StatusCode, header};
use tokio::net::TcpListener;

use super::engine::Engine;
use super::http::{Answer, Call, serve};
use super::params::Params;
use super::xml::Xml;
use super::{parse, render, sigv4};
use crate::model::{ApiError, Caller, Fate};

/// Serves the EC2 Query API to every connection of the listener, until it is dropped.
///
/// Requests are form POSTs or GETs signed with Signature Version 4 by a key the VPC knows: that of a role
/// ([`Vpc::role_credentials`](crate::model::Vpc::role_credentials)) or one an instance read from IMDS.
pub async fn serve_ec2(listener: TcpListener, engine: Engine) {
    match serve(listener, move |call| handle(engine.clone(), call)).await {}
}

async fn handle(engine: Engine, call: Call) -> Answer {
    let query = call.head.uri.query().unwrap_or_default().as_bytes();
    let params = match call.head.method {
        Method::POST => Params::read(&[query, &call.body]),
        Method::GET => Params::read(&[query]),
        _ => {
            let error = ApiError::with_status(405, "MethodNotAllowed", "EC2 takes GET and POST");
            return refuse(&engine, "-", &error);
        }
    };
    let action = params.peek("Action").unwrap_or("-").to_owned();
    let caller = match authenticate(&engine, &call) {
        Ok(caller) => caller,
        Err(error) => return refuse(&engine, &action, &error),
    };
    let request = match parse::request(params) {
        Ok(request) => request,
        Err(error) => return refuse(&engine, &action, &error),
    };
    let (reply, body) = engine.with(|vpc, now| {
        let reply = vpc.call(now, &caller, request);
        // Written under the lock: the answer shows the VPC as the call left it.
        let body = render::render(vpc, &action, &reply.request_id, &reply.outcome);
        (reply, body)
    });
    if !reply.latency.is_zero() {
        tokio::time::sleep(reply.latency).await;
    }
    match reply.fate {
        Fate::Hang => Answer::Silence,
        Fate::Lose => Answer::Close,
        Fate::Deliver => {
            let status = reply.outcome.as_ref().map_or_else(|e| e.status, |_| 200);
            Answer::Send(xml(status, &reply.request_id, body))
        }
    }
}

fn authenticate(engine: &Engine, call: &Call) -> Result<Caller, ApiError> {
    let claim = sigv4::claim(&call.head)?;
    let (credentials, region) = engine.with(|vpc, now| {
        (
            vpc.credentials(now, &claim.access_key),
            vpc.config().region.clone(),
        )
    });
    let credentials = credentials.ok_or_else(sigv4::not_validated)?;
    let unix = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    sigv4::verify(&claim, &call.head, &call.body, &credentials, &region, unix)?;
    Ok(credentials.caller)
}

fn refuse(engine: &Engine, action: &str, error: &ApiError) -> Answer {
    let request_id = engine.with(|vpc, now| vpc.log_stranger(now, action, error));
    let body = Xml::refusal(&error.code, &error.message, &request_id);
    Answer::Send(xml(error.status, &request_id, body))
}

fn xml(status: u16, request_id: &str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/xml;charset=UTF-8"),
    );
    headers.insert(header::SERVER, header::HeaderValue::from_static("AmazonEC2"));
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, no-store"),
    );
    if let Ok(id) = header::HeaderValue::from_str(request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}
