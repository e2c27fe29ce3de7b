//! The agent's settings, from environment variables.
//!
//! Names, defaults and the treatment of invalid values are those of the AWS VPC CNI and its shipped manifest, so that a
//! manifest means the same to both; ours begin with `VPCNET_`. Where the original has a defect, what is right is done, and the
//! variable's entry says so.
//!
//! | module | for |
//! |---|---|
//! | [`vars`] | every variable once: values, default, meaning, what an invalid value does |
//! | [`Reading`] | an environment read: the [`Config`], and what was found odd |
//! | [`MISSING`] | what this version cannot do yet: refused, or noted |
//! | [`report()`] | what an environment means, in plain words (`vpcnet config check`) |
//! | [`docs()`] | `docs/configuration.md` |
//!
//! Everything here is a function of the values handed in: no I/O, no process environment, no clock. It must not know how the
//! agent carries a setting out.
#![forbid(unsafe_code)]

mod config;
mod docs;
mod error;
mod interplay;
mod meaning;
mod missing;
mod near;
mod parse;
mod read;
mod reader;
mod report;
mod variable;
mod variables;

pub use config::{
    BranchSettings, CloudSettings, Config, CustomNetworking, EgressSettings, Enforcing, Family, HostSettings,
    InstallSettings, InterfaceSettings, KubernetesSettings, LogLevel, LogSettings, LogTarget, PluginSettings,
    PoolSettings, PortChoice,
};
pub use config::{DEFAULT_LOG_FILE, MAX_PODS_FILE};
pub use docs::docs;
pub use error::{ConfigError, ConfigErrors, Finding};
pub use missing::{MISSING, Missing, Verdict};
pub use parse::Bind;
pub use read::{Given, Reading};
pub use reader::Lookup;
pub use report::{Report, report};
pub use variable::{Group, Invalid, Kind, Variable};
pub use variables::{all, vars};
