//! `vpcnet plan`: what the agent would do next and, with `--why`, the arithmetic that leads there.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;
use vpcnet_ipam::{Now, PlanReport, Pool};

use crate::{Failure, http, print};

/// A file that is no saved pool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// Not readable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// As given.
        path: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// Something else.
    #[error("{path} holds no pool ({source}); save one with: curl -s 127.0.0.1:61679/v1/vpcnet/pool > FILE")]
    Parse {
        /// As given.
        path: String,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
}

/// What `/v1/vpcnet/pool` answers: the pool, and the time its points in time are to be compared with.
#[derive(Deserialize)]
struct Saved {
    now: Now,
    pool: Pool,
}

pub(crate) async fn run(
    address: &str,
    file: Option<&Path>,
    why: bool,
    json: bool,
) -> Result<ExitCode, Failure> {
    let report = match file {
        Some(file) => from_file(file)?,
        None => serde_json::from_slice(&http::get(address, "/v1/vpcnet/plan").await?)?,
    };
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(&text(&report, why))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn from_file(file: &Path) -> Result<PlanReport, PlanError> {
    let path = file.display().to_string();
    let read = || -> std::io::Result<Vec<u8>> {
        if file.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        std::fs::read(file)
    };
    let bytes = read().map_err(|source| PlanError::Read {
        path: path.clone(),
        source,
    })?;
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|source| PlanError::Parse { path, source })?;
    Ok(saved.pool.explain(saved.now))
}

fn text(report: &PlanReport, why: bool) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    if why {
        report.lines.iter().for_each(|l| line(l));
    }
    if report.actions.is_empty() && !why {
        line("nothing to do now");
    }
    report.actions.iter().for_each(|a| line(&format!("→ {a}")));
    out
}
