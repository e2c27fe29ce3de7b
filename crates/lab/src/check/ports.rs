//! Ports of nodes that lead to pods, while the check lasts.

use std::net::SocketAddr;

use super::plan::{self, Endpoint, NodePort};
use crate::error::LabError;
use crate::fabric::netns::Place;
use crate::tool;

/// Rules of the check's own that make ports of nodes lead to pods, as kube-proxy's do; gone when this is dropped.
pub(crate) struct OpenPorts {
    places: Vec<(Place, &'static str)>,
}

impl OpenPorts {
    pub(crate) fn open(endpoints: &[Endpoint], ports: &[NodePort]) -> Result<Self, LabError> {
        let mut open = Self { places: Vec::new() };
        for (index, node) in endpoints.iter().enumerate() {
            let lines: String = ports
                .iter()
                .filter(|p| p.node == index)
                .filter_map(|p| Some((p.port, endpoints.get(p.pod)?.address)))
                .map(|(port, pod)| {
                    format!(
                        "fib daddr type local meta l4proto {{ tcp, udp }} th dport {port} dnat to {}\n",
                        SocketAddr::new(pod, plan::PORT)
                    )
                })
                .collect();
            if lines.is_empty() {
                continue;
            }
            let place = Place::named(&node.namespace)?;
            let table = table(node.address.is_ipv6());
            let chain = "type nat hook prerouting priority dstnat; policy accept;";
            let text = format!(
                "{table} {{ }}\ndelete {table}\n{table} {{\nchain ports {{\n{chain}\n{lines}}}\n}}\n"
            );
            tool::nft(&place, &text)?;
            open.places.push((place, table));
        }
        Ok(open)
    }
}

const fn table(v6: bool) -> &'static str {
    if v6 {
        "table ip6 vpcnet-lab-check"
    } else {
        "table ip vpcnet-lab-check"
    }
}

impl Drop for OpenPorts {
    fn drop(&mut self) {
        for (place, table) in &self.places {
            if let Err(e) = tool::nft(place, &format!("delete {table}\n")) {
                tracing::warn!(error = %e, "the check's rules stay in the node");
            }
        }
    }
}
