//! The runtime's input, checked as a whole before anything is done.

use serde_json::Value;
use vpcnet_cni::{Args, Env, NetConf};
use vpcnet_plugin::Log;

use crate::failure::Failure;
use crate::settings::Settings;

/// One call of the runtime.
pub(crate) struct Call {
    /// The `CNI_*` variables.
    pub(crate) env: Env,
    /// The configuration from stdin.
    pub(crate) conf: NetConf,
    /// The configuration's keys that are this plugin's own.
    pub(crate) settings: Settings,
    /// `prevResult` as it stood there: what is passed on must lose no key of a plugin before us.
    prev_result: Option<Value>,
}

impl Call {
    /// Reads variables and configuration.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn read(stdin: &[u8], var: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let env = Env::read(&var)?;
        let conf = NetConf::parse(env.verb, stdin)?;
        let settings = Settings::read(&conf)?;
        let prev_result = serde_json::from_slice::<Value>(stdin)
            .ok()
            .and_then(|mut whole| whole.get_mut("prevResult").map(Value::take))
            .filter(|value| !value.is_null());
        Ok(Self {
            env,
            conf,
            settings,
            prev_result,
        })
    }

    /// The result of the plugins before us, in the version of the configuration.
    ///
    /// # Errors
    /// There is none: this plugin stands first in its chain, or alone.
    pub(crate) fn result_so_far(&self) -> Result<Value, Failure> {
        let version = self.conf.version;
        match (&self.prev_result, &self.conf.prev_result) {
            (Some(raw), _) if raw.get("cniVersion").and_then(Value::as_str) == Some(version.as_str()) => {
                Ok(raw.clone())
            }
            (_, Some(parsed)) => Ok(parsed.to_json(version)),
            (_, None) => Err(Failure::NotChained),
        }
    }

    /// The configured log.
    pub(crate) fn log(&self) -> Log {
        // For the log alone; this plugin needs no word of it.
        let args = Args::parse(&self.env.args).unwrap_or_default();
        let pod = format!("{}/{}", args.pod_namespace, args.pod_name);
        let (to, level) = (self.settings.log_to.clone(), self.settings.log_level);
        let log = Log::new(to, level, self.env.container_id.clone(), pod);
        if let Some(note) = self.settings.randomize_note.clone() {
            log.warn(|| note);
        }
        log
    }
}
