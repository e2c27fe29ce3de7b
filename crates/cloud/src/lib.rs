//! EC2 and the instance metadata service (IMDS), as an address manager needs them: typed calls, errors sorted into classes that ask
//! for different answers, one shared back-off for each EC2 action, a deadline on every call, and the credentials that sign them.
//!
//! * [`Ec2`] speaks the EC2 Query API (version 2016-11-15): form POST in, XML out, signed by SigV4 ([`sigv4`]).
//! * [`Imds`] speaks IMDSv2 on one kept connection.
//! * [`CredentialProvider`] finds credentials where the AWS SDKs find them and renews them before they end.
//! * [`backoff`] decides, without a clock or a network, when a call to an action may be made.
//!
//! This crate must not know the pool, Kubernetes or the kernel. It never decides *whether* something should be done, it never repeats a
//! call whose effect is unknown, and it keeps no state about interfaces: an answer is evidence, and what it means is for the pool.
//!
//! No secret (key, session token, metadata token, web identity) appears in an error or in `Debug` output: they live in
//! [`Secret`], which has no way to print itself.

#![forbid(unsafe_code)]

mod action;
pub mod backoff;
mod clock;
mod credentials;
mod ec2;
mod endpoint;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod http;
mod imds;
mod observer;
mod percent;
pub mod sigv4;
mod trouble;
mod xml;

pub use action::Ec2Action;
pub use clock::parse_rfc3339;
pub use credentials::{
    ContainerSource, CredentialProvider, CredentialSource, Credentials, CredentialsError, Secret,
    WebIdentitySource,
};
pub use ec2::*;
pub use endpoint::{Environment, process_environment};
pub use error::{ConfigError, Ec2Error, ErrorClass, class_of};
pub use imds::*;
pub use observer::{CallReport, NoObserver, Observer, Service};
pub use trouble::{Try, telling_tries};
