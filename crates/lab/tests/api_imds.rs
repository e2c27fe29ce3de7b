//! The metadata service over HTTP with a plain client: tokens, refusals, listings, kept connections.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use vpcnet_lab::api::{Engine, serve_imds};
use vpcnet_lab::model::{
    FaultKind, FaultRule, FaultTarget, HttpTokens, InstanceId, NodeSpec, Spread, Vpc, VpcConfig,
};

/// Longer than any answer takes, on any machine.
const LONG: Duration = Duration::from_secs(20);

struct Server {
    engine: Engine,
    address: SocketAddr,
    node: InstanceId,
}

async fn server(change: impl FnOnce(&mut NodeSpec)) -> Server {
    let mut vpc = Vpc::new(VpcConfig::instant(), 1);
    let mut spec = NodeSpec::new("node-1", "m5.large");
    change(&mut spec);
    let node = vpc.run_instance(Duration::ZERO, &spec).unwrap();
    let engine = Engine::new(vpc);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let known = node.clone();
    // Only 127.0.0.1 is the node; 127.0.0.2 is nobody.
    let identify = move |from: IpAddr| (from == IpAddr::from([127, 0, 0, 1])).then(|| known.clone());
    tokio::spawn(serve_imds(listener, engine.clone(), identify));
    Server {
        engine,
        address,
        node,
    }
}

struct Client(SendRequest<Empty<Bytes>>);

impl Client {
    async fn connect(server: &Server) -> Self {
        Self::over(TcpStream::connect(server.address).await.unwrap()).await
    }

    async fn over(stream: TcpStream) -> Self {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "169.254.169.254");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.0.send_request(request.body(Empty::new()).unwrap());
        let answer = timeout(LONG, answer).await.expect("an answer in time").unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn token(&mut self) -> String {
        let ttl = [("X-aws-ec2-metadata-token-ttl-seconds", "60")];
        let (status, token) = self.send("PUT", "/latest/api/token", &ttl).await;
        assert_eq!(status, 200);
        token
    }

    async fn get(&mut self, path: &str, token: &str) -> (StatusCode, String) {
        self.send("GET", path, &[("X-aws-ec2-metadata-token", token)])
            .await
    }
}

#[tokio::test]
async fn a_token_opens_the_tree_and_nothing_else_does() {
    let server = server(|_| ()).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(client.send("GET", "/latest/meta-data/mac", &[]).await.0, 401);
    assert_eq!(client.get("/latest/meta-data/mac", "made-up").await.0, 401);
    let token = client.token().await;
    let (status, body) = client.get("/latest/meta-data/instance-id", &token).await;
    assert_eq!((status, body), (StatusCode::OK, server.node.to_string()));
    assert_eq!(client.get("/latest/meta-data/no-such-thing", &token).await.0, 404);
    assert_eq!(client.send("POST", "/latest/meta-data/mac", &[]).await.0, 405);
}

#[tokio::test]
async fn a_token_needs_a_lifetime_from_one_second_to_six_hours_and_no_proxy() {
    let server = server(|_| ()).await;
    let mut client = Client::connect(&server).await;
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds";
    for bad in ["0", "21601", "-1", "soon"] {
        assert_eq!(
            client.send("PUT", "/latest/api/token", &[(ttl, bad)]).await.0,
            400,
            "{bad}"
        );
    }
    assert_eq!(client.send("PUT", "/latest/api/token", &[]).await.0, 400);
    let proxied = [(ttl, "60"), ("X-Forwarded-For", "10.0.0.9")];
    assert_eq!(client.send("PUT", "/latest/api/token", &proxied).await.0, 403);
    assert_eq!(
        client.send("PUT", "/latest/api/token", &[(ttl, "21600")]).await.0,
        200
    );
}

#[tokio::test]
async fn an_old_token_is_refused() {
    let mut vpc = Vpc::new(VpcConfig::instant(), 1);
    let node = vpc
        .run_instance(Duration::ZERO, &NodeSpec::new("n", "m5.large"))
        .unwrap();
    let reply = vpc.imds_token(Duration::ZERO, &node, Some(60));
    let vpcnet_lab::model::ImdsBody::Text(token) = reply.body else {
        panic!("{reply:?}")
    };
    let at = |s| Duration::from_secs(s);
    assert_eq!(vpc.imds_session(at(59), &node, "/", Some(&token)), Ok(Some(1)));
    assert_eq!(
        vpc.imds_session(at(60), &node, "/", Some(&token))
            .unwrap_err()
            .status,
        401
    );
}

