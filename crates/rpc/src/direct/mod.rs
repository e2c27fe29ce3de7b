//! The agent's second socket: the same calls as gRPC's, with the same messages and status codes, without HTTP/2.
//!
//! A plugin is a process that makes one call. From exec to exit that costs 0.33 ms with a length and a message on a
//! unix stream socket, and 0.79 ms with tonic; an empty process costs 0.24 ms. gRPC stays for everybody else.
//!
//! The socket lies beside the gRPC one, under its name with [`SUFFIX`]. A connection carries one call: one frame there,
//! one frame back, then both ends close. Who closes before the answer came cancels the call. All numbers are unsigned
//! and big-endian.
//!
//! | request | bytes |
//! |---|---|
//! | length of what follows, at most [`LONGEST`] | 4 |
//! | length of the method's name | 1 |
//! | gRPC's full name of the method, such as `/rpc.CNIBackend/AddNetwork` | as said |
//! | the request, protobuf | the rest |
//!
//! | reply | bytes |
//! |---|---|
//! | length of what follows, at most [`LONGEST`] | 4 |
//! | gRPC's status code, 0 for success | 4 |
//! | length of the status message | 4 |
//! | the status message, UTF-8; empty on success | as said |
//! | the reply, protobuf; empty unless the code is 0 | the rest |
//!
//! A method the server does not have is answered with UNIMPLEMENTED (12), fields it does not know are skipped: versions
//! mix as they do in gRPC. A server may answer before it has read the whole request, to refuse it. Frames that are none
//! (longer than allowed, too short for what they announce, a name or message that is not UTF-8) are not answered: the
//! connection is closed.

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "server")]
mod dispatch;

use std::path::{Path, PathBuf};

use prost::Message;

#[cfg(feature = "client")]
pub use client::{CallError, Connection};
#[cfg(feature = "server")]
pub use dispatch::{Backends, dispatch};

/// Appended to the gRPC socket's file name.
pub const SUFFIX: &str = ".direct";

/// The longest frame, in bytes without its own length. A GC that lists every sandbox of a full node is a hundredth of it.
pub const LONGEST: usize = 16 << 20;

/// Bytes of a frame's length.
pub const HEAD: usize = 4;

/// The direct socket that belongs to a gRPC socket.
pub fn socket_beside(grpc: &Path) -> PathBuf {
    let mut path = grpc.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

/// Why bytes are no frame, or no frame can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed.
    #[error("a frame of {0} bytes, where {LONGEST} are the most")]
    TooLong(usize),
    /// It ends before what it announces.
    #[error("the frame ends before its {0}")]
    Truncated(&'static str),
    /// A part that must be text is none.
    #[error("the frame's {0} is not UTF-8")]
    NotText(&'static str),
    /// The method's name has more than 255 bytes.
    #[error("a method's name of {0} bytes, where 255 are the most")]
    LongName(usize),
}

/// A request, still in the bytes it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// gRPC's full name of the method.
    pub method: &'a str,
    /// The request, protobuf.
    pub message: &'a [u8],
}

/// A reply, still in the bytes it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// gRPC's status code.
    pub code: u32,
    /// The status message.
    pub text: &'a str,
    /// The reply, protobuf.
    pub message: &'a [u8],
}

/// The length that a frame begins with: how many bytes follow.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn length(head: [u8; HEAD]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(head) as usize;
    if length <= LONGEST {
        Ok(length)
    } else {
        Err(FrameError::TooLong(length))
    }
}

/// A whole request frame.
///
/// # Errors
/// [`FrameError::TooLong`], [`FrameError::LongName`].
pub fn encode_request(method: &str, message: &impl Message) -> Result<Vec<u8>, FrameError> {
    let name = u8::try_from(method.len()).map_err(|_| FrameError::LongName(method.len()))?;
    let mut frame = begin(1 + method.len() + message.encoded_len())?;
    frame.push(name);
    frame.extend_from_slice(method.as_bytes());
    // A vector grows, so there is always room.
    message
        .encode(&mut frame)
        .map_err(|_| FrameError::TooLong(frame.len()))?;
    Ok(frame)
}

/// A whole reply frame. What `code` and `text` say stands alone unless the code is 0.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode_reply(code: u32, text: &str, message: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut frame = begin(8 + text.len() + message.len())?;
    frame.extend_from_slice(&code.to_be_bytes());
    // Not longer than the frame, whose length fits.
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame.extend_from_slice(message);
    Ok(frame)
}

/// A frame with its length and room for the rest.
fn begin(length: usize) -> Result<Vec<u8>, FrameError> {
    let number = u32::try_from(length).map_err(|_| FrameError::TooLong(length))?;
    if length > LONGEST {
        return Err(FrameError::TooLong(length));
    }
    let mut frame = Vec::with_capacity(HEAD + length);
    frame.extend_from_slice(&number.to_be_bytes());
    Ok(frame)
}

/// Reads a request frame without its length.
///
/// # Errors
/// [`FrameError::Truncated`], [`FrameError::NotText`].
pub fn decode_request(frame: &[u8]) -> Result<Request<'_>, FrameError> {
    const NAME: &str = "method's name";
    let (&[name], rest) = frame.split_first_chunk().ok_or(FrameError::Truncated(NAME))?;
    let (method, message) = text(rest, name.into(), NAME)?;
    Ok(Request { method, message })
}

/// Reads a reply frame without its length.
///
/// # Errors
/// [`FrameError::Truncated`], [`FrameError::NotText`].
pub fn decode_reply(frame: &[u8]) -> Result<Reply<'_>, FrameError> {
    const TEXT: &str = "status message";
    let (code, rest) = frame
        .split_first_chunk()
        .ok_or(FrameError::Truncated("status code"))?;
    let (announced, rest) = rest.split_first_chunk().ok_or(FrameError::Truncated(TEXT))?;
    let (text, message) = text(rest, u32::from_be_bytes(*announced) as usize, TEXT)?;
    Ok(Reply {
        code: u32::from_be_bytes(*code),
        text,
        message,
    })
}

fn text<'a>(bytes: &'a [u8], length: usize, what: &'static str) -> Result<(&'a str, &'a [u8]), FrameError> {
    let (text, rest) = bytes
        .split_at_checked(length)
        .ok_or(FrameError::Truncated(what))?;
    let text = std::str::from_utf8(text).map_err(|_| FrameError::NotText(what))?;
    Ok((text, rest))
}
