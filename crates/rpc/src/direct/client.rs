//! The plugin's side: blocking, no runtime, seven system calls from socket to close.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};
use tonic::Code;

use super::{FrameError, HEAD, decode_reply, encode_request, length};
use crate::ConnectError;
use crate::method::Method;

/// A call over a connection gave no answer to go on with.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection ended in mid-call: the other side was killed, or restarted.
    #[error("the connection broke before the answer came ({0})")]
    Broken(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// An answer, and it is no.
    #[error("{message}")]
    Status {
        /// gRPC's code.
        code: Code,
        /// The other side's words.
        message: String,
    },
}

impl From<FrameError> for CallError {
    fn from(error: FrameError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// A connection to a direct socket, for one call. Closing it cancels the call.
#[derive(Debug)]
pub struct Connection {
    stream: OwnedFd,
}

impl Connection {
    /// Connects to `socket` within `deadline`: while the listener's queue is full, the kernel lets us wait.
    ///
    /// # Errors
    /// [`ConnectError::Dial`], [`ConnectError::Deadline`]. Nothing was asked of anybody then.
    pub fn open(socket: &Path, deadline: Duration) -> Result<Self, ConnectError> {
        let dial = |error: Errno| ConnectError::Dial(error.into());
        let address = SocketAddrUnix::new(socket).map_err(dial)?;
        let stream = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(dial)?;
        let limit = Instant::now() + deadline;
        loop {
            // Also how long connect(2) waits.
            set_socket_timeout(&stream, Timeout::Send, Some(left(limit))).map_err(dial)?;
            match connect(&stream, &address) {
                Ok(()) => return Ok(Self { stream }),
                Err(Errno::AGAIN) => return Err(ConnectError::Deadline(deadline)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(dial(error)),
            }
        }
    }

    /// Makes the call; the answer must be there within `deadline`.
    ///
    /// # Errors
    /// See [`CallError`]. But for [`CallError::Status`] it is not known then whether the call was carried out.
    pub fn call<Q, A>(self, method: &Method<Q, A>, request: &Q, deadline: Duration) -> Result<A, CallError>
    where
        Q: Message,
        A: Message + Default,
    {
        let limit = Instant::now() + deadline;
        let frame = encode_request(method.path(), request)?;
        self.send(&frame, limit, deadline)?;
        let frame = self.receive(limit, deadline)?;
        let reply = decode_reply(&frame)?;
        if reply.code == 0 {
            return A::decode(reply.message).map_err(|e| CallError::Broken(format!("the answer: {e}")));
        }
        Err(CallError::Status {
            code: Code::from_i32(i32::try_from(reply.code).unwrap_or(-1)),
            message: reply.text.to_owned(),
        })
    }

    fn send(&self, mut bytes: &[u8], limit: Instant, deadline: Duration) -> Result<(), CallError> {
        loop {
            match send(&self.stream, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Who refuses the call before reading all of it has answered and closed: the answer says why.
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(error) => return Err(broken(error)),
            }
            if bytes.is_empty() {
                return Ok(());
            }
            // Rare: longer than the socket's buffer, and the server does not read.
            self.wait_until(Timeout::Send, limit, deadline)?;
        }
    }

    /// The answer's frame without its length.
    fn receive(&self, limit: Instant, deadline: Duration) -> Result<Vec<u8>, CallError> {
        let mut frame = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            self.wait_until(Timeout::Recv, limit, deadline)?;
            match recv(self.stream.as_fd(), &mut bytes, RecvFlags::empty()) {
                Ok((_, 0)) => return Err(CallError::Broken("it was closed".to_owned())),
                Ok((_, n)) => frame.extend_from_slice(bytes.get(..n).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(error) => return Err(broken(error)),
            }
            let Some((head, rest)) = frame.split_first_chunk::<HEAD>() else {
                continue;
            };
            let announced = length(*head)?;
            if rest.len() > announced {
                return Err(CallError::Broken("more than one answer came".to_owned()));
            }
            if rest.len() == announced {
                frame.drain(..HEAD);
                return Ok(frame);
            }
        }
    }

    /// Limits the next send or receive to what is left of the deadline.
    fn wait_until(&self, which: Timeout, limit: Instant, deadline: Duration) -> Result<(), CallError> {
        if Instant::now() >= limit {
            return Err(CallError::Deadline(deadline));
        }
        set_socket_timeout(&self.stream, which, Some(left(limit))).map_err(broken)
    }
}

/// Not zero, which would mean for ever.
fn left(limit: Instant) -> Duration {
    limit
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1))
}

fn broken(error: Errno) -> CallError {
    CallError::Broken(io::Error::from(error).to_string())
}
