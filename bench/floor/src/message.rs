//! Netlink messages, byte by byte, into one buffer: no types, no allocation but the buffer's.

/// Several requests, sent in one go.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    start: usize,
    count: u32,
}

/// Where a nested attribute began.
pub(crate) struct Nest(usize);

/// `NLM_F_REQUEST | NLM_F_ACK`
const REQUEST_ACK: u16 = 0x1 | 0x4;
/// `NLM_F_CREATE | NLM_F_EXCL`
pub(crate) const CREATE_NEW: u16 = 0x400 | 0x200;
/// `NLM_F_CREATE | NLM_F_REPLACE`
pub(crate) const CREATE_OR_REPLACE: u16 = 0x400 | 0x100;

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(1024),
            start: 0,
            count: 0,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many requests, and so how many answers. Sequence numbers run from 1.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn begin(&mut self, kind: u16, flags: u16, fixed: &[u8]) {
        self.start = self.bytes.len();
        self.count += 1;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST_ACK).to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
    }

    pub(crate) fn end(&mut self) {
        let length = (self.bytes.len() - self.start) as u32;
        if let Some(field) = self.bytes.get_mut(self.start..self.start + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes
            .extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    pub(crate) fn name(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn open(&mut self, kind: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | 0x8000).to_ne_bytes());
        Nest(at)
    }

    pub(crate) fn close(&mut self, nest: Nest) {
        let length = (self.bytes.len() - nest.0) as u16;
        if let Some(field) = self.bytes.get_mut(nest.0..nest.0 + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }
}
