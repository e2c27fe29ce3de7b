//! Running iproute2 and nft in a namespace.
//!
//! The fabric uses these two, not vpcnet's own netlink code, on purpose: what judges the packets should not share
//! the faults of what is judged.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::error::LabError;
use crate::fabric::netns::Place;

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Its standard output.
    pub out: String,
    /// Its standard error; also holds failures of single lines that did not end it.
    pub err: String,
    /// Whether it ended with 0.
    pub ok: bool,
}

/// Programs the lab cannot do without, each with Debian's package of it.
pub(crate) const NEEDED: &[(&str, &str)] = &[("ip", "iproute2"), ("nft", "nftables")];

/// Fails with the first missing program.
pub(crate) fn check_present() -> Result<(), LabError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for &(program, package) in NEEDED {
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Err(LabError::MissingTool { program, package });
        }
    }
    Ok(())
}

/// Runs `program` inside `place` with `input` on its standard input.
pub(crate) fn run(place: &Place, program: &str, args: &[&str], input: &str) -> Result<Said, LabError> {
    place.run(|| run_here(program, args, input))
}

/// Runs `program` in the calling thread's namespaces.
pub(crate) fn run_here(program: &str, args: &[&str], input: &str) -> Result<Said, LabError> {
    let mut command = Command::new(program);
    command.args(args);
    feed(command, input)
}

/// Runs a command with `input` on its standard input and gathers what it says.
pub(crate) fn feed(mut command: Command, input: &str) -> Result<Said, LabError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let spawn = |source| LabError::Spawn {
        program: program.clone(),
        source,
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(spawn)?;
    if let Some(mut stdin) = child.stdin.take() {
        // These programs read everything before they say much, so writing first cannot block for good. One that
        // ended early is judged by its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(spawn)?;
    Ok(Said {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ok: output.status.success(),
    })
}

fn failed(place: &Place, program: &str, said: Said) -> LabError {
    LabError::Tool {
        program: program.to_owned(),
        namespace: place.name().to_owned(),
        message: said.err,
    }
}

/// Runs the lines by `ip -batch`, all of them even when some fail.
///
/// # Errors
/// With the text of all that failed.
pub(crate) fn ip(place: &Place, lines: &[String]) -> Result<(), LabError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut input = lines.join("\n");
    input.push('\n');
    let said = run(place, "ip", &["-force", "-batch", "-"], &input)?;
    if said.ok && said.err.is_empty() {
        Ok(())
    } else {
        Err(failed(place, "ip", said))
    }
}

/// Loads a ruleset text in one transaction.
///
/// # Errors
/// With nft's text; then nothing was changed.
pub(crate) fn nft(place: &Place, text: &str) -> Result<(), LabError> {
    if text.is_empty() {
        return Ok(());
    }
    let said = run(place, "nft", &["-f", "-"], text)?;
    if said.ok {
        Ok(())
    } else {
        Err(failed(place, "nft", said))
    }
}
