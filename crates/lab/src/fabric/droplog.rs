//! The drop log: what the rules logged by NFLOG, read from the kernel and kept for those who ask.
//!
//! Message layout: linux/netfilter/nfnetlink_log.h. A config request binds this socket to the log group; each packet
//! then arrives as one message with the rule's prefix, the links, and the packet's first bytes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};
use serde::{Deserialize, Serialize};

use super::netns::Place;
use super::rules::LOG_GROUP;
use crate::error::LabError;

/// How many drops are kept.
const KEPT: usize = 10_000;

/// A packet the fabric dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DroppedPacket {
    /// Milliseconds since the lab's start.
    pub at_ms: u64,
    /// Where: `vpc` or `internet`.
    pub place: String,
    /// Why, one of the reasons of the counters.
    pub reason: String,
    /// For security groups, whose: the sender's (`out`) or the receiver's (`in`).
    pub side: Option<String>,
    /// The link it came from: an interface's id, `internet` or `peer`.
    pub from: Option<String>,
    /// The link it would have gone to.
    pub to: Option<String>,
    /// Its source address.
    pub source: Option<IpAddr>,
    /// Its destination address.
    pub destination: Option<IpAddr>,
    /// `tcp`, `udp`, `icmp` or the number.
    pub protocol: String,
    /// TCP and UDP.
    pub source_port: Option<u16>,
    /// TCP and UDP.
    pub destination_port: Option<u16>,
}

/// The drops of one lab.
#[derive(Clone, Debug)]
pub struct DropLog {
    start: Instant,
    kept: Arc<Mutex<VecDeque<DroppedPacket>>>,
}

impl DropLog {
    /// An empty log; times count from `start`.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            kept: Arc::default(),
        }
    }

    /// The newest drops from `since` on, oldest first.
    #[must_use]
    pub fn since(&self, since: Duration) -> Vec<DroppedPacket> {
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|d| d.at_ms >= since).cloned().collect()
    }

    fn push(&self, drop: DroppedPacket) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(drop);
    }

    /// Reads the log of a namespace from now on, in a thread of its own that lives as long as the process.
    ///
    /// # Errors
    /// When the socket cannot be opened or bound to the log group.
    pub fn follow(&self, place: &Place, label: &'static str) -> Result<(), LabError> {
        let log = self.clone();
        let (socket, names) = place.run(|| {
            let names = socket(AddressFamily::INET, SocketType::DGRAM, None)
                .map_err(io::Error::from)
                .map_err(LabError::socket("open a socket for link names"))?;
            let socket = bind().map_err(LabError::socket("bind to the drop log"))?;
            Ok((socket, names))
        })?;
        let run = move || {
            Reader {
                socket,
                names,
                cache: HashMap::new(),
                label,
                log,
            }
            .run()
        };
        std::thread::Builder::new()
            .name(format!("drops-{label}"))
            .spawn(run)
            .map_err(LabError::socket("start the drop log's thread"))?;
        Ok(())
    }
}

fn bind() -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::NETFILTER))?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&fd, 4 << 20)?;
    // NFULNL_CFG_CMD_BIND.
    configure(&fd, 1, &[1])?;
    // NFULNL_COPY_PACKET, 96 bytes: range (big endian), mode, padding.
    configure(&fd, 2, &[0, 0, 0, 96, 2, 0])?;
    // Flush each packet at once: a queue threshold of one.
    configure(&fd, 5, &1u32.to_be_bytes())?;
    Ok(fd)
}

/// One NFULNL_MSG_CONFIG request with one attribute, and its acknowledgement.
fn configure(fd: &OwnedFd, attribute: u16, value: &[u8]) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&[libc_af_inet(), 0]); // family, version
    body.extend_from_slice(&LOG_GROUP.to_be_bytes());
    body.extend_from_slice(&u16::try_from(4 + value.len()).unwrap_or_default().to_ne_bytes());
    body.extend_from_slice(&attribute.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut message = Vec::new();
    message.extend_from_slice(&u32::try_from(16 + body.len()).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&0x0401u16.to_ne_bytes()); // NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG
    message.extend_from_slice(&5u16.to_ne_bytes()); // NLM_F_REQUEST | NLM_F_ACK
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&body);
    send(fd, &message, SendFlags::empty())?;
    let mut answer = [0u8; 1024];
    let (n, _) = recv(fd, &mut answer, RecvFlags::empty())?;
    // NLMSG_ERROR: header, then the negative error number, 0 for an acknowledgement.
    let code = answer
        .get(..n)
        .and_then(|a| bytes4(a, 16))
        .map_or(0, i32::from_ne_bytes);
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-code))
    }
}

const fn libc_af_inet() -> u8 {
    2
}

struct Reader {
    socket: OwnedFd,
    names: OwnedFd,
    cache: HashMap<u32, String>,
    label: &'static str,
    log: DropLog,
}

