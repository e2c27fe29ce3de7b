//! The instance metadata service over HTTP, version 2: a token first, then the tree.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Method, Response, StatusCode, header};
use tokio::net::TcpListener;

use super::engine::Engine;
use super::http::{Answer, Call, Connection, serve};
use crate::model::{Fate, ImdsBody, ImdsReply, InstanceId};

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_PATH: &str = "/latest/api/token";
/// Hops of every answer but a token: what hosts set.
const USUAL_HOPS: u8 = 64;

/// Serves the metadata service to every connection of the listener, until it is dropped. `identify` tells which
/// instance an address belongs to; others are refused.
pub async fn serve_imds<F>(listener: TcpListener, engine: Engine, identify: F)
where
    F: Fn(IpAddr) -> Option<InstanceId> + Send + Sync + 'static,
{
    let identify = Arc::new(identify);
    match serve(listener, move |call| {
        handle(engine.clone(), identify.clone(), call)
    })
    .await {}
}

async fn handle<F>(engine: Engine, identify: Arc<F>, call: Call) -> Answer
where
    F: Fn(IpAddr) -> Option<InstanceId>,
{
    let Some(instance) = identify(call.connection.peer.ip()) else {
        tracing::warn!(peer = %call.connection.peer, "a metadata request comes from no instance");
        return Answer::Send(plain(StatusCode::FORBIDDEN, Bytes::new()));
    };
    let path = call.head.uri.path();
    let headers = &call.head.headers;
    match call.head.method {
        Method::PUT if path == TOKEN_PATH => token(&engine, &instance, &call.connection, headers).await,
        Method::GET => {
            let token = headers.get(TOKEN).map(|t| t.to_str().unwrap_or_default());
            let (ttl, reply) = engine.with(|vpc, now| match vpc.imds_session(now, &instance, path, token) {
                Ok(ttl) => (ttl, vpc.imds(now, &instance, path)),
                Err(refusal) => (None, refusal),
            });
            answer(&call.connection, reply, ttl, USUAL_HOPS).await
        }
        _ => Answer::Send(plain(StatusCode::METHOD_NOT_ALLOWED, Bytes::new())),
    }
}

async fn token(
    engine: &Engine,
    instance: &InstanceId,
    connection: &Connection,
    headers: &HeaderMap,
) -> Answer {
    // A request that came through a proxy is refused, so that open proxies give no tokens away.
    if headers.contains_key("x-forwarded-for") {
        return Answer::Send(plain(StatusCode::FORBIDDEN, Bytes::new()));
    }
    let ttl = headers
        .get(TTL)
        .and_then(|t| t.to_str().ok())
        .and_then(|t| t.trim().parse().ok());
    let (reply, hops) =
        engine.with(|vpc, now| (vpc.imds_token(now, instance, ttl), vpc.imds_hop_limit(instance)));
    answer(connection, reply, ttl, hops).await
}

async fn answer(connection: &Connection, reply: ImdsReply, ttl: Option<u64>, hops: u8) -> Answer {
    if !reply.latency.is_zero() {
        tokio::time::sleep(reply.latency).await;
    }
    match reply.fate {
        Fate::Hang => return Answer::Silence,
        Fate::Lose => return Answer::Close,
        Fate::Deliver => {}
    }
    // The token's answer must not travel further than the instance allows; the next one on this connection may.
    if let Err(error) = rustix::net::sockopt::set_ip_ttl(&connection.socket, u32::from(hops)) {
        tracing::warn!(%error, hops, "the hop limit of a metadata answer is not set; it is withheld");
        return Answer::Close;
    }
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match reply.body {
        ImdsBody::Text(text) => Bytes::from(text),
        ImdsBody::Empty => Bytes::from(error_page(status)),
    };
    let mut response = plain(status, body);
    if let (Some(ttl), StatusCode::OK) = (ttl, status) {
        response.headers_mut().insert(TTL, header::HeaderValue::from(ttl));
    }
    Answer::Send(response)
}

/// What IMDS writes with an error; clients look at the status only.
fn error_page(status: StatusCode) -> String {
    if status.is_success() {
        return String::new();
    }
    let title = format!(
        "{} - {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error")
    );
    format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
         <head><title>{title}</title></head>\n <body><h1>{title}</h1></body>\n</html>\n"
    )
}

fn plain(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain"),
    );
    headers.insert(header::SERVER, header::HeaderValue::from_static("EC2ws"));
    response
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    /// What the kernel writes into the packets of this connection from here on.
    fn hops(connection: &Connection) -> u32 {
        rustix::net::sockopt::ip_ttl(&connection.socket).unwrap()
    }

    #[tokio::test]
    async fn a_token_travels_as_far_as_it_may_and_the_next_answer_as_usual() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let connection = Connection {
            peer,
            socket: stream.as_fd().try_clone_to_owned().unwrap(),
        };
        let reply = |body: &str| ImdsReply {
            status: 200,
            body: ImdsBody::Text(body.to_owned()),
            latency: Duration::ZERO,
            fate: Fate::Deliver,
        };
        answer(&connection, reply("token"), Some(60), 1).await;
        assert_eq!(hops(&connection), 1);
        answer(&connection, reply("value"), None, USUAL_HOPS).await;
        assert_eq!(hops(&connection), 64);
        drop((client, stream));
    }

    #[test]
    fn an_error_page_names_its_status() {
        assert!(error_page(StatusCode::UNAUTHORIZED).contains("401 - Unauthorized"));
        assert_eq!(error_page(StatusCode::OK), "");
    }
}
