//! The plugin's connection: against a real server, against a socket that nobody serves, against a full queue.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};
use vpcnet_rpc::pb::np_backend_client::NpBackendClient;
use vpcnet_rpc::pb::np_backend_server::{NpBackend, NpBackendServer};
use vpcnet_rpc::pb::{DeleteNpReply, DeleteNpRequest, EnforceNpReply, EnforceNpRequest};
use vpcnet_rpc::{ConnectError, Connection};

const DEADLINE: Duration = Duration::from_secs(20);

/// Answers EnforceNpToPod by whether the mode is a megabyte long, and refuses DeletePodNp.
struct Server;

#[tonic::async_trait]
impl NpBackend for Server {
    async fn enforce_np_to_pod(
        &self,
        r: Request<EnforceNpRequest>,
    ) -> Result<Response<EnforceNpReply>, Status> {
        Ok(Response::new(EnforceNpReply {
            success: r.into_inner().network_policy_mode.len() == 1 << 20,
        }))
    }

    async fn delete_pod_np(&self, _: Request<DeleteNpRequest>) -> Result<Response<DeleteNpReply>, Status> {
        Err(Status::resource_exhausted("in its own words: äöü"))
    }
}

fn serve(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let server = tonic::transport::Server::builder().add_service(NpBackendServer::new(Server));
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
}

#[tokio::test]
async fn calls_and_refusals_go_through() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    serve(&socket);
    let connection = Connection::unix(&socket, DEADLINE).await.unwrap();
    let mut client = NpBackendClient::new(connection);
    // More than every window and buffer on the way.
    let long = EnforceNpRequest {
        network_policy_mode: "x".repeat(1 << 20),
        ..Default::default()
    };
    assert!(client.enforce_np_to_pod(long).await.unwrap().into_inner().success);
    let status = client
        .delete_pod_np(DeleteNpRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::ResourceExhausted, "in its own words: äöü")
    );
    // The refusal did not end the connection.
    assert!(
        !client
            .enforce_np_to_pod(EnforceNpRequest::default())
            .await
            .unwrap()
            .into_inner()
            .success
    );
}

#[tokio::test]
async fn a_socket_that_is_missing_is_told_at_once() {
    let error = Connection::unix(Path::new("/nonexistent/s"), DEADLINE)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Dial(_)), "{error}");
}

/// A listener whose queue holds one connection, which is there.
fn full(socket: &Path) -> (std::os::unix::net::UnixListener, std::os::unix::net::UnixStream) {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let first = std::os::unix::net::UnixStream::connect(socket).unwrap();
    (listener, first)
}

#[tokio::test]
async fn a_full_queue_is_waited_for_until_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let _full = full(&socket);
    let error = Connection::unix(&socket, Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Deadline(_)), "{error}");
}

#[tokio::test]
async fn a_queue_that_empties_lets_the_caller_in() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let (listener, _first) = full(&socket);
    let mut waiting = std::pin::pin!(Connection::unix(&socket, DEADLINE));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err(), "the queue was not full");
    let accept = tokio::task::spawn_blocking(move || listener.accept().map(|_| listener).unwrap());
    waiting.await.unwrap();
    accept.await.unwrap();
}
