//! The Container Network Interface's own types, for plugins: what a runtime hands over (environment, arguments,
//! configuration, previous result) and what it gets back (result, error object, versions), in the spec versions 0.3.1,
//! 0.4.0, 1.0.0 and 1.1.0.
//!
//! Everything is a pure function of bytes and strings: no environment is read, no file opened. It must not know networks,
//! namespaces or the node agent. Facts come from the CNI specification and, where it is silent, from what its
//! reference library does; such places say so.
//!
//! JSON is read by hand rather than derived, so that an error names the key and what stood there, and so that what a
//! later version adds is kept rather than refused.
#![forbid(unsafe_code)]

mod args;
mod config;
mod env;
mod error;
mod json;
mod result;
mod version;

pub use args::{Args, ArgsError};
pub use config::{Attachment, ConfigError, NetConf};
pub use env::{Env, EnvError, Verb};
pub use error::{Code, ErrorObject};
pub use json::{DecodeError, Object};
pub use result::{CniResult, Dns, Interface, IpConfig, Route};
pub use version::{SpecVersion, version_answer};
