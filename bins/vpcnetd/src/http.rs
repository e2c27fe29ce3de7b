//! The two plain HTTP servers. A port that is taken is tried again, and never keeps the agent from serving pods.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::config::Bind;

/// First and longest pause between attempts to listen (the original's figures).
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Serves `router` on `bind` until `stop` turns true. `name` is for the log.
pub async fn serve(name: &'static str, bind: Bind, router: Router, mut stop: watch::Receiver<bool>) {
    let mut pause = RETRY.0;
    loop {
        let error = match listen(&bind).await {
            Ok(listener) => {
                tracing::info!(server = name, address = %bind, "listening");
                pause = RETRY.0;
                match run(listener, router.clone(), stopped(stop.clone())).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        tracing::warn!(server = name, address = %bind, %error, retry_in_s = pause.as_secs(), "not served");
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY.1),
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Ends when `stop` turns true or its sender is gone.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

async fn listen(bind: &Bind) -> io::Result<Listener> {
    match bind {
        Bind::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
        Bind::Unix(path) => listen_unix(path).map(Listener::Unix),
    }
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        // Only a socket nobody answers on is ours to remove.
        Ok(m) if m.file_type().is_socket() && std::os::unix::net::UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path)?;
        }
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

async fn run(
    listener: Listener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    match listener {
        Listener::Tcp(listener) => axum::serve(listener, router).with_graceful_shutdown(stop).await,
        Listener::Unix(listener) => axum::serve(listener, router).with_graceful_shutdown(stop).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: std::net::SocketAddr) -> io::Result<String> {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    #[tokio::test(start_paused = true)]
    async fn a_taken_port_is_served_as_soon_as_it_is_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/x", get(|| async { "here" }));
        let server = tokio::spawn(serve("test", Bind::Tcp(address), router, stopped));
        tokio::task::yield_now().await;
        drop(taken);
        let answer = tokio::time::timeout(Duration::from_secs(120), async {
            loop {
                match ask(address).await {
                    Ok(text) => return text,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        })
        .await
        .unwrap();
        assert!(answer.ends_with("here"), "{answer}");
        stop.send(true).unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_stale_unix_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i.sock");
        drop(listen_unix(&path).unwrap());
        let _listener = listen_unix(&path).unwrap();
        assert!(listen_unix(&path).is_err(), "a served one is left alone");
    }
}
