//! The runtime's input, checked as a whole before anything is done.

use vpcnet_cni::{Args, Env, NetConf, Verb};
use vpcnet_plugin::Log;

use crate::failure::Failure;
use crate::settings::Settings;

/// One call of the runtime.
pub(crate) struct Call {
    /// The `CNI_*` variables.
    pub(crate) env: Env,
    /// The configuration from stdin.
    pub(crate) conf: NetConf,
    /// `CNI_ARGS`.
    pub(crate) args: Args,
    /// The configuration's keys that are this plugin's own.
    pub(crate) settings: Settings,
}

impl Call {
    /// Reads variables and configuration. The variables come first, as in the reference library: without them the verb is
    /// not known.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn read(stdin: &[u8], var: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let env = Env::read(&var)?;
        let conf = NetConf::parse(env.verb, stdin)?;
        let args = Args::parse(&env.args)?;
        let settings = Settings::read(&conf, var("VPCNET_SOCKET"))?;
        if env.verb == Verb::Add {
            for (key, value) in [
                ("K8S_POD_NAME", &args.pod_name),
                ("K8S_POD_NAMESPACE", &args.pod_namespace),
            ] {
                if value.is_empty() {
                    return Err(Failure::NoPod { key });
                }
            }
        }
        Ok(Self {
            env,
            conf,
            args,
            settings,
        })
    }

    /// The configured log, told first what of the configuration was passed over.
    pub(crate) fn log(&self) -> Log {
        let pod = format!("{}/{}", self.args.pod_namespace, self.args.pod_name);
        let to = self.settings.log_to.clone();
        let log = Log::new(to, self.settings.log_level, self.env.container_id.clone(), pod);
        if let Some(note) = self.settings.mtu_note.clone() {
            log.warn(|| note);
        }
        log
    }
}