#[tokio::test]
async fn version_one_is_answered_only_where_tokens_are_optional() {
    let server = server(|spec| spec.http_tokens = HttpTokens::Optional).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(
        client.send("GET", "/latest/meta-data/instance-type", &[]).await.1,
        "m5.large"
    );
    assert_eq!(
        client.get("/latest/meta-data/instance-type", "made-up").await.0,
        401
    );
}

#[tokio::test]
async fn an_address_that_is_no_instance_gets_nothing() {
    let server = server(|_| ()).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut client = Client::over(socket.connect(server.address).await.unwrap()).await;
    let ttl = [("X-aws-ec2-metadata-token-ttl-seconds", "60")];
    assert_eq!(client.send("PUT", "/latest/api/token", &ttl).await.0, 403);
}

#[tokio::test]
async fn directories_are_listed_with_and_without_their_slash() {
    let server = server(|_| ()).await;
    let mut client = Client::connect(&server).await;
    let token = client.token().await;
    let (_, mac) = client.get("/latest/meta-data/mac", &token).await;
    for (path, listing) in [
        ("/", "1.0\n2021-07-15\nlatest".to_owned()),
        ("/latest/", "dynamic\nmeta-data".to_owned()),
        ("/latest/meta-data/network/interfaces/macs/", format!("{mac}/")),
        ("/latest/meta-data/network/interfaces/macs", format!("{mac}/")),
        (
            "/2021-07-15/meta-data/iam/security-credentials/",
            "lab-node".to_owned(),
        ),
        ("/latest/meta-data/iam/", "info\nsecurity-credentials/".to_owned()),
        ("/latest/dynamic/", "instance-identity/".to_owned()),
    ] {
        assert_eq!(
            client.get(path, &token).await,
            (StatusCode::OK, listing),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_lost_answer_closes_the_connection_and_the_next_request_needs_a_new_one() {
    let server = server(|_| ()).await;
    let mut client = Client::connect(&server).await;
    let token = client.token().await;
    let rule = FaultRule::new(
        FaultTarget::Imds("meta-data/mac".to_owned()),
        FaultKind::LoseAnswer,
    );
    server.engine.with(|vpc, _| {
        vpc.add_fault(FaultRule {
            times: Some(1),
            ..rule
        })
    });
    let request = Request::get("/latest/meta-data/mac").header("X-aws-ec2-metadata-token", &token);
    let request = request.body(Empty::new()).unwrap();
    assert!(
        timeout(LONG, client.0.send_request(request))
            .await
            .expect("the end, in time")
            .is_err()
    );
    let mut client = Client::connect(&server).await;
    assert_eq!(client.get("/latest/meta-data/mac", &token).await.0, 200);
}

#[tokio::test]
async fn a_hanging_request_holds_up_nobody_else() {
    let server = server(|_| ()).await;
    let mut client = Client::connect(&server).await;
    let token = client.token().await;
    let rule = FaultRule::new(FaultTarget::Imds("meta-data/mac".to_owned()), FaultKind::Hang);
    server.engine.with(|vpc, _| vpc.add_fault(rule));
    let mut stuck = Client::connect(&server).await;
    let never = stuck.get("/latest/meta-data/mac", &token);
    tokio::select! {
        answer = never => panic!("answered: {answer:?}"),
        answer = client.get("/latest/meta-data/instance-type", &token) => assert_eq!(answer.0, 200),
    }
}

#[tokio::test]
async fn an_imposed_delay_is_kept() {
    let server = server(|_| ()).await;
    let mut client = Client::connect(&server).await;
    let token = client.token().await;
    let slow = FaultKind::Slow(Spread::millis(150, 150));
    server
        .engine
        .with(|vpc, _| vpc.add_fault(FaultRule::new(FaultTarget::Imds("*".to_owned()), slow)));
    let before = std::time::Instant::now();
    client.get("/latest/meta-data/mac", &token).await;
    assert!(
        before.elapsed() >= Duration::from_millis(150),
        "{:?}",
        before.elapsed()
    );
}

/// Nagle and delayed acknowledgements would cost each of these 40 ms.
#[tokio::test]
async fn a_kept_connection_answers_at_once() {
    const REQUESTS: u32 = 100;
    let server = server(|_| ()).await;
    let mut client = Client::connect(&server).await;
    let token = client.token().await;
    let before = std::time::Instant::now();
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/latest/meta-data/mac", &token).await.0, 200);
    }
    assert!(
        before.elapsed() < Duration::from_millis(20) * REQUESTS,
        "{:?}",
        before.elapsed()
    );
}
