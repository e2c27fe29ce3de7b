//! Which versions of the CNI specification a plugin speaks: it is asked, by VERSION, as a runtime asks it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::program;

const LIMIT: Duration = Duration::from_secs(10);

/// A plugin did not say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VersionError {
    /// It cannot be run here.
    #[error("it cannot be run: {0}")]
    Run(#[from] std::io::Error),
    /// It failed.
    #[error("VERSION failed: {0}")]
    Failed(String),
    /// Its answer is no answer to VERSION.
    #[error("its answer to VERSION cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    supported_versions: BTreeSet<String>,
}

/// Asks `plugin`.
///
/// # Errors
/// [`VersionError`].
pub(crate) async fn spoken(plugin: &Path) -> Result<BTreeSet<String>, VersionError> {
    let directory = plugin.parent().unwrap_or(plugin).as_os_str();
    let mut command = program::plugin(plugin, "VERSION", directory);
    // Some look for a configuration before they look at the verb.
    let output = program::run(&mut command, br#"{"cniVersion":"0.4.0","name":"-"}"#, LIMIT).await?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return Err(VersionError::Failed(format!("{}: {said}", output.status)));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)?;
    Ok(answer.supported_versions)
}
