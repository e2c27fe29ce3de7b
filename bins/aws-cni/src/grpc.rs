//! gRPC in a process that has no event loop: one is made when a call needs it. That is the network policy agent's
//! calls, and the node agent's where it is the AWS VPC CNI's.

use std::mem::ManuallyDrop;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use tokio::runtime::Runtime;
use tonic::Status;
use vpcnet_rpc::method::Method;
use vpcnet_rpc::{ConnectError, Connection};

use crate::failure::CallError;

/// A gRPC connection with the event loop it lives on.
pub(crate) struct Grpc {
    /// Not ended when it is dropped: the process ends next, and the kernel frees all of it at once.
    runtime: ManuallyDrop<Runtime>,
    connection: Connection,
}

impl Grpc {
    /// Connects to `socket` within `deadline`.
    ///
    /// # Errors
    /// [`CallError::Connect`].
    pub(crate) fn connect(socket: &Path, deadline: Duration) -> Result<Self, CallError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|source| CallError::Connect(ConnectError::Dial(source)))?;
        let connection = runtime.block_on(Connection::unix(socket, deadline))?;
        Ok(Self {
            runtime: ManuallyDrop::new(runtime),
            connection,
        })
    }

    /// Makes a call with a deadline. Giving it up cancels it, which the other side sees.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(crate) fn call<Q, A>(
        &self,
        method: &Method<Q, A>,
        request: Q,
        deadline: Duration,
    ) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.runtime
            .block_on(within(deadline, self.connection.unary(method, request)))
    }
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => Err(CallError::Deadline(deadline)),
    }
}

/// A status that the other side sent has no source; one that stands for a broken connection has the connection's error.
fn from_status(status: &Status) -> CallError {
    match std::error::Error::source(status) {
        Some(source) => CallError::Broken(source.to_string()),
        None => CallError::Status {
            code: status.code(),
            message: status.message().to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_ends_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let deadline = Duration::from_millis(20);
        let never = std::future::pending::<Result<(), Status>>();
        let error = runtime.block_on(within(deadline, never)).unwrap_err();
        assert!(matches!(error, CallError::Deadline(d) if d == deadline));
    }

    #[test]
    fn a_status_that_was_sent_is_told_from_a_broken_connection() {
        let sent = from_status(&Status::unavailable("EC2 is down; next try in 8 s"));
        assert!(matches!(
            sent,
            CallError::Status {
                code: tonic::Code::Unavailable,
                ..
            }
        ));
        assert_eq!(sent.to_string(), "EC2 is down; next try in 8 s");
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        assert!(matches!(from_status(&broken), CallError::Broken(_)));
    }
}
