//! The agent's settings: what `vpcnet-config` makes of the process's environment. What this version cannot do yet is in its
//! `missing.rs`.

pub use vpcnet_config::{
    Bind, Config, ConfigErrors, DEFAULT_LOG_FILE, Family, HostSettings, LogLevel, LogSettings, LogTarget,
    MAX_PODS_FILE, PoolSettings, PortChoice,
};

/// Reads the process environment.
///
/// # Errors
/// [`ConfigErrors`] for settings that must not be passed over; everything else becomes a note.
pub fn from_env() -> Result<Config, ConfigErrors> {
    // A value that is no UTF-8 is a value that is none, not one that is missing.
    Config::read(&|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use vpcnet_config::{MISSING, Verdict};

    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        Config::read(&|name| {
            let found = vars.iter().find(|(n, _)| *n == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn an_environment_that_says_nothing_starts_the_agent_without_a_note() {
        let config = read(&[]).unwrap();
        assert_eq!(config.notes, Vec::<String>::new());
    }

    #[test]
    fn what_this_version_cannot_do_stops_the_start_where_pods_would_get_other_addresses() {
        for missing in MISSING.iter().filter(|m| m.verdict == Verdict::Refused) {
            for name in missing.variables.iter().map(|v| v.name) {
                let errors = read(&[(name, "true"), ("ENABLE_PREFIX_DELEGATION", "true")])
                    .unwrap_err()
                    .to_string();
                assert!(
                    errors.contains(&format!("{name}=true: this version of vpcnetd does not do this")),
                    "{errors}"
                );
                assert!(read(&[(name, "false")]).is_ok());
            }
        }
    }

    #[test]
    fn a_value_that_is_none_starts_the_agent_with_a_note() {
        let config = read(&[("WARM_IP_TARGET", "many")]).unwrap();
        assert_eq!(config.notes.len(), 1, "{:?}", config.notes);
        assert_eq!(config.pool, Config::default().pool);
    }
}
