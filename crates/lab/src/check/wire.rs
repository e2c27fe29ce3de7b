//! Sending the questions and answering them: one thread for each endpoint's answers and one for its questions,
//! inside its namespace.
//!
//! A question carries a number; the answer carries the number, the source the answering side saw, and its name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, Timeout, set_ip_mtu_discover, set_ipv6_mtu_discover,
    set_socket_timeout,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::time::Timespec;

use super::plan::{Endpoint, PORT, Probe, Transport};
use crate::error::LabError;
use crate::fabric::netns::Place;

/// When an unanswered datagram is sent again, from the first time on; after the last it has failed.
const ROUNDS: &[Duration] = &[
    Duration::from_millis(150),
    Duration::from_millis(350),
    Duration::from_millis(800),
    Duration::from_millis(1500),
    Duration::from_millis(2500),
    // Ten thousand questions at once on a machine that is at work with something else.
    Duration::from_millis(6000),
];
const CONNECT: Duration = Duration::from_millis(2500);
/// How often a waiting responder looks whether it is to end.
const STOP_LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// What came of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// An answer: the source seen, who answered, and from where the answer came.
    Answer {
        /// Source address the other side saw.
        seen: IpAddr,
        /// Its name.
        name: String,
        /// Source of the answer.
        from: SocketAddr,
    },
    /// None.
    Silence(String),
}

/// Numbers of the questions each endpoint has seen, for probes that must not arrive.
pub(crate) type Seen = Mutex<BTreeSet<(usize, u64)>>;

/// Answers for one endpoint until `stop`. Says on `ready` when it listens, or why it cannot.
pub(crate) fn respond(
    index: usize,
    endpoint: &Endpoint,
    stop: &AtomicBool,
    seen: &Seen,
    ready: &Sender<Result<(), LabError>>,
) {
    let listen = || -> io::Result<(UdpSocket, TcpListener)> {
        let (udp, tcp) = (
            UdpSocket::bind((endpoint.address, PORT))?,
            TcpListener::bind((endpoint.address, PORT))?,
        );
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp))
    };
    let result = Place::named(&endpoint.namespace).and_then(|place| {
        place.run(|| {
            let doing = format!("listen on {}:{PORT} for {}", endpoint.address, endpoint.name);
            let (udp, tcp) = listen().map_err(LabError::socket(doing))?;
            let _ = ready.send(Ok(()));
            while !stop.load(Ordering::Relaxed) {
                let mut fds = [
                    PollFd::from_borrowed_fd(udp.as_fd(), PollFlags::IN),
                    PollFd::from_borrowed_fd(tcp.as_fd(), PollFlags::IN),
                ];
                let _ = poll(&mut fds, Some(&STOP_LOOK));
                answer_datagrams(&udp, index, &endpoint.name, seen);
                while let Ok((stream, from)) = tcp.accept() {
                    answer_connection(stream, from, &endpoint.name);
                }
            }
            Ok(())
        })
    });
    if let Err(e) = result {
        let _ = ready.send(Err(e));
    }
}

fn answer_datagrams(udp: &UdpSocket, index: usize, name: &str, seen: &Seen) {
    let mut buffer = vec![0u8; 16 * 1024];
    while let Ok((n, from)) = udp.recv_from(&mut buffer) {
        let text = buffer.get(..n).map(String::from_utf8_lossy).unwrap_or_default();
        let Some(number) = text.split_whitespace().next().and_then(|t| t.parse::<u64>().ok()) else {
            continue;
        };
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((index, number));
        let mut answer = format!("{number} {} {name} ", from.ip()).into_bytes();
        // As long as the question, so that the way back is tried as the way there was.
        answer.resize(answer.len().max(n), b'.');
        let _ = udp.send_to(&answer, from);
    }
}

fn answer_connection(mut stream: TcpStream, from: SocketAddr, name: &str) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.write_all(format!("0 {} {name} \n", from.ip()).as_bytes());
}

/// Asks all of one endpoint's questions; results in their order.
pub(crate) fn ask(endpoint: &Endpoint, probes: &[&Probe], first_number: u64) -> Vec<Outcome> {
    let result = Place::named(&endpoint.namespace).and_then(|place| {
        place.run(|| {
            let source = endpoint.source();
            let any: IpAddr = if endpoint.address.is_ipv6() {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            let datagrams = ask_datagrams(source.unwrap_or(any), probes, first_number)
                .map_err(LabError::socket("ask by UDP"))?;
            let outcome = |(i, probe): (usize, &&Probe)| match probe.transport {
                Transport::Tcp => connect(source, probe.to),
                Transport::Udp => datagrams
                    .get(&i)
                    .cloned()
                    .unwrap_or_else(|| Outcome::Silence("no answer".to_owned())),
            };
            Ok(probes.iter().enumerate().map(outcome).collect())
        })
    });
    result.unwrap_or_else(|e| probes.iter().map(|_| Outcome::Silence(e.to_string())).collect())
}

fn ask_datagrams(
    source: IpAddr,
    probes: &[&Probe],
    first_number: u64,
) -> io::Result<BTreeMap<usize, Outcome>> {
    // Never fragment: what is too large must fail.
    let socket = UdpSocket::bind((source, 0))?;
    if source.is_ipv6() {
        set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO)?;
    } else {
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)?;
    }
    let mut got = BTreeMap::new();
    let mut refused: BTreeMap<usize, String> = BTreeMap::new();
    let wanted: Vec<(usize, &Probe)> = probes
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, p)| p.transport == Transport::Udp)
        .collect();
    let start = Instant::now();
    for &round in ROUNDS {
        for (batch, (i, probe)) in wanted
            .iter()
            .filter(|(i, _)| !got.contains_key(i))
            .collect::<Vec<_>>()
            .iter()
            .enumerate()
        {
            let mut question = format!("{} ", first_number + *i as u64).into_bytes();
            question.resize(question.len().max(probe.size), b'.');
            match socket.send_to(&question, probe.to) {
                Ok(_) => drop(refused.remove(i)),
                Err(e) => drop(refused.insert(*i, format!("cannot send: {e}"))),
            }
            if batch % 16 == 15 {
                receive(&socket, first_number, Instant::now(), wanted.len(), &mut got)?;
            }
        }
        receive(&socket, first_number, start + round, wanted.len(), &mut got)?;
        if got.len() == wanted.len() {
            break;
        }
    }
    for (i, why) in refused {
        got.entry(i).or_insert(Outcome::Silence(why));
    }
    Ok(got)
}

