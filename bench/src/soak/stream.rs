//! A TCP connection that is kept for the whole run: a number goes over it and back every 50 ms.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::host;

const PORT: u16 = 30_400;
const PAUSE: Duration = Duration::from_millis(50);
/// How long an echo may take before the connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running connection.
pub(super) struct Stream {
    pub(super) title: String,
    stop: Arc<AtomicBool>,
    client: JoinHandle<io::Result<Figures>>,
    server: JoinHandle<()>,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) echoes: u64,
    pub(super) longest: Duration,
}

impl Stream {
    /// Opens it between two namespaces (paths); the far one serves on `address`.
    pub(super) fn open(title: String, near: &str, far: &str, address: IpAddr) -> io::Result<Self> {
        Self::open_at(title, near, far, address, 0)
    }

    /// The same; the port is `further` on, where several are served in one place.
    pub(super) fn open_at(
        title: String,
        near: &str,
        far: &str,
        address: IpAddr,
        further: u16,
    ) -> io::Result<Self> {
        let (near, far) = (File::open(near)?, File::open(far)?);
        let listener = host::within(&far, || {
            TcpListener::bind(SocketAddr::new(address, PORT + further))
        })?;
        let target = listener.local_addr()?;
        let socket = host::within(&near, || TcpStream::connect_timeout(&target, PATIENCE))?;
        let (answering, _) = listener.accept()?;
        for end in [&socket, &answering] {
            end.set_nodelay(true)?;
        }
        socket.set_read_timeout(Some(PATIENCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        Ok(Self {
            title,
            stop,
            client: std::thread::spawn(move || ask(socket, &theirs)),
            server: std::thread::spawn(move || answer(answering)),
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// Why it had broken.
    pub(super) fn close(self) -> io::Result<Figures> {
        self.stop.store(true, Ordering::Relaxed);
        let figures = self.client.join();
        let _ = self.server.join();
        figures.unwrap_or_else(|_| Err(io::Error::other("the connection's thread panicked")))
    }
}

fn answer(mut socket: TcpStream) {
    let mut number = [0u8; 8];
    while socket.read_exact(&mut number).is_ok() && socket.write_all(&number).is_ok() {}
}

fn ask(mut socket: TcpStream, stop: &AtomicBool) -> io::Result<Figures> {
    let start = Instant::now();
    let (mut echoes, mut longest) = (0u64, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let mut back = [0u8; 8];
        let broke = |e: io::Error| {
            let after = start.elapsed().as_secs();
            io::Error::new(
                e.kind(),
                format!("broke after {after} s and {echoes} echoes: {e}"),
            )
        };
        socket.write_all(&echoes.to_be_bytes()).map_err(broke)?;
        socket.read_exact(&mut back).map_err(broke)?;
        if u64::from_be_bytes(back) != echoes {
            return Err(broke(io::Error::other("another number came back")));
        }
        echoes += 1;
        longest = longest.max(sent.elapsed());
        std::thread::sleep(PAUSE);
    }
    Ok(Figures { echoes, longest })
}
