//! What can go wrong in the lab outside its model, each with what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// An error of the fabric, the daemon or the command line.
#[derive(Debug, Error)]
pub enum LabError {
    /// A file or directory could not be read or written.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// `read`, `write`, `create`, …
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A namespace could not be made, opened, entered or removed.
    #[error("cannot {doing} the namespace {name}: {source}")]
    Namespace {
        /// `create`, `open`, `enter`, …
        doing: &'static str,
        /// Its name or path.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A mount of a node failed.
    #[error("cannot mount {target} for the node: {source}")]
    Mount {
        /// Where.
        target: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program the lab needs is missing.
    #[error("the program '{program}' is needed and was not found: install the package {package}")]
    MissingTool {
        /// Its name.
        program: &'static str,
        /// Debian's package of it.
        package: &'static str,
    },
    /// A program the lab ran reported a failure.
    #[error("{program} failed in {namespace}: {message}")]
    Tool {
        /// Its name.
        program: String,
        /// The namespace it ran in.
        namespace: String,
        /// What it said.
        message: String,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// Which one.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A socket of the lab could not be opened or used.
    #[error("cannot {doing}: {source}")]
    Socket {
        /// In words: `listen on …`.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no lab in this directory.
    #[error("no lab is up in {dir}: start one with 'vpcnet lab up'")]
    NotUp {
        /// The state directory.
        dir: PathBuf,
    },
    /// There already is one.
    #[error(
        "a lab is already up in {dir} (process {pid}): 'vpcnet lab down' ends it, or choose another --dir"
    )]
    AlreadyUp {
        /// The state directory.
        dir: PathBuf,
        /// Its daemon.
        pid: i32,
    },
    /// The daemon's process is gone but its things are there.
    #[error("the daemon of the lab in {dir} is gone: 'vpcnet lab down' clears up what it left")]
    DaemonGone {
        /// The state directory.
        dir: PathBuf,
    },
    /// The daemon refused a request.
    #[error("{0}")]
    Refused(String),
    /// The caller named something that does not exist.
    #[error("there is no {kind} '{name}'{}", hint(.known))]
    Unknown {
        /// `node`, `pod`, …
        kind: &'static str,
        /// As asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s; see {log}")]
    TooLate {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// Where more is to be read.
        log: PathBuf,
    },
}

fn hint(known: &[String]) -> String {
    if known.is_empty() {
        String::new()
    } else {
        format!(" (there are: {})", known.join(", "))
    }
}

impl LabError {
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    pub(crate) fn ns(doing: &'static str, name: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let name = name.into();
        move |source| Self::Namespace { doing, name, source }
    }

    pub(crate) fn socket(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Socket { doing, source }
    }
}
