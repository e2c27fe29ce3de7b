//! `vpcnet health`: the standard gRPC health check, for probes, with the flags, words and exit codes of `grpc-health-probe`.

mod flags;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use vpcnet_rpc::health::HealthCheckRequest;
use vpcnet_rpc::health::health_check_response::ServingStatus;
use vpcnet_rpc::health::health_client::HealthClient;
use vpcnet_rpc::{ConnectError, Connection};

use flags::{Flags, Parsed, USAGE};

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    /// A unix socket's path.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// How a check ends, by `grpc-health-probe`'s exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Serving = 0,
    Usage = 1,
    NoConnection = 2,
    CallFailed = 3,
    NotServing = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Checks, and says what came of it on stderr.
pub(crate) async fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let arguments = arguments.into_iter().map(|a| a.to_string_lossy().into_owned());
    let flags = match flags::parse(arguments) {
        Ok(Parsed::Flags(flags)) => flags,
        Ok(Parsed::Help) => {
            eprint!("{USAGE}");
            return Code::Serving.into();
        }
        Err(error) => {
            eprintln!("error: {error}\n{USAGE}");
            return Code::Usage.into();
        }
    };
    let (code, text) = check(&flags).await;
    eprintln!("{text}");
    code.into()
}

async fn check(flags: &Flags) -> (Code, String) {
    let tell = |text: &str| {
        if flags.verbose {
            eprintln!("{text}");
        }
    };
    tell(&format!("establishing connection to {:?}", flags.address));
    let connection = match connect(&flags.address, flags.connect_timeout).await {
        Ok(connection) => connection,
        Err(error) => {
            return (
                Code::NoConnection,
                format!(
                    "error: failed to connect service at {:?}: {error}",
                    flags.address_text
                ),
            );
        }
    };
    tell("connection established");
    let request = HealthCheckRequest {
        service: flags.service.clone(),
    };
    let mut request = tonic::Request::new(request);
    if let Ok(agent) = flags.user_agent.parse() {
        request.metadata_mut().insert("user-agent", agent);
    }
    let mut client = HealthClient::new(connection);
    let answer = match tokio::time::timeout(flags.rpc_timeout, client.check(request)).await {
        Err(_) => {
            let text = format!("error: health rpc: no answer within {:?}", flags.rpc_timeout);
            return (Code::CallFailed, text);
        }
        Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
            return (
                Code::CallFailed,
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                    .into(),
            );
        }
        Ok(Err(status)) => {
            return (Code::CallFailed, format!("error: health rpc failed: {status}"));
        }
        Ok(Ok(answer)) => answer.into_inner().status(),
    };
    if answer == ServingStatus::Serving {
        (Code::Serving, "status: SERVING".into())
    } else {
        (
            Code::NotServing,
            format!("service unhealthy (responded with {:?})", answer.as_str_name()),
        )
    }
}

async fn connect(address: &Address, deadline: Duration) -> Result<Connection, ConnectError> {
    match address {
        Address::Unix(path) => Connection::unix(path, deadline).await,
        Address::Tcp(address) => Connection::tcp(address, deadline).await,
    }
}
