//! The result of ADD, and prevResult: one set of types, printed in the form of the version asked for.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::json::{DecodeError, Object};
use crate::version::SpecVersion;

/// A link that the plugin made, or what it notes in the place of one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// Name of the link.
    pub name: String,
    /// Hardware address; plugins also keep notes here. Empty: left out.
    pub mac: String,
    /// Path of the namespace that it is in; empty for the host's.
    pub sandbox: String,
    /// MTU in bytes; printed from 1.1.0 on.
    pub mtu: Option<u32>,
}

/// An address of the container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IpConfig {
    /// With its mask; the address is the container's, not the network's.
    pub address: IpNet,
    /// Default gateway of that subnet.
    pub gateway: Option<IpAddr>,
    /// Index into [`CniResult::interfaces`].
    pub interface: Option<usize>,
}

/// A route in the container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; absent: the one of the address.
    pub gw: Option<IpAddr>,
}

/// Name service of the container.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dns {
    /// Servers, by preference.
    pub nameservers: Vec<String>,
    /// Local domain; may be empty.
    pub domain: String,
    /// Search list.
    pub search: Vec<String>,
    /// Options for the resolver.
    pub options: Vec<String>,
}

/// What ADD made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CniResult {
    /// Links, those of the host too.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<IpConfig>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name service.
    pub dns: Dns,
}

impl CniResult {
    /// Reads a result of any version: what they have in common is written the same way in all of them. Keys that nothing here
    /// knows are passed over. `at` is its place, for errors.
    ///
    /// # Errors
    /// A value of the wrong kind, a malformed address, an interface index outside the list.
    pub fn parse(value: &Value, at: &str) -> Result<Self, DecodeError> {
        let object = Object::new(value, at)?;
        let known = "a version of 0.3.1, 0.4.0, 1.0.0, 1.1.0";
        object.parsed("cniVersion", known, SpecVersion::parse)?;
        let interfaces = list(&object, "interfaces", interface)?;
        let ips = list(&object, "ips", ip)?;
        for (i, ip) in ips.iter().enumerate() {
            if let Some(index) = ip.interface.filter(|index| *index >= interfaces.len()) {
                return Err(DecodeError {
                    at: format!("{}[{i}].interface", object.path("ips")),
                    expected: "an index into interfaces",
                    found: format!("{index} of {}", interfaces.len()),
                });
            }
        }
        let routes = list(&object, "routes", route)?;
        let dns = match object.object("dns")? {
            None => Dns::default(),
            Some(dns) => Dns {
                nameservers: dns.strings("nameservers")?,
                domain: dns.string("domain")?.unwrap_or_default().to_owned(),
                search: dns.strings("search")?,
                options: dns.strings("options")?,
            },
        };
        Ok(Self {
            interfaces,
            ips,
            routes,
            dns,
        })
    }

    /// As printed in `version`.
    pub fn to_json(&self, version: SpecVersion) -> Value {
        let mut object = Map::new();
        object.insert("cniVersion".to_owned(), Value::from(version.as_str()));
        put_list(
            &mut object,
            "interfaces",
            self.interfaces.iter().map(|i| i.to_json(version)).collect(),
        );
        put_list(
            &mut object,
            "ips",
            self.ips.iter().map(|ip| ip.to_json(version)).collect(),
        );
        put_list(
            &mut object,
            "routes",
            self.routes.iter().map(Route::to_json).collect(),
        );
        object.insert("dns".to_owned(), self.dns.to_json());
        Value::Object(object)
    }

    /// The interface of that name and its index; the first when several have it.
    pub fn interface(&self, name: &str) -> Option<(usize, &Interface)> {
        self.interfaces.iter().enumerate().find(|(_, i)| i.name == name)
    }
}

impl Interface {
    fn to_json(&self, version: SpecVersion) -> Value {
        let mut object = Map::new();
        put(&mut object, "name", &self.name);
        put(&mut object, "mac", &self.mac);
        if let Some(mtu) = self.mtu.filter(|_| version >= SpecVersion::V1_1_0) {
            object.insert("mtu".to_owned(), Value::from(mtu));
        }
        put(&mut object, "sandbox", &self.sandbox);
        Value::Object(object)
    }
}

impl IpConfig {
    fn to_json(&self, version: SpecVersion) -> Value {
        let mut object = Map::new();
        if version.tells_ip_version() {
            put(
                &mut object,
                "version",
                if self.address.addr().is_ipv4() { "4" } else { "6" },
            );
        }
        if let Some(interface) = self.interface {
            object.insert("interface".to_owned(), Value::from(interface));
        }
        put(&mut object, "address", &self.address.to_string());
        if let Some(gateway) = self.gateway {
            put(&mut object, "gateway", &gateway.to_string());
        }
        Value::Object(object)
    }
}

