//! IMDS as a pod asks it: a token first, then the instance's id.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use super::plan::Endpoint;
use super::wire;
use crate::error::LabError;
use crate::fabric::netns::Place;

const IMDS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
/// How long an answer that should come may take.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How long to wait for one that should not.
const SILENCE: Duration = Duration::from_millis(600);

/// The instance id IMDS tells this endpoint.
///
/// # Errors
/// What went wrong, in words.
pub(crate) fn instance_id(endpoint: &Endpoint) -> Result<String, String> {
    inside(endpoint, || {
        let source = endpoint.source();
        let token = token(source, PATIENCE)?;
        let get = format!(
            "GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: {}\r\nX-aws-ec2-metadata-token: {token}\r\n\
             Connection: close\r\n\r\n",
            IMDS.ip()
        );
        exchange(source, &get, PATIENCE)
    })
}

/// Fails when this endpoint gets a token, which must not reach it.
///
/// # Errors
/// The status of the answer that came.
pub(crate) fn no_token(endpoint: &Endpoint) -> Result<(), String> {
    match inside(endpoint, || token(endpoint.source(), SILENCE)) {
        Ok(_) => Err("a token came".to_owned()),
        // An answer of any kind is a failure, a connection that cannot be made is one too: at hop limit 1 only the
        // token's answer must be lost.
        Err(e) if e.starts_with("no answer") => Ok(()),
        Err(e) => Err(e),
    }
}

fn inside<T: Send>(
    endpoint: &Endpoint,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let place = Place::named(&endpoint.namespace).map_err(|e| e.to_string())?;
    place
        .run(|| work().map_err(LabError::Refused))
        .map_err(|e| e.to_string())
}

fn token(source: Option<IpAddr>, limit: Duration) -> Result<String, String> {
    let put = format!(
        "PUT /latest/api/token HTTP/1.1\r\nHost: {}\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n",
        IMDS.ip()
    );
    exchange(source, &put, limit)
}

/// One request; the body of a 200.
fn exchange(source: Option<IpAddr>, request: &str, limit: Duration) -> Result<String, String> {
    let mut stream =
        wire::stream(source, SocketAddr::V4(IMDS), PATIENCE).map_err(|e| format!("cannot connect: {e}"))?;
    let mut answer = Vec::new();
    let talk = stream
        .set_read_timeout(Some(limit))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .and_then(|()| read_all(&mut stream, &mut answer));
    let text = String::from_utf8_lossy(&answer);
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.trim().to_owned()),
        Some((head, _)) => Err(head.lines().next().unwrap_or_default().to_owned()),
        None => Err(talk
            .err()
            .map_or_else(|| "no answer: closed".to_owned(), |e| format!("no answer: {e}"))),
    }
}

/// Reads a whole answer: to its end, or as far as its length says.
fn read_all(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        answer.extend_from_slice(buffer.get(..n).unwrap_or_default());
        let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
        let complete = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            length.is_some_and(|l| body.len() >= l)
        });
        if n == 0 || complete {
            return Ok(());
        }
    }
}
