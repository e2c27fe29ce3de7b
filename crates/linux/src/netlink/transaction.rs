//! Transactions of nfnetlink: messages between a begin and an end, which the kernel carries out all together or not at all.

use netlink_packet_core::Emitable;

use super::error::{NetlinkError, Refusal};
use super::request::message;
use super::socket::{NLMSG_ERROR, Socket, acknowledgement};

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// `NLM_F_ACK`.
const ACK: u16 = 4;

/// `struct nfgenmsg` of begin and end: the subsystem stands big-endian in the last two bytes.
struct Bound(u8);

impl Emitable for Bound {
    fn buffer_len(&self) -> usize {
        4
    }

    fn emit(&self, buffer: &mut [u8]) {
        if let Some(last) = buffer.last_mut() {
            *last = self.0;
        }
    }
}

impl Socket {
    /// Carries out the messages (type, flags beside request and acknowledgement, body) as one transaction of the subsystem; nothing, if there are none.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the first refusal: nothing was changed. Others: it is not known what was done.
    pub(crate) fn transaction<B: Emitable>(
        &mut self,
        subsystem: u8,
        messages: impl IntoIterator<Item = (u16, u16, B)>,
        what: &str,
    ) -> Result<(), NetlinkError> {
        let mut bytes = Vec::new();
        let begin = self.next();
        message(&mut bytes, BEGIN, 0, begin, &Bound(subsystem));
        without_acknowledgement(&mut bytes, 0);
        let mut open = Vec::new();
        for (kind, flags, body) in messages {
            let sequence = self.next();
            message(&mut bytes, kind, flags, sequence, &body);
            open.push(sequence);
        }
        if open.is_empty() {
            return Ok(());
        }
        let at = bytes.len();
        let end = self.next();
        message(&mut bytes, END, 0, end, &Bound(subsystem));
        without_acknowledgement(&mut bytes, at);
        self.send(&bytes, open.len() + 2, || what.to_owned())?;
        let mut refused: Option<Refusal> = None;
        // The whole is refused under the number of its beginning, each message under its own; of those before a refused one
        // there may be no word.
        let mut over = false;
        while !over && !open.is_empty() {
            self.receive(
                || what.to_owned(),
                |frame| {
                    if frame.kind != NLMSG_ERROR {
                        return;
                    }
                    let outcome = acknowledgement(&frame, || what.to_owned());
                    if frame.sequence == begin || frame.sequence == end {
                        over = true;
                    } else if let Some(at) = open.iter().position(|one| *one == frame.sequence) {
                        open.remove(at);
                    } else {
                        return;
                    }
                    if let (Err(refusal), None) = (outcome, &refused) {
                        refused = Some(refusal);
                    }
                },
            )?;
        }
        refused.map_or(Ok(()), |refusal| Err(refusal.into()))
    }
}

/// Kernels differ in whether they acknowledge begin and end when they are asked to.
fn without_acknowledgement(bytes: &mut [u8], at: usize) {
    if let Some([low, high]) = bytes.get_mut(at + 6..at + 8) {
        let flags = u16::from_ne_bytes([*low, *high]) & !ACK;
        [*low, *high] = flags.to_ne_bytes();
    }
}