/// Takes answers until `until`, or until all have come.
fn receive(
    socket: &UdpSocket,
    first_number: u64,
    until: Instant,
    wanted: usize,
    got: &mut BTreeMap<usize, Outcome>,
) -> io::Result<()> {
    let mut buffer = vec![0u8; 16 * 1024];
    while got.len() < wanted {
        let left = until.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
        match socket.recv_from(&mut buffer) {
            Ok((n, from)) => {
                let text = buffer.get(..n).map(String::from_utf8_lossy).unwrap_or_default();
                if let Some((number, outcome)) = parse(&text, from)
                    && let Some(i) = number
                        .checked_sub(first_number)
                        .and_then(|i| usize::try_from(i).ok())
                {
                    got.insert(i, outcome);
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(());
            }
            // An ICMP error for an earlier datagram; the next round decides.
            Err(_) => {}
        }
    }
    Ok(())
}

fn parse(text: &str, from: SocketAddr) -> Option<(u64, Outcome)> {
    let mut words = text.split_whitespace();
    let (number, seen, name) = (
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
        words.next()?.to_owned(),
    );
    Some((number, Outcome::Answer { seen, name, from }))
}

/// A connection from `source`, or from where the namespace chooses.
pub(crate) fn stream(source: Option<IpAddr>, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect_timeout(&to, limit);
    };
    let family = if to.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Also ends a connect that nobody answers (socket(7)).
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) => Ok(socket.into()),
        Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

fn connect(source: Option<IpAddr>, to: SocketAddr) -> Outcome {
    let attempt = || -> io::Result<Outcome> {
        let mut stream = stream(source, to, CONNECT)?;
        stream.set_read_timeout(Some(CONNECT))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let from = stream.peer_addr()?;
        Ok(parse(&text, from).map_or_else(|| Outcome::Silence(format!("answered '{text}'")), |(_, o)| o))
    };
    attempt().unwrap_or_else(|e| Outcome::Silence(e.to_string()))
}

/// A whole UDP packet, for a socket that takes headers as they are. Both addresses are of one family.
pub(crate) fn packet(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Option<Vec<u8>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Some(packet4(source, destination, payload)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Some(packet6(source, destination, payload)),
        _ => None,
    }
}

fn packet6(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut udp = Vec::new();
    udp.extend(PORT.to_be_bytes());
    udp.extend(PORT.to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    // RFC 8200, section 8.1: IPv6 wants a checksum, over this pseudo-header and the datagram.
    let mut summed = [source.octets(), destination.octets()].concat();
    summed.extend(u32::from(length).to_be_bytes());
    summed.extend([0, 0, 0, 17]);
    summed.extend(&udp);
    let mut sum: u32 = summed
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair.first().copied().unwrap_or(0),
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or(u16::MAX);
    // Zero would mean none.
    let sum = if sum == 0 { u16::MAX } else { sum };
    udp.splice(6..8, sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([17, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(udp);
    packet
}

fn packet4(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(28 + payload.len()).unwrap_or(u16::MAX);
    // The kernel fills in the IP checksum and, where zero, the identification (raw(7)).
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(PORT.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend((length - 20).to_be_bytes());
    // A UDP checksum of zero means none.
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_padding() {
        let from: SocketAddr = "10.0.0.5:30777".parse().unwrap();
        let (number, outcome) = parse("17 10.0.0.4 pod/web-1 .....", from).unwrap();
        assert_eq!(number, 17);
        assert_eq!(
            outcome,
            Outcome::Answer {
                seen: IpAddr::from([10, 0, 0, 4]),
                name: "pod/web-1".to_owned(),
                from
            }
        );
        assert!(parse("", from).is_none());
        assert!(parse("x 10.0.0.4 n", from).is_none());
    }

    #[test]
    fn a_raw_packet_holds_its_lengths() {
        let p = packet([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), b"12345").unwrap();
        assert_eq!(p.len(), 33);
        assert_eq!(&p[2..4], &[0, 33]);
        assert_eq!(&p[24..26], &[0, 13]);
        assert_eq!(&p[28..], b"12345");
    }

    #[test]
    fn a_raw_ipv6_packet_holds_the_checksum_that_receivers_want() {
        let (from, to): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let p = packet(from, to, b"12345").unwrap();
        assert_eq!((p.len(), &p[4..6], p[6]), (53, &[0, 13][..], 17));
        // With its checksum in it, a datagram and its pseudo-header sum up to all ones (RFC 1071).
        let mut summed = p[8..40].to_vec();
        summed.extend([0, 0, 0, 13, 0, 0, 0, 17]);
        summed.extend(&p[40..]);
        summed.push(0);
        let sum: u32 = summed
            .chunks(2)
            .map(|c| u32::from(u16::from_be_bytes([c[0], c[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(packet(from, [10, 0, 0, 2].into(), b""), None);
    }
}