impl Reader {
    fn run(mut self) {
        let mut buffer = vec![0u8; 1 << 16];
        loop {
            match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((n, _)) => self.datagram(buffer.get(..n).unwrap_or_default()),
                // ENOBUFS: a burst was lost; the counters in the kernel still have it.
                Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(e) => return tracing::error!(error = %e, place = self.label, "the drop log ended"),
            }
        }
    }

    fn datagram(&mut self, mut rest: &[u8]) {
        while let Some(length) = bytes4(rest, 0)
            .map(u32::from_ne_bytes)
            .and_then(|l| usize::try_from(l).ok())
        {
            let Some(message) = rest.get(..length).filter(|_| length >= 16) else {
                return;
            };
            // NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET
            if message.get(4..6) == Some(&0x0400u16.to_ne_bytes()[..]) {
                self.packet(message.get(20..).unwrap_or_default());
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn packet(&mut self, attributes: &[u8]) {
        let (mut prefix, mut from, mut to, mut payload) = (String::new(), None, None, &[][..]);
        for (kind, value) in Attributes(attributes) {
            match kind {
                4 => from = self.link(value),
                5 => to = self.link(value),
                9 => payload = value,
                10 => prefix = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
                _ => {}
            }
        }
        let at_ms = u64::try_from(self.log.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.log
            .push(describe(at_ms, self.label, &prefix, from, to, payload));
    }

    /// The name behind NFULA_IFINDEX_INDEV and _OUTDEV. Cached, as the link may go before its last drop is read.
    fn link(&mut self, value: &[u8]) -> Option<String> {
        let index = bytes4(value, 0).map(u32::from_be_bytes)?;
        if let Some(name) = self.cache.get(&index) {
            return Some(name.clone());
        }
        let name = index_to_name(&self.names, index).ok()?;
        self.cache.insert(index, name.clone());
        Some(name)
    }
}

fn describe(
    at_ms: u64,
    place: &str,
    prefix: &str,
    from: Option<String>,
    to: Option<String>,
    packet: &[u8],
) -> DroppedPacket {
    let (reason, side) = ["in", "out"]
        .into_iter()
        .find_map(|side| {
            Some((
                prefix.strip_suffix(side)?.strip_suffix('-')?,
                Some(side.to_owned()),
            ))
        })
        .unwrap_or((prefix, None));
    let first = packet.first().copied().unwrap_or_default();
    let short = |at: usize| bytes4(packet, at).map(|b| IpAddr::from(Ipv4Addr::from(b)));
    let long = |at: usize| {
        Some(IpAddr::from(Ipv6Addr::from(
            *packet.get(at..)?.first_chunk::<16>()?,
        )))
    };
    let (source, destination, number, header) = if first >> 4 == 6 {
        (long(8), long(24), packet.get(6), 40)
    } else {
        (short(12), short(16), packet.get(9), usize::from(first & 0x0f) * 4)
    };
    let number = number.copied().unwrap_or_default();
    let port = |at: usize| match (number, packet.get(header + at), packet.get(header + at + 1)) {
        (6 | 17, Some(&high), Some(&low)) => Some(u16::from_be_bytes([high, low])),
        _ => None,
    };
    DroppedPacket {
        at_ms,
        place: place.to_owned(),
        reason: reason.to_owned(),
        side,
        from,
        to,
        source,
        destination,
        protocol: match number {
            1 | 58 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            other => other.to_string(),
        },
        source_port: port(0),
        destination_port: port(2),
    }
}

fn bytes4(of: &[u8], at: usize) -> Option<[u8; 4]> {
    of.get(at..at.checked_add(4)?)?.try_into().ok()
}

/// Netlink attributes: length and type in host order, then the value, padded to four bytes.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[l0, l1, k0, k1] = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_udp_packet_is_described_from_its_first_bytes() {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([10, 0, 0, 4, 10, 0, 0, 5]);
        packet.extend([0x1e, 0x61, 0x00, 0x35, 0, 8, 0, 0]);
        let drop = describe(
            7,
            "vpc",
            "security-group-in",
            Some("e1".into()),
            Some("e2".into()),
            &packet,
        );
        assert_eq!(
            (drop.reason.as_str(), drop.side.as_deref()),
            ("security-group", Some("in"))
        );
        assert_eq!(
            (drop.source, drop.destination),
            (
                Some(IpAddr::from([10, 0, 0, 4])),
                Some(IpAddr::from([10, 0, 0, 5]))
            )
        );
        assert_eq!(
            (drop.protocol.as_str(), drop.source_port, drop.destination_port),
            ("udp", Some(7777), Some(53))
        );
    }

    #[test]
    fn a_dropped_ipv6_packet_is_described_as_well() {
        let (from, to): (Ipv6Addr, Ipv6Addr) =
            ("2001:db8::4".parse().unwrap(), "2001:db8::5".parse().unwrap());
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend([0x1e, 0x61, 0x00, 0x35, 0, 8, 0, 0]);
        let drop = describe(7, "vpc", "source-check", None, None, &packet);
        assert_eq!(
            (drop.source, drop.destination),
            (Some(from.into()), Some(to.into()))
        );
        let ports = (drop.source_port, drop.destination_port);
        assert_eq!((drop.protocol.as_str(), ports), ("udp", (Some(7777), Some(53))));
        for length in 0..packet.len() {
            let cut = describe(7, "vpc", "source-check", None, None, &packet[..length]);
            assert_eq!(cut.destination.is_some(), length >= 40);
        }
    }

    #[test]
    fn a_cut_off_packet_is_described_as_far_as_it_goes() {
        for length in 0..28 {
            let packet = vec![0x45; length];
            let drop = describe(0, "vpc", "no-owner", None, None, &packet);
            assert_eq!(drop.reason, "no-owner");
            assert_eq!(drop.destination.is_some(), length >= 20);
        }
    }

    #[test]
    fn broken_attributes_end_the_reading() {
        assert_eq!(Attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes(&[8, 0, 1, 0, 1]).count(), 0);
        assert_eq!(
            Attributes(&[5, 0, 1, 0, 9]).collect::<Vec<_>>(),
            vec![(1, &[9][..])]
        );
    }
}
