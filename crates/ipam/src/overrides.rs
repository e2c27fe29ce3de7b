//! Targets of one node that differ from those of all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::targets::Targets;

/// What one node does otherwise; `None`: as all do. Made by whoever reads it from the node's labels.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetOverrides {
    /// `WARM_ENI_TARGET`.
    pub warm_eni: Option<u32>,
    /// `WARM_IP_TARGET`; 0: not set.
    pub warm_ip: Option<u32>,
    /// `MINIMUM_IP_TARGET`; 0: not set.
    pub minimum_ip: Option<u32>,
    /// `WARM_PREFIX_TARGET`.
    pub warm_prefix: Option<u32>,
    /// `MAX_ENI`; 0: the instance's limit.
    pub max_eni: Option<u32>,
    /// max-pods.
    pub max_pods: Option<u32>,
    /// `IP_COOLDOWN_PERIOD`.
    pub cooldown: Option<Duration>,
    /// Sized by what comes.
    pub auto: Option<bool>,
}

impl TargetOverrides {
    /// What is set, `NAME = value` each, under the names of the settings that they take the place of.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let number = |name: &str, value: Option<u32>| value.map(|v| format!("{name} = {v}"));
        let all = [
            number("WARM_ENI_TARGET", self.warm_eni),
            number("WARM_IP_TARGET", self.warm_ip),
            number("MINIMUM_IP_TARGET", self.minimum_ip),
            number("WARM_PREFIX_TARGET", self.warm_prefix),
            number("MAX_ENI", self.max_eni),
            number("max-pods", self.max_pods),
            self.cooldown
                .map(|d| format!("IP_COOLDOWN_PERIOD = {}", d.as_secs())),
            self.auto
                .map(|on| format!("auto = {}", if on { "on" } else { "off" })),
        ];
        all.into_iter().flatten().collect()
    }
}

impl Targets {
    /// These, with what a node does otherwise.
    #[must_use]
    pub fn overridden(mut self, by: &TargetOverrides) -> Self {
        self.warm_eni = by.warm_eni.unwrap_or(self.warm_eni);
        self.warm_ip = by.warm_ip.or(self.warm_ip);
        self.minimum_ip = by.minimum_ip.or(self.minimum_ip);
        self.warm_prefix = by.warm_prefix.or(self.warm_prefix);
        self.max_eni = by.max_eni.or(self.max_eni);
        self.max_pods = by.max_pods.unwrap_or(self.max_pods);
        self.cooldown = by.cooldown.unwrap_or(self.cooldown);
        self.auto = by.auto.unwrap_or(self.auto);
        self.overrides.clone_from(by);
        self
    }
}
