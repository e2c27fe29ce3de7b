//! A server that answers as a test tells it to, and remembers what it was asked.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The form's fields, decoded as far as tests need it.
    pub(crate) fn form(&self) -> HashMap<String, String> {
        self.body
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| {
                (
                    name.replace("%3A", ":"),
                    value.replace("%3A", ":").replace("%2F", "/").replace("%20", " "),
                )
            })
            .collect()
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    Status(u16, Vec<(&'static str, String)>, String),
    /// Never answer.
    Hang,
}

impl Say {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self::Status(200, Vec::new(), body.into())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }

    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
             <RequestID>4f1b5e4f-0000-4000-8000-000000000000</RequestID></Response>"
        );
        Self::Status(status, Vec::new(), body)
    }
}

/// A running server; it ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Starts a server on loopback. `answer` is told how many requests came before.
    pub(crate) async fn start(answer: impl Fn(usize, &Asked) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let (count, log) = (accepted.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, log) = (answer.clone(), log.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| serve(request, answer.clone(), log.clone()));
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            accepted,
            asked,
        }
    }

    /// Starts a server that writes these bytes, whatever it is asked, and closes.
    pub(crate) async fn raw(bytes: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut head = [0; 4096];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await;
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            address,
            accepted,
            asked: Arc::default(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections made so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Requests so far whose path ends so.
    pub(crate) fn asked_for(&self, end: &str) -> usize {
        self.asked().iter().filter(|a| a.path.ends_with(end)).count()
    }
}

async fn serve(
    request: http::Request<Incoming>,
    answer: Arc<impl Fn(usize, &Asked) -> Say>,
    log: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.len() - 1
    };
    match answer(before, &asked) {
        Say::Hang => std::future::pending().await,
        Say::Status(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Full::new(Bytes::from(body))).unwrap())
        }
    }
}

/// A metadata service: tokens, and a tree of values.
pub(crate) fn imds(tree: HashMap<String, String>) -> impl Fn(usize, &Asked) -> Say + Send + Sync + 'static {
    move |_, asked| {
        if asked.path == "/latest/api/token" {
            return if asked.method == "PUT"
                && asked.header("x-aws-ec2-metadata-token-ttl-seconds") == Some("21600")
            {
                Say::ok("the-token")
            } else {
                Say::status(400)
            };
        }
        if asked.header("x-aws-ec2-metadata-token") != Some("the-token") {
            return Say::status(401);
        }
        tree.get(&asked.path)
            .map_or(Say::status(404), |value| Say::ok(value.clone()))
    }
}

/// The tree of an instance with two interfaces.
pub(crate) fn tree() -> HashMap<String, String> {
    let mut tree = HashMap::new();
    let mut put =
        |path: &str, value: &str| tree.insert(format!("/latest/meta-data/{path}"), value.to_owned());
    put("mac", "06:00:00:00:00:01\n");
    put("local-ipv4", "10.0.0.10");
    put("instance-id", "i-0aaa");
    put("instance-type", "m5.large");
    put("placement/availability-zone", "eu-west-1a");
    put("placement/region", " eu-west-1 ");
    put(
        "network/interfaces/macs",
        "06:00:00:00:00:01/\n06:00:00:00:00:02/",
    );
    let first = "network/interfaces/macs/06:00:00:00:00:01";
    put(
        &format!("{first}/"),
        "device-number\ninterface-id\nlocal-ipv4s\nmac\nsubnet-id\nsubnet-ipv4-cidr-block\nvpc-id",
    );
    put(&format!("{first}/interface-id"), "eni-0001\n");
    put(&format!("{first}/device-number"), "0");
    put(&format!("{first}/local-ipv4s"), "10.0.0.10\n10.0.0.11 10.0.0.12");
    put(&format!("{first}/subnet-id"), "subnet-0a");
    put(&format!("{first}/subnet-ipv4-cidr-block"), "10.0.0.0/20");
    put(&format!("{first}/vpc-id"), "vpc-0a");
    put(
        &format!("{first}/vpc-ipv4-cidr-blocks"),
        "10.0.0.0/16\n100.64.0.0/16",
    );
    put(&format!("{first}/security-group-ids"), "sg-1\nsg-2");
    let second = "network/interfaces/macs/06:00:00:00:00:02";
    put(
        &format!("{second}/"),
        "device-number\ninterface-id\nipv4-prefix\nipv6-prefix\nipv6s\nlocal-ipv4s\nnetwork-card\nsubnet-id\nsubnet-ipv6-cidr-blocks\nvpc-id/",
    );
    put(&format!("{second}/interface-id"), "eni-0002");
    put(&format!("{second}/device-number"), "1");
    put(&format!("{second}/network-card"), "1");
    put(&format!("{second}/local-ipv4s"), "10.0.1.10");
    put(&format!("{second}/ipv4-prefix"), "10.0.1.16/28\n10.0.1.32/28");
    put(&format!("{second}/ipv6s"), "2001:db8::1");
    put(&format!("{second}/ipv6-prefix"), "2001:db8:0:0:1::/80");
    put(&format!("{second}/subnet-id"), "subnet-0b");
    put(&format!("{second}/subnet-ipv6-cidr-blocks"), "2001:db8::/64");
    tree
}

/// Waits until something holds, ten seconds at most.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("it never came to hold");
}
