//! A port of this machine's loopback that leads to the API server, so that a kubectl outside the lab's namespaces reaches it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream as Blocking};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::error::LabError;
use crate::fabric::netns::Place;

/// How long a connection to the API server may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Serves for ever: each connection is carried on into the namespace.
pub(crate) async fn serve(listener: TcpListener, namespace: String, to: (Ipv4Addr, u16)) {
    loop {
        let accepted = match listener.accept().await {
            Ok((accepted, _)) => accepted,
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a connection for the API server");
                // Out of descriptors, mostly: others have to end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let namespace = namespace.clone();
        tokio::spawn(async move {
            // An API server that is down is seen by the client as a closed connection, and needs no word here.
            if let Err(e) = carry(accepted, &namespace, to).await {
                tracing::debug!(error = %e, "a connection to the API server ended");
            }
        });
    }
}

async fn carry(mut outside: TcpStream, namespace: &str, to: (Ipv4Addr, u16)) -> Result<(), LabError> {
    let doing = || format!("reach the API server at {}:{}", to.0, to.1);
    let named = namespace.to_owned();
    let connecting = tokio::task::spawn_blocking(move || {
        Place::named(&named)?.run(|| {
            let stream = Blocking::connect_timeout(&SocketAddr::from(to), CONNECT_LIMIT)
                .map_err(LabError::socket("connect to the API server"))?;
            stream
                .set_nonblocking(true)
                .map_err(LabError::socket("make a connection non-blocking"))?;
            Ok(stream)
        })
    });
    let inside = connecting
        .await
        .map_err(|e| LabError::socket(doing())(e.into()))??;
    let mut inside = TcpStream::from_std(inside).map_err(LabError::socket(doing()))?;
    tokio::io::copy_bidirectional(&mut outside, &mut inside)
        .await
        .map(drop)
        .map_err(LabError::socket(doing()))
}
