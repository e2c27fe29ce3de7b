//! Running `nft -j`.

use std::ffi::OsString;
use std::io;

use nftables::schema::Nftables;
use serde_json::Value;

use crate::run::{self, Failure, Output};

/// The table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The configuration would make a harmful table. Nothing was changed.
    #[error("the SNAT table was not written: {reason}")]
    Invalid {
        /// Why.
        reason: &'static str,
    },
    /// The program could not be run.
    #[error("cannot run {}: {source}; the package is named nftables", .program.display())]
    Run {
        /// The program.
        program: OsString,
        /// The system's answer.
        source: io::Error,
    },
    /// It took too long and was ended.
    #[error("{} {action} took longer than {seconds} s and was ended", .program.display())]
    Stuck {
        /// The program.
        program: OsString,
        /// What it was to do.
        action: String,
        /// The limit.
        seconds: u64,
    },
    /// It failed. A transaction that fails changes nothing.
    #[error("{} {action} failed: {stderr}; it needs CAP_NET_ADMIN and a kernel with nf_tables", .program.display())]
    Failed {
        /// The program.
        program: OsString,
        /// What it was to do.
        action: String,
        /// What it said.
        stderr: String,
    },
    /// What it printed, or was to be told, is not JSON.
    #[error("{} {action}: the JSON cannot be used: {source}", .program.display())]
    Json {
        /// The program.
        program: OsString,
        /// What it was to do.
        action: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The `nft` program. Not run by the packet crate's own helper, which loses what is said on stderr and waits for ever.
#[derive(Debug)]
pub(super) struct Program(pub(super) OsString);

impl Program {
    /// Writes one transaction.
    pub(super) fn apply(&self, transaction: &Nftables<'_>) -> Result<(), NftError> {
        let action = "-j -f - (writing table ip vpcnet)";
        let json = serde_json::to_vec(transaction).map_err(|source| self.json(action, source))?;
        let output = self.run(["-j", "-f", "-"], action, &json)?;
        if output.ok {
            Ok(())
        } else {
            Err(self.failed(action, output.stderr))
        }
    }

    /// Lists one table of the family `ip`; none if there is none.
    pub(super) fn list_table(&self, table: &str) -> Result<Option<Value>, NftError> {
        let action = format!("-j list table ip {table}");
        let output = self.run(["-j", "list", "table", "ip", table], &action, b"")?;
        if output.ok {
            return serde_json::from_slice(&output.stdout)
                .map(Some)
                .map_err(|source| self.json(&action, source));
        }
        // The text of ENOENT; in the C locale, which `run` sets.
        if output.stderr.contains("No such file or directory") {
            return Ok(None);
        }
        Err(self.failed(&action, output.stderr))
    }

    fn json(&self, action: &str, source: serde_json::Error) -> NftError {
        NftError::Json {
            program: self.0.clone(),
            action: action.to_owned(),
            source,
        }
    }

    fn failed(&self, action: &str, stderr: String) -> NftError {
        NftError::Failed {
            program: self.0.clone(),
            action: action.to_owned(),
            stderr,
        }
    }

    fn run<const N: usize>(
        &self,
        arguments: [&str; N],
        action: &str,
        input: &[u8],
    ) -> Result<Output, NftError> {
        run::run(&self.0, arguments, input).map_err(|failure| match failure {
            Failure::Run(source) => NftError::Run {
                program: self.0.clone(),
                source,
            },
            Failure::Stuck => NftError::Stuck {
                program: self.0.clone(),
                action: action.to_owned(),
                seconds: run::LIMIT.as_secs(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Program("/nonexistent/nft".into()).list_table("x").unwrap_err();
        assert!(matches!(error, NftError::Run { .. }));
        assert!(error.to_string().contains("/nonexistent/nft"));
    }

    #[test]
    fn what_a_failing_program_says_is_passed_on() {
        // `ls` has no option -j, and says so.
        let error = Program("ls".into()).list_table("x").unwrap_err();
        assert!(matches!(error, NftError::Failed { .. }));
        let text = error.to_string();
        assert!(
            text.contains("list table ip x failed: ls: ") && text.contains("option"),
            "{text}"
        );
    }
}
