//! The plugin's own keys in the configuration, with the AWS VPC CNI's names.
//!
//! | key | kind | |
//! |---|---|---|
//! | `enabled` | string | `"true"`, or the plugin passes the result on and makes nothing |
//! | `mtu` | string | bytes, of both ends of the link; a number also when not enabled |
//! | `nodeIP` | string | what outside sees; of the range's family |
//! | `randomizeSNAT` | string | `prng`, `hashrandom`, `none`: how source ports are chosen |
//! | `ipam.type` | string | `host-local`, the form of the files; the program is not run |
//! | `ipam.ranges` | list of lists | one range: `[[{"subnet": "169.254.172.0/22"}]]` |
//! | `ipam.routes` | list | the default route of the range's family, or nothing |
//! | `ipam.dataDir` | string | where the files are |
//! | `pluginLogFile`, `pluginLogLevel` | string | as of aws-cni |

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vpcnet_cni::{NetConf, Object};
use vpcnet_linux::Randomize;
use vpcnet_plugin::{Level, LogTo};

use crate::failure::Failure;
use crate::range::Range;

/// What a VPC's interfaces carry (jumbo frames).
const DEFAULT_MTU: u32 = 9001;
const LONGEST_MTU: u32 = 65_535;
/// What every host must take: RFC 791, RFC 8200.
const LEAST_MTU: (u32, u32) = (576, 1280);

/// The plugin's own keys.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `enabled`.
    pub(crate) enabled: bool,
    /// `mtu`, bytes.
    pub(crate) mtu: u32,
    /// `randomizeSNAT`.
    pub(crate) randomize: Randomize,
    /// A word on `randomizeSNAT` when it was passed over.
    pub(crate) randomize_note: Option<String>,
    /// `ipam`; none if it is not usable and not needed, since the plugin is not enabled.
    pub(crate) ipam: Option<Ipam>,
    /// `pluginLogFile`.
    pub(crate) log_to: LogTo,
    /// `pluginLogLevel`.
    pub(crate) log_level: Level,
    node: String,
}

/// `ipam`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ipam {
    /// The addresses.
    pub(crate) range: Range,
    /// The files of this network.
    pub(crate) dir: PathBuf,
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// [`Failure::Settings`] for a value of the wrong kind, [`Failure::Field`] for one that makes no sense,
    /// [`Failure::Unsupported`] for what `host-local` would take and this plugin does not.
    pub(crate) fn read(conf: &NetConf) -> Result<Self, Failure> {
        let keys = conf.keys();
        let text = |key: &str| keys.string(key).map_err(Failure::Settings);
        let enabled = text("enabled")? == Some("true");
        let ipam = match ipam(&keys, &conf.name) {
            Ok(ipam) => Some(ipam),
            Err(_) if !enabled => None,
            Err(failure) => return Err(failure),
        };
        let v6 = ipam.as_ref().is_some_and(|ipam| ipam.range.is_v6());
        let (randomize, randomize_note) = randomize(text("randomizeSNAT")?.unwrap_or_default());
        Ok(Self {
            enabled,
            mtu: mtu(text("mtu")?, enabled, v6)?,
            randomize,
            randomize_note,
            ipam,
            log_to: LogTo::parse(text("pluginLogFile")?.unwrap_or_default()),
            log_level: Level::parse(text("pluginLogLevel")?.unwrap_or_default()),
            node: text("nodeIP")?.unwrap_or_default().to_owned(),
        })
    }

    /// `nodeIP`, for a range of this family. Asked only by who needs it: a DEL must not fail for it.
    ///
    /// # Errors
    /// It is missing, no address, of the other family, or none that can be seen from outside.
    pub(crate) fn node(&self, v6: bool) -> Result<IpAddr, Failure> {
        let wrong = |why| {
            Err(Failure::Field {
                field: "nodeIP",
                found: self.node.clone(),
                why,
            })
        };
        let Ok(node) = self.node.parse::<IpAddr>() else {
            return wrong(if v6 {
                "the primary interface's IPv6 address belongs here; IPv6 egress needs one"
            } else {
                "the node's IPv4 address belongs here"
            });
        };
        if node.is_ipv6() != v6 {
            return wrong("it is not of the family of ipam.ranges");
        }
        let local = match node {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if local || node.is_loopback() || node.is_multicast() || node.is_unspecified() {
            return wrong("it is no address that others can answer to");
        }
        Ok(node)
    }
}

fn mtu(text: Option<&str>, enabled: bool, v6: bool) -> Result<u32, Failure> {
    let Some(text) = text else {
        return Ok(DEFAULT_MTU);
    };
    let wrong = |why| {
        Err(Failure::Field {
            field: "mtu",
            found: text.to_owned(),
            why,
        })
    };
    let Ok(mtu) = text.parse::<u32>() else {
        return wrong("it is no whole number");
    };
    let least = if v6 { LEAST_MTU.1 } else { LEAST_MTU.0 };
    if enabled && !(least..=LONGEST_MTU).contains(&mtu) {
        return wrong(if v6 {
            "IPv6 needs 1280 to 65535 bytes"
        } else {
            "IPv4 needs 576 to 65535 bytes"
        });
    }
    Ok(mtu)
}