impl Route {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        put(&mut object, "dst", &self.dst.to_string());
        if let Some(gw) = self.gw {
            put(&mut object, "gw", &gw.to_string());
        }
        Value::Object(object)
    }
}

impl Dns {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        for (key, list) in [
            ("nameservers", &self.nameservers),
            ("search", &self.search),
            ("options", &self.options),
        ] {
            if !list.is_empty() {
                object.insert(key.to_owned(), json!(list));
            }
        }
        put(&mut object, "domain", &self.domain);
        Value::Object(object)
    }
}

fn put(object: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        object.insert(key.to_owned(), Value::from(text));
    }
}

fn put_list(object: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(key.to_owned(), Value::Array(list));
    }
}

fn list<T>(
    object: &Object<'_>,
    key: &str,
    read: impl Fn(&Object<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let entries = object.array(key)?.unwrap_or_default();
    entries
        .into_iter()
        .map(|(at, value)| read(&Object::new(value, at)?))
        .collect()
}

fn interface(object: &Object<'_>) -> Result<Interface, DecodeError> {
    let text = |key: &str| object.string(key).map(|s| s.unwrap_or_default().to_owned());
    Ok(Interface {
        name: text("name")?,
        mac: text("mac")?,
        sandbox: text("sandbox")?,
        mtu: object.u32("mtu")?,
    })
}

const ADDRESS: &str = "an address with its mask, such as 10.0.1.5/32";

fn ip(object: &Object<'_>) -> Result<IpConfig, DecodeError> {
    let address = object.parsed("address", ADDRESS, |s| s.parse().ok())?;
    Ok(IpConfig {
        address: address.ok_or_else(|| object.missing("address", ADDRESS))?,
        gateway: object.parsed("gateway", "an address", |s| s.parse().ok())?,
        interface: object.u32("interface")?.and_then(|i| usize::try_from(i).ok()),
    })
}

fn route(object: &Object<'_>) -> Result<Route, DecodeError> {
    let dst = object.parsed("dst", ADDRESS, |s| s.parse().ok())?;
    Ok(Route {
        dst: dst.ok_or_else(|| object.missing("dst", ADDRESS))?,
        gw: object.parsed("gw", "an address", |s| s.parse().ok())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the AWS VPC CNI prints for a pod on the primary interface.
    const AT_0_4_0: &str = r#"{"cniVersion":"0.4.0","interfaces":[{"name":"enicc21c2d7785"},
        {"name":"eth0","mac":"254","sandbox":"/var/run/netns/x"},{"name":"dummycc21c2d7785","mac":"0","sandbox":"0"}],
        "ips":[{"version":"4","interface":1,"address":"10.0.1.5/32"}],"dns":{}}"#;

    fn example() -> (Value, CniResult) {
        let value: Value = serde_json::from_str(AT_0_4_0).unwrap();
        let result = CniResult::parse(&value, "prevResult").unwrap();
        (value, result)
    }

    #[test]
    fn the_originals_example_is_read_and_printed_the_same() {
        let (value, result) = example();
        assert_eq!(
            result.interface("eth0").map(|(i, e)| (i, e.mac.as_str())),
            Some((1, "254"))
        );
        assert_eq!(result.to_json(SpecVersion::V0_4_0), value);
    }

    #[test]
    fn the_ip_version_is_gone_from_1_0_on() {
        let (_, result) = example();
        assert_eq!(result.to_json(SpecVersion::V0_3_1)["ips"][0]["version"], "4");
        assert_eq!(result.to_json(SpecVersion::V1_0_0)["ips"][0].get("version"), None);
    }

    #[test]
    fn the_mtu_is_printed_from_1_1_on() {
        let mut result = CniResult::default();
        result.interfaces.push(Interface {
            name: "eth0".to_owned(),
            mtu: Some(9001),
            ..Default::default()
        });
        assert_eq!(
            result.to_json(SpecVersion::V1_0_0)["interfaces"][0].get("mtu"),
            None
        );
        assert_eq!(result.to_json(SpecVersion::V1_1_0)["interfaces"][0]["mtu"], 9001);
    }

    #[test]
    fn an_index_outside_the_list_is_an_error() {
        let value =
            json!({ "interfaces": [{ "name": "a" }], "ips": [{ "address": "10.0.0.1/32", "interface": 1 }] });
        let error = CniResult::parse(&value, "prevResult").unwrap_err();
        assert_eq!(
            error.to_string(),
            "prevResult.ips[0].interface: expected an index into interfaces, found 1 of 1"
        );
    }

    #[test]
    fn an_unknown_version_inside_is_an_error() {
        assert!(CniResult::parse(&json!({ "cniVersion": "2.0.0" }), "prevResult").is_err());
    }
}
