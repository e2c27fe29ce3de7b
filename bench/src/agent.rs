//! The agent as the operating system accounts for it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The socket of the agent, inside the lab node.
const SOCKET: &str = "/var/run/aws-node/ipamd.sock";

/// A running agent.
pub(crate) struct Agent {
    pid: i32,
}

/// One reading of it.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) rss_mib: f64,
    pub(crate) private_mib: f64,
    pub(crate) cpu: Duration,
}

impl Agent {
    /// The process that listens on the agent's socket.
    pub(crate) fn find() -> io::Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match UnixStream::connect(SOCKET) {
                Ok(stream) => {
                    let pid = rustix::net::sockopt::socket_peercred(&stream)?
                        .pid
                        .as_raw_nonzero()
                        .get();
                    return Ok(Self { pid });
                }
                Err(e) if Instant::now() > deadline => {
                    return Err(io::Error::new(e.kind(), format!("nobody serves {SOCKET}: {e}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub(crate) fn read(&self) -> io::Result<Reading> {
        let pid = self.pid;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let private = field(&rollup, "Private_Clean:")? + field(&rollup, "Private_Dirty:")?;
        Ok(Reading {
            rss_mib: field(&status, "VmRSS:")? / 1024.0,
            private_mib: private / 1024.0,
            cpu: cpu(pid)?,
        })
    }
}

/// Time on a processor of all threads: first field of `schedstat`, ns. The ticks of `stat` are too coarse for an idle process.
fn cpu(pid: i32) -> io::Result<Duration> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split_ascii_whitespace().next().unwrap_or_default();
        total += first.parse::<u64>().map_err(io::Error::other)?;
    }
    Ok(Duration::from_nanos(total))
}

/// A field of a file of `/proc` that counts KiB.
pub(crate) fn field(text: &str, name: &str) -> io::Result<f64> {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        })
        .ok_or_else(|| io::Error::other(format!("no field {name}")))
}

/// Waits until the pool holds at least `total` addresses and `free` of them have no owner.
pub(crate) fn wait_for_pool(total: u64, free: u64) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let now = pool();
        match now {
            Ok((t, assigned)) if t >= total && t - assigned >= free => return Ok(()),
            _ if Instant::now() > deadline => {
                return Err(io::Error::other(format!(
                    "the pool did not come to {total} addresses, {free} of them free, within 120 s: {now:?}"
                )));
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Total and assigned addresses of card 0, from introspection.
fn pool() -> io::Result<(u64, u64)> {
    let body = get("/v1/enis")?;
    let card = body
        .get("0")
        .ok_or_else(|| io::Error::other(format!("no card 0 in {body}")))?;
    let number = |name: &str| card.get(name).and_then(Value::as_u64);
    number("TotalIPs")
        .zip(number("AssignedIPs"))
        .ok_or_else(|| io::Error::other(format!("no totals in {card}")))
}

/// A page of the agent's introspection server in the namespace this thread is in.
pub(crate) fn get(path: &str) -> io::Result<Value> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 61679));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other("no HTTP body"))?;
    serde_json::from_str(body).map_err(|_| io::Error::other(format!("{path}: {}", answer.trim())))
}
