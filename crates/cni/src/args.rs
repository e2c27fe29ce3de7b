//! `CNI_ARGS`: what the runtime says of the pod.

/// `CNI_ARGS`, the keys a Kubernetes runtime sets. Absent ones are empty, as an empty value is not refused either.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Args {
    /// `K8S_POD_NAME`.
    pub pod_name: String,
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `K8S_POD_INFRA_CONTAINER_ID`: the sandbox, the same as `CNI_CONTAINERID`.
    pub infra_container_id: String,
    /// `K8S_POD_UID`.
    pub pod_uid: String,
}

/// `CNI_ARGS` cannot be taken at its word.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArgsError {
    /// A pair has no `=`, or more than one.
    #[error("CNI_ARGS: {pair:?} is no KEY=VALUE pair (pairs are separated by ';', each has exactly one '=')")]
    Pair {
        /// The text between two semicolons.
        pair: String,
    },
    /// A key that nothing here knows, and `IgnoreUnknown` does not allow it.
    #[error("CNI_ARGS: unknown keys {keys:?}; IgnoreUnknown=true would let them pass")]
    Unknown {
        /// The keys.
        keys: Vec<String>,
    },
    /// `IgnoreUnknown` is neither true nor false.
    #[error("CNI_ARGS: IgnoreUnknown={value:?} is neither of 1, true, 0, false")]
    IgnoreUnknown {
        /// Its value.
        value: String,
    },
}

impl Args {
    /// Parses `CNI_ARGS`; the empty text is no argument at all. Of a key given twice the last counts, as in the
    /// reference library.
    ///
    /// # Errors
    /// See [`ArgsError`].
    pub fn parse(text: &str) -> Result<Self, ArgsError> {
        let mut args = Self::default();
        let mut unknown = Vec::new();
        let mut ignore_unknown = false;
        if text.is_empty() {
            return Ok(args);
        }
        for pair in text.split(';') {
            let malformed = || ArgsError::Pair {
                pair: pair.to_owned(),
            };
            let (key, value) = pair.split_once('=').ok_or_else(malformed)?;
            if value.contains('=') {
                return Err(malformed());
            }
            match key {
                "K8S_POD_NAME" => args.pod_name = value.to_owned(),
                "K8S_POD_NAMESPACE" => args.pod_namespace = value.to_owned(),
                "K8S_POD_INFRA_CONTAINER_ID" => args.infra_container_id = value.to_owned(),
                "K8S_POD_UID" => args.pod_uid = value.to_owned(),
                "IgnoreUnknown" => ignore_unknown = boolean(value)?,
                other => unknown.push(other.to_owned()),
            }
        }
        if unknown.is_empty() || ignore_unknown {
            Ok(args)
        } else {
            Err(ArgsError::Unknown { keys: unknown })
        }
    }
}

fn boolean(value: &str) -> Result<bool, ArgsError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(ArgsError::IgnoreUnknown {
            value: value.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containerd_sends() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=abc;\
                    K8S_POD_UID=u-1";
        assert_eq!(
            Args::parse(text).unwrap(),
            Args {
                pod_name: "web-0".into(),
                pod_namespace: "default".into(),
                infra_container_id: "abc".into(),
                pod_uid: "u-1".into(),
            }
        );
    }

    #[test]
    fn no_argument_is_no_error() {
        assert_eq!(Args::parse("").unwrap(), Args::default());
        assert_eq!(Args::parse("K8S_POD_NAME=").unwrap(), Args::default());
    }

    #[test]
    fn unknown_keys_need_permission_wherever_it_stands() {
        assert_eq!(
            Args::parse("A=1;IgnoreUnknown=false;B=2"),
            Err(ArgsError::Unknown {
                keys: vec!["A".into(), "B".into()]
            })
        );
        assert_eq!(Args::parse("A=1;IgnoreUnknown=TRUE"), Ok(Args::default()));
        assert_eq!(
            Args::parse("IgnoreUnknown=yes"),
            Err(ArgsError::IgnoreUnknown { value: "yes".into() })
        );
    }

    #[test]
    fn a_pair_has_exactly_one_equals_sign() {
        for text in ["K8S_POD_NAME", "K8S_POD_NAME=a=b", "K8S_POD_NAME=a;", ";", " "] {
            assert!(
                matches!(Args::parse(text), Err(ArgsError::Pair { .. })),
                "{text:?}"
            );
        }
    }
}
