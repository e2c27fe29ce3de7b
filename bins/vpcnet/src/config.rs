//! `vpcnet config check`: what an environment means to the agent, what of it is ignored, and why.

mod environment;
mod manifest;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use environment::Environment;

use crate::{Failure, print};

/// The agent would not start.
const REFUSED: u8 = 1;
/// There is nothing to check.
const UNUSABLE: u8 = 2;

/// What cannot be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// Not readable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// As given.
        path: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// A line of a list of settings that is none.
    #[error("{path}, line {line}: {text:?} is not NAME=VALUE; comments begin with #")]
    Line {
        /// As given.
        path: String,
        /// From 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// No YAML and no JSON.
    #[error("{path} holds neither NAME=VALUE lines nor YAML or JSON: {message}")]
    Syntax {
        /// As given.
        path: String,
        /// Where it stops making sense.
        message: String,
    },
    /// A manifest without containers.
    #[error("{path} holds no container with an environment, and no list of variables")]
    NoEnvironment {
        /// As given.
        path: String,
    },
    /// A manifest with other containers.
    #[error("{path} holds no container {name}, but: {there}")]
    NoContainer {
        /// As given.
        path: String,
        /// The one looked for.
        name: String,
        /// Those that are there.
        there: String,
    },
    /// A manifest with several.
    #[error("{path} holds several containers: {there}; name one that is there once with --container")]
    Several {
        /// As given.
        path: String,
        /// Those that are there.
        there: String,
    },
}

/// Checks `file`, or the environment of this process.
pub(crate) fn check(file: Option<PathBuf>, container: Option<&str>) -> Result<ExitCode, Failure> {
    let environment = match file {
        None => Environment::of_process(),
        Some(file) => match from_file(&file, container) {
            Ok(environment) => environment,
            Err(error) => {
                eprintln!("vpcnet: {error}");
                return Ok(ExitCode::from(UNUSABLE));
            }
        },
    };
    let report = vpcnet_config::report(&environment.settings, environment.remarks);
    print(&report.text())?;
    Ok(if report.starts() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

fn from_file(file: &Path, container: Option<&str>) -> Result<Environment, SourceError> {
    let path = if file.as_os_str() == "-" {
        "stdin".to_owned()
    } else {
        file.display().to_string()
    };
    let read = || -> std::io::Result<Vec<u8>> {
        if file.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        std::fs::read(file)
    };
    let bytes = read().map_err(|source| SourceError::Read {
        path: path.clone(),
        source,
    })?;
    let text = String::from_utf8_lossy(&bytes);
    environment::parse(&path, text.trim_start_matches('\u{feff}'), container)
}
