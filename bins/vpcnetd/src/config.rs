//! The agent's settings: what `vpcnet-config` makes of the process's environment. What this version cannot do yet is in its
//! `missing.rs`.

pub use vpcnet_config::{
    Bind, Config, ConfigErrors, DEFAULT_LOG_FILE, HostSettings, LogLevel, LogSettings, LogTarget,
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
    fn what_would_give_pods_other_addresses_than_asked_for_stops_the_start() {
        for name in [
            "ENABLE_IPv6",
            "ENABLE_PREFIX_DELEGATION",
            "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
            "ENABLE_POD_ENI",
        ] {
            let errors = read(&[(name, "true")]).unwrap_err().to_string();
            assert!(
                errors.contains(&format!("{name}=true: this version of vpcnetd does not do this")),
                "{errors}"
            );
            assert!(read(&[(name, "false")]).is_ok());
        }
    }

    #[test]
    fn what_can_be_done_another_way_is_only_noted() {
        let config = read(&[("ANNOTATE_POD_IP", "true"), ("ENABLE_MULTI_NIC", "true")]).unwrap();
        assert_eq!(config.notes.len(), 2, "{:?}", config.notes);
    }
}
