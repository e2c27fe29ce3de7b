//! What the result of the pod's ADD says. It may be the AWS VPC CNI's as well as ours, and plugins after this one may
//! have added interfaces, so everything is found by name.
//!
//! The last interface that this plugin lists is no link but a note, `dummy<hash>`: its `mac` is the VLAN of a branch
//! ENI in decimal, "0" for all other pods, and its `sandbox` the device number of the ENI. The `mac` of each of
//! the pod's interfaces is the decimal routing table of its ENI.

use std::net::IpAddr;

use vpcnet_cni::{CniResult, Interface};
use vpcnet_linux::netlink::MAIN;

use crate::call::Call;
use crate::failure::Failure;
use crate::names;

/// What kind of pod the result is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Recorded {
    /// No result, or none with our note.
    Nothing,
    /// A pod with addresses of the node's ENIs.
    Normal(Vec<Recalled>),
    /// A pod with a branch ENI.
    Branch {
        /// Its VLAN, 1 to 4094 in a sound result.
        vlan: i64,
    },
}

/// One interface of a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Recalled {
    /// Which interface, 0 for the runtime's own.
    pub(crate) number: usize,
    /// Name in the pod.
    pub(crate) name: String,
    /// The pod's address.
    pub(crate) address: IpAddr,
    /// The ENI's routing table.
    pub(crate) table: u32,
}

/// Reads the call's prevResult.
///
/// # Errors
/// The note is malformed.
pub(crate) fn read(call: &Call) -> Result<Recorded, Failure> {
    let Some(result) = &call.conf.prev_result else {
        return Ok(Recorded::Nothing);
    };
    let Some(note) = note(call, result) else {
        return Ok(Recorded::Nothing);
    };
    let vlan = note.mac.parse::<i64>().map_err(|_| {
        Failure::Recorded(format!(
            "malformed vlanID in prevResult: {:?} of interface {}",
            note.mac, note.name
        ))
    })?;
    if vlan != 0 {
        return Ok(Recorded::Branch { vlan });
    }
    Ok(Recorded::Normal(interfaces(call, result, note)))
}

/// The names of the host's links in the result: those with neither namespace nor note.
pub(crate) fn host_names(call: &Call) -> impl Iterator<Item = &str> {
    let interfaces = call.conf.prev_result.iter().flat_map(|result| &result.interfaces);
    interfaces
        .filter(|i| i.sandbox.is_empty() && i.mac.is_empty())
        .map(|i| i.name.as_str())
}

fn note<'a>(call: &Call, result: &'a CniResult) -> Option<&'a Interface> {
    let name = names::dummy(&call.args.pod_namespace, &call.args.pod_name);
    result.interface(&name).map(|(_, note)| note)
}

/// The pod's interfaces, as the original counts them: half of the list without the note. Other plugins' entries make
/// that too many; names that are not there are passed over, and so are those without exactly one address.
fn interfaces(call: &Call, result: &CniResult, note: &Interface) -> Vec<Recalled> {
    let count = result.interfaces.len().saturating_sub(1) / 2;
    let mut all = Vec::new();
    for number in 0..count {
        let name = names::in_pod(&call.env.if_name, number);
        let Some((index, entry)) = result.interface(&name) else {
            continue;
        };
        let mut addresses = result.ips.iter().filter(|ip| ip.interface == Some(index));
        let (Some(ip), None) = (addresses.next(), addresses.next()) else {
            continue;
        };
        let Some(table) = table(&entry.mac, &note.sandbox) else {
            continue;
        };
        all.push(Recalled {
            number,
            name,
            address: ip.address.addr(),
            table,
        });
    }
    all
}

/// From the interface's own note; results of older releases have none, and the device number gives it.
fn table(own: &str, device: &str) -> Option<u32> {
    if !own.is_empty() {
        return own.parse().ok();
    }
    match device.parse::<u32>().ok()? {
        0 => Some(MAIN),
        device => device.checked_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn call(prev: &Value) -> Call {
        let conf = json!({ "cniVersion": "0.4.0", "name": "aws-cni", "prevResult": prev }).to_string();
        let vars = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/bin"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=sample-pod"),
        ];
        let var = |name: &str| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        };
        Call::read(conf.as_bytes(), var).unwrap()
    }

    fn two_interfaces(vlan: &str, extra: usize) -> Value {
        let mut interfaces = vec![
            json!({ "name": "enicc21c2d7785" }),
            json!({ "name": "eth0", "mac": "3", "sandbox": "/n" }),
            json!({ "name": "enia0b7655f3c9" }),
            json!({ "name": "mNicIf1", "mac": "10100", "sandbox": "/n" }),
            json!({ "name": "dummycc21c2d7785", "mac": vlan, "sandbox": "2" }),
        ];
        for n in 0..extra {
            interfaces.push(json!({ "name": format!("v4if{n}"), "sandbox": "/n" }));
        }
        json!({ "interfaces": interfaces,
                "ips": [{ "address": "10.0.1.5/32", "interface": 1 }, { "address": "10.0.2.5/32", "interface": 3 }] })
    }

    #[test]
    fn a_pods_interfaces_with_their_tables() {
        // The two entries of a later plugin make the count too high, which must do no harm.
        for extra in [0, 2] {
            let call = call(&two_interfaces("0", extra));
            let Recorded::Normal(found) = read(&call).unwrap() else {
                panic!("not normal")
            };
            let found: Vec<_> = found
                .iter()
                .map(|r| (r.name.as_str(), r.address.to_string(), r.table))
                .collect();
            assert_eq!(
                found,
                [
                    ("eth0", "10.0.1.5".to_owned(), 3),
                    ("mNicIf1", "10.0.2.5".to_owned(), 10100)
                ]
            );
            assert_eq!(
                host_names(&call).collect::<Vec<_>>(),
                ["enicc21c2d7785", "enia0b7655f3c9"]
            );
        }
    }

    #[test]
    fn without_a_table_the_device_number_gives_it() {
        assert_eq!(table("", "0"), Some(254));
        assert_eq!(table("", "2"), Some(3));
        assert_eq!(table("7", "2"), Some(7));
        assert_eq!(table("", "x"), None);
        assert_eq!(table("aa:bb", "0"), None);
    }

    #[test]
    fn a_branch_pod_and_a_malformed_note() {
        assert_eq!(
            read(&call(&two_interfaces("7", 0))).unwrap(),
            Recorded::Branch { vlan: 7 }
        );
        let error = read(&call(&two_interfaces("x", 0))).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("malformed vlanID in prevResult: \"x\""),
            "{error}"
        );
        assert_eq!(error.code().0, 6);
    }

    #[test]
    fn a_result_of_somebody_else_is_nothing() {
        assert_eq!(
            read(&call(&json!({ "interfaces": [{ "name": "eth0" }] }))).unwrap(),
            Recorded::Nothing
        );
    }

    #[test]
    fn two_addresses_on_one_interface_are_passed_over() {
        let mut prev = two_interfaces("0", 0);
        prev["ips"][1]["interface"] = json!(1);
        assert_eq!(read(&call(&prev)).unwrap(), Recorded::Normal(vec![]));
    }
}
