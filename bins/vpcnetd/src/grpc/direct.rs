//! The direct socket: the services of the gRPC socket for callers that make one call, see [`vpcnet_rpc::direct`].
//!
//! As many connections at a time as on the gRPC socket: as many as the process may open files. Only root gets as far as
//! sending anything, and who is silent is dropped.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::Status;
use vpcnet_rpc::direct::{self, Backends, FrameError, HEAD};
use vpcnet_rpc::method;

use super::health::Health;
use super::{MAX_GC_REQUEST, MAX_REQUEST, Services, allowed};
use crate::http::stopped;

/// Within this time a caller must have sent its request, and taken its answer. Plugins need microseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// When the kernel gives no connection (no file descriptor left, say), it is asked again after this time.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest frame: a GC and its name.
const MAX_FRAME: usize = MAX_GC_REQUEST + 256;

type Served = Backends<Services, Services, Health>;

/// Serves until `stop` turns true, then finishes the calls under way.
pub(super) async fn serve(listener: UnixListener, backends: Served, own: u32, stop: watch::Receiver<bool>) {
    let backends = Arc::new(backends);
    // Each connection holds a sender: when the last is dropped, all have ended.
    let (open, mut ended) = mpsc::channel::<()>(1);
    let mut stopping = std::pin::pin!(stopped(stop.clone()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopping => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (open, backends, stop) = (open.clone(), Arc::clone(&backends), stop.clone());
                tokio::spawn(async move {
                    connection(stream, &backends, own, stopped(stop)).await;
                    drop(open);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the direct socket gives no connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop((listener, open));
    let _ = ended.recv().await;
}

/// One connection, which is one call. `stop` ends it as long as nothing was asked.
async fn connection(mut stream: UnixStream, backends: &Served, own: u32, stop: impl Future<Output = ()>) {
    let caller = stream.peer_cred().ok().map(|c| c.uid());
    let answer = match allowed(caller, own) {
        Err(status) => Err(status),
        Ok(()) => {
            let read = tokio::select! {
                biased;
                read = timeout(PATIENCE, read(&mut stream)) => read,
                () = stop => return,
            };
            match read {
                Ok(Ok(frame)) => {
                    tokio::select! {
                        biased;
                        answer = answer(backends, &frame) => answer,
                        () = gone(&stream) => return,
                    }
                }
                Ok(Err(Unread::Frame(error))) => Err(Status::out_of_range(error.to_string())),
                Ok(Err(Unread::Gone(error))) => {
                    tracing::debug!(%error, "a caller went away before it asked");
                    return;
                }
                Err(_) => {
                    tracing::warn!(
                        after_s = PATIENCE.as_secs(),
                        "a caller that asked nothing was dropped"
                    );
                    return;
                }
            }
        }
    };
    reply(&mut stream, answer).await;
}

/// Why there is no request.
enum Unread {
    /// The caller closed, or the connection broke.
    Gone(io::Error),
    /// What comes is too long.
    Frame(FrameError),
}

/// Reads one frame; gives it without its length.
async fn read(stream: &mut UnixStream) -> Result<Vec<u8>, Unread> {
    // A plugin's request is some 300 bytes and comes at once. The buffer grows with what came, not with what is announced.
    let mut bytes = Vec::with_capacity(1024);
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) => return Err(Unread::Gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(Unread::Gone(error)),
        }
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
            continue;
        };
        let announced = direct::length(*head).map_err(Unread::Frame)?;
        if announced > MAX_FRAME {
            return Err(Unread::Frame(FrameError::TooLong(announced)));
        }
        if rest.len() > announced {
            return Err(Unread::Gone(io::Error::other("more than one request")));
        }
        if rest.len() == announced {
            bytes.drain(..HEAD);
            return Ok(bytes);
        }
    }
}

async fn answer(backends: &Served, frame: &[u8]) -> Result<Vec<u8>, Status> {
    let request = direct::decode_request(frame).map_err(|e| Status::internal(e.to_string()))?;
    let most = if request.method == method::GC.path() {
        MAX_GC_REQUEST
    } else {
        MAX_REQUEST
    };
    if request.message.len() > most {
        return Err(Status::out_of_range(format!(
            "the request has {} bytes, where {most} are the most",
            request.message.len()
        )));
    }
    direct::dispatch(backends, request).await
}

/// Ends when the caller goes away, or sends what it has no right to: it has asked all it may.
async fn gone(stream: &UnixStream) {
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Sends the answer in one write. Nobody can be told that it did not arrive: a plugin that is gone is followed by a DEL.
async fn reply(stream: &mut UnixStream, answer: Result<Vec<u8>, Status>) {
    let frame = match &answer {
        Ok(message) => direct::encode_reply(0, "", message),
        // The enum's numbers are gRPC's.
        Err(status) => direct::encode_reply(status.code() as u32, status.message(), &[]),
    };
    let sent = match frame {
        Ok(frame) => timeout(PATIENCE, stream.write_all(&frame)).await,
        Err(error) => {
            tracing::error!(%error, "the answer has no frame");
            return;
        }
    };
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a caller went away before its answer"),
        Err(_) => tracing::warn!(
            after_s = PATIENCE.as_secs(),
            "a caller that does not take its answer was dropped"
        ),
    }
}