/// As in the original, what is unknown is `prng`; the note is for the log.
fn randomize(text: &str) -> (Randomize, Option<String>) {
    match text {
        "" | "prng" => (Randomize::Prng, None),
        "hashrandom" => (Randomize::Hashrandom, None),
        "none" => (Randomize::None, None),
        other => {
            let note = format!("randomizeSNAT {other:?} is none of prng, hashrandom, none: prng");
            (Randomize::Prng, Some(note))
        }
    }
}

fn ipam(keys: &Object<'_>, network: &str) -> Result<Ipam, Failure> {
    let ipam = keys.object("ipam").map_err(Failure::Settings)?;
    let ipam = ipam.ok_or_else(|| Failure::Settings(keys.missing("ipam", "an object")))?;
    let kind = ipam
        .string("type")
        .map_err(Failure::Settings)?
        .unwrap_or_default();
    if kind != "host-local" {
        return Err(Failure::Unsupported {
            field: "ipam.type".to_owned(),
            found: kind.to_owned(),
            why: "only host-local",
        });
    }
    let range = Range::of(subnet(&ipam)?).map_err(|why| Failure::Field {
        field: "ipam.ranges[0][0].subnet",
        found: subnet_text(&ipam),
        why,
    })?;
    routes(&ipam, &range)?;
    let dir = ipam
        .string("dataDir")
        .map_err(Failure::Settings)?
        .unwrap_or_default();
    if !dir.starts_with('/') {
        return Err(Failure::Field {
            field: "ipam.dataDir",
            found: dir.to_owned(),
            why: "an absolute path belongs here",
        });
    }
    Ok(Ipam {
        range,
        dir: PathBuf::from(dir).join(network),
    })
}

const SUBNET: &str = "a subnet, such as 169.254.172.0/22 or fd00::ac:0/118";

/// The only range of the only set.
fn only_range<'a>(ipam: &Object<'a>) -> Result<Object<'a>, Failure> {
    let one_range = |found: usize| Failure::Unsupported {
        field: "ipam.ranges".to_owned(),
        found: format!("{found} entries"),
        why: "one list of one range",
    };
    let missing = || Failure::Settings(ipam.missing("ranges", "a list of one list of one range"));
    let sets = ipam
        .array("ranges")
        .map_err(Failure::Settings)?
        .ok_or_else(missing)?;
    let [(at, set)] = sets.as_slice() else {
        return Err(one_range(sets.len()));
    };
    let Some(ranges) = set.as_array() else {
        return Err(Failure::Settings(vpcnet_cni::DecodeError {
            at: at.clone(),
            expected: "an array",
            found: "something else".to_owned(),
        }));
    };
    let [range] = ranges.as_slice() else {
        return Err(one_range(ranges.len()));
    };
    let range = Object::new(range, format!("{at}[0]")).map_err(Failure::Settings)?;
    for key in ["rangeStart", "rangeEnd", "gateway"] {
        if let Some(value) = range.value(key) {
            return Err(Failure::Unsupported {
                field: range.path(key),
                found: value.to_string(),
                why: "the whole subnet is used, its first address by the node",
            });
        }
    }
    Ok(range)
}

fn subnet(ipam: &Object<'_>) -> Result<IpNet, Failure> {
    let range = only_range(ipam)?;
    let subnet = range
        .parsed("subnet", SUBNET, |text| text.parse().ok())
        .map_err(Failure::Settings)?;
    subnet.ok_or_else(|| Failure::Settings(range.missing("subnet", SUBNET)))
}

fn subnet_text(ipam: &Object<'_>) -> String {
    subnet(ipam).map(|net| net.to_string()).unwrap_or_default()
}

/// All traffic of the family goes by the link; other routes would be silently without effect.
fn routes(ipam: &Object<'_>, range: &Range) -> Result<(), Failure> {
    let default = if range.is_v6() {
        IpNet::V6(Ipv6Net::default())
    } else {
        IpNet::V4(Ipv4Net::default())
    };
    for (at, value) in ipam
        .array("routes")
        .map_err(Failure::Settings)?
        .unwrap_or_default()
    {
        let route = Object::new(value, at).map_err(Failure::Settings)?;
        let dst = route
            .parsed("dst", "a CIDR", |text| text.parse::<IpNet>().ok())
            .map_err(Failure::Settings)?;
        let unsupported = |key: &str, found: String| Failure::Unsupported {
            field: route.path(key),
            found,
            why: "only the default route of the range's family, 0.0.0.0/0 or ::/0",
        };
        if dst != Some(default) {
            let found = dst.map(|dst| dst.to_string()).unwrap_or_default();
            return Err(unsupported("dst", found));
        }
        if let Some(gw) = route.value("gw") {
            return Err(unsupported("gw", gw.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
