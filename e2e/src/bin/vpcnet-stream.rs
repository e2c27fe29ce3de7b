//! The two ends of a watched TCP connection. Both end when their standard input closes.
//!
//! `serve ADDR:PORT` echoes; prints `listening` when it does. `connect ADDR:PORT [SOURCE]` sends a number every 20 ms, from the address
//! SOURCE if one is given, and expects it back within 5 s; prints `connected`, and at the end `<echoes> <longest gap in ms>`. Exit code 1
//! when the connection breaks.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, socket};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (verb, address) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    let result = match (verb.as_str(), address.parse::<SocketAddr>()) {
        ("serve", Ok(address)) => serve(address),
        ("connect", Ok(address)) => args
            .next()
            .map(|source| source.parse().map_err(io::Error::other))
            .transpose()
            .and_then(|source| connect(address, source)),
        _ => Err(io::Error::other(
            "usage: vpcnet-stream serve ADDR:PORT | connect ADDR:PORT [SOURCE]",
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// True once standard input has closed.
fn told_to_stop() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&flag);
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        theirs.store(true, Ordering::Relaxed);
    });
    flag
}

fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                if let Ok(mut back) = stream.try_clone() {
                    let _ = io::copy(&mut &stream, &mut back);
                }
            });
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

/// A connection, from `source` if there is one: a pod's address on a further network card is none that the kernel would choose.
fn dial(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let end = socket(family, SocketType::STREAM, None)?;
    // Bounds connect(2) too: socket(7).
    set_socket_timeout(&end, Timeout::Send, Some(Duration::from_secs(10)))?;
    if let Some(source) = source {
        bind(&end, &SocketAddr::new(source, 0))?;
    }
    rustix::net::connect(&end, &address)?;
    Ok(end.into())
}

fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<()> {
    let stop = told_to_stop();
    let mut stream = dial(address, source)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    println!("connected");
    let (mut echoes, mut longest, mut last) = (0u64, Duration::ZERO, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&echoes.to_be_bytes())?;
        let mut back = [0u8; 8];
        stream.read_exact(&mut back)?;
        if u64::from_be_bytes(back) != echoes {
            return Err(io::Error::other(format!(
                "sent {echoes}, got {}",
                u64::from_be_bytes(back)
            )));
        }
        echoes += 1;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{echoes} {}", longest.as_millis());
    Ok(())
}
