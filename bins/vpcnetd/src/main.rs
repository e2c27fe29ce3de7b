//! `vpcnetd`: starts the agent. Takes no arguments but `--version`; everything is set by the environment.
//!
//! Exit codes: 0 ended by SIGTERM or SIGINT; 1 it could not start, the reason is on stderr. It never ends because EC2, IMDS
//! or anybody else is away.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use vpcnetd::{agent, config, logging};

fn main() -> ExitCode {
    if let Some(argument) = std::env::args().nth(1) {
        let known = ["--version", "-V"].contains(&argument.as_str());
        if known {
            println!("vpcnetd {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        eprintln!(
            "vpcnetd: {argument:?}: it takes no arguments; settings are environment variables (docs/configuration.md)"
        );
        return ExitCode::FAILURE;
    }
    let config = match config::from_env() {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    if let Some(note) = logging::start(&config.log) {
        tracing::warn!(%note, "log");
    }
    // One thread: an agent that sleeps all day needs no pool of them, and every thread costs memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(agent::run(config));
            // A blocking thread in a slow system call must not hold the end up.
            runtime.shutdown_timeout(std::time::Duration::from_millis(200));
            result
        }
        Err(error) => return fail(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!(%error, "not started");
    eprintln!("vpcnetd: {error}");
    ExitCode::FAILURE
}
