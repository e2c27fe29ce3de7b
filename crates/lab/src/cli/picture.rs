//! The VPC as a drawing for the terminal: pure, status and pods in, text out.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::control::{InterfaceStatus, NodeStatus, Status, SubnetStatus};
use crate::pods::Pod;

/// Columns of the whole drawing.
const WIDTH: usize = 110;

/// Draws it.
pub(super) fn draw(status: &Status, pods: &[Pod]) -> String {
    let mut text = String::new();
    let peer = status
        .peer
        .as_ref()
        .map(|p| format!("peered network {}", p.cidr))
        .unwrap_or_default();
    let left = format!("internet {}", status.internet.cidr);
    let _ = writeln!(text, "  {left:<52}{peer}");
    let _ = writeln!(
        text,
        "  {:<52}{}",
        "│",
        if peer.is_empty() {
            ""
        } else {
            "│ addresses as they are"
        }
    );
    let _ = writeln!(
        text,
        "  {:<52}{}",
        format!("│ public addresses 1:1 · NAT gateway {}", status.nat_public),
        if peer.is_empty() { "" } else { "│" }
    );
    let cidrs = status
        .vpc
        .iter()
        .map(ToString::to_string)
        .chain(status.vpc_ipv6.map(|net| net.to_string()))
        .collect::<Vec<_>>()
        .join(", ");
    let inner = WIDTH - 4;
    let mut lines = Vec::new();
    for subnet in &status.subnets {
        lines.extend(subnet_box(status, subnet, pods, inner));
    }
    for line in boxed(&format!("VPC {cidrs} · {}", status.region), &lines, WIDTH) {
        let _ = writeln!(text, "{line}");
    }
    if !status.loose_interfaces.is_empty() {
        let _ = writeln!(
            text,
            "attached to nothing: {}",
            status.loose_interfaces.join(", ")
        );
    }
    let count = |of: &std::collections::BTreeMap<String, u64>| {
        let some: Vec<String> = of
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(what, n)| format!("{what} {n}"))
            .collect();
        if some.is_empty() {
            "none".to_owned()
        } else {
            some.join(", ")
        }
    };
    wrapped(&mut text, "calls: ", &count(&status.calls));
    wrapped(&mut text, "drops: ", &count(&status.drops));
    for fault in &status.model_faults {
        let _ = writeln!(text, "FAULT OF THE LAB: {fault}");
    }
    text
}

fn wrapped(text: &mut String, title: &str, items: &str) {
    let mut line = title.to_owned();
    for item in items.split_inclusive(", ") {
        if line.chars().count() + item.chars().count() > WIDTH {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(title.len());
        }
        line.push_str(item);
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

fn subnet_box(status: &Status, subnet: &SubnetStatus, pods: &[Pod], width: usize) -> Vec<String> {
    let kind = if subnet.public { "public" } else { "private" };
    let ipv6 = subnet.ipv6.map(|net| format!(" · {net}")).unwrap_or_default();
    let title = format!(
        "{} {}{ipv6} · {} · {kind} · router {}",
        subnet.name, subnet.cidr, subnet.zone, subnet.gateway
    );
    let nodes = status.nodes.iter().filter(|n| n.subnet == subnet.id);
    let mut lines: Vec<String> = nodes.flat_map(|n| node_box(n, pods, width - 4)).collect();
    if lines.is_empty() {
        lines.push("no nodes".to_owned());
    }
    boxed(&title, &lines, width)
}

fn node_box(node: &NodeStatus, pods: &[Pod], width: usize) -> Vec<String> {
    let address = node
        .primary
        .map_or_else(|| "no address".to_owned(), |a| a.to_string());
    let public = node.public.map(|p| format!(" = {p} outside")).unwrap_or_default();
    let agent = match (&node.agent.pid, &node.agent.ended) {
        (Some(pid), _) => format!("agent {pid}"),
        (None, Some(how)) => format!("agent ended ({how})"),
        (None, None) => "no agent".to_owned(),
    };
    let title = format!(
        "{} · {} · {address}{public} · {agent}",
        node.name, node.instance_type
    );
    let mut lines = Vec::new();
    for interface in &node.interfaces {
        lines.extend(interface_lines(interface, node, pods, width - 4));
    }
    boxed(&title, &lines, width)
}

/// The interface's head line and what its addresses are used for, in columns.
fn interface_lines(
    interface: &InterfaceStatus,
    node: &NodeStatus,
    pods: &[Pod],
    width: usize,
) -> Vec<String> {
    let name = if interface.card == 0 {
        format!("eth{}", interface.device)
    } else {
        format!("card {} device {}", interface.card, interface.device)
    };
    let role = if (interface.card, interface.device) == (0, 0) {
        "primary"
    } else {
        "secondary"
    };
    let users: Vec<(IpAddr, &str)> = pods
        .iter()
        .filter(|p| p.node == node.name)
        .flat_map(|p| p.addresses().into_iter().map(|a| (a, p.name.as_str())))
        .filter(|(a, _)| interface.owns(*a))
        .collect();
    let slots: u64 = interface
        .addresses
        .iter()
        .map(|net| 1u64 << (32 - net.prefix_len()))
        .sum();
    let own = interface
        .primary
        .map_or_else(|| "no address".to_owned(), |a| a.to_string());
    let free = slots
        .saturating_sub(u64::from(interface.primary.is_some()))
        .saturating_sub(users.iter().filter(|(a, _)| a.is_ipv4()).count() as u64);
    let mut lines = vec![format!(
        "{name} {} {own} ({role}, {}) · {} pods, {free} spare",
        interface.eni,
        interface.mac,
        users.len()
    )];
    let cells: Vec<String> = users
        .iter()
        .map(|(address, pod)| format!("{address} {pod}"))
        .collect();
    let column = cells
        .iter()
        .map(|c| c.chars().count() + 3)
        .max()
        .unwrap_or(1)
        .min(width);
    for row in cells.chunks(((width - 4) / column).max(1)) {
        let cells: Vec<String> = row.iter().map(|cell| format!("{cell:<column$}")).collect();
        lines.push(format!("    {}", cells.concat().trim_end()));
    }
    lines
}

/// A frame around lines, `width` columns in all; too long lines are cut.
fn boxed(title: &str, lines: &[String], width: usize) -> Vec<String> {
    let title = cut(title, width - 6);
    let fill = width.saturating_sub(title.chars().count() + 5);
    let mut out = vec![format!("┌─ {title} {}┐", "─".repeat(fill))];
    for line in lines {
        let line = cut(line, width - 4);
        let pad = (width - 4).saturating_sub(line.chars().count());
        out.push(format!("│ {line}{} │", " ".repeat(pad)));
    }
    out.push(format!("└{}┘", "─".repeat(width - 2)));
    out
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let start: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_frame_is_as_wide_as_the_frame() {
        let long = "x".repeat(300);
        let frame = boxed("title", &["short".to_owned(), long], 40);
        assert!(frame.iter().all(|l| l.chars().count() == 40), "{frame:#?}");
        assert_eq!(boxed(&"t".repeat(100), &[], 40)[0].chars().count(), 40);
    }

    #[test]
    fn pods_stand_under_the_interface_that_owns_their_address() {
        let interface = InterfaceStatus {
            eni: "eni-1".to_owned(),
            card: 0,
            device: 1,
            mac: "0a:00:00:00:00:01".to_owned(),
            subnet: "subnet-1".to_owned(),
            primary: Some([10, 0, 0, 5].into()),
            addresses: vec!["10.0.0.5/32".parse().unwrap(), "10.0.0.16/28".parse().unwrap()],
            ipv6: Vec::new(),
        };
        let pod = |name: &str, last: u8| Pod {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            node: "node-1".to_owned(),
            netns: String::new(),
            container_id: String::new(),
            ifname: "eth0".to_owned(),
            annotations: serde_json::Map::new(),
            config: serde_json::Value::Null,
            result: None,
            address: Some([10, 0, 0, last].into()),
            add_ms: None,
        };
        let node = NodeStatus {
            name: "node-1".to_owned(),
            instance: String::new(),
            instance_type: String::new(),
            subnet: String::new(),
            primary: None,
            public: None,
            primary_ipv6: None,
            namespace: String::new(),
            holder: 0,
            kubernetes: None,
            agent: crate::control::AgentStatus::default(),
            interfaces: Vec::new(),
        };
        let lines = interface_lines(&interface, &node, &[pod("in", 20), pod("out", 99)], 90);
        assert!(lines[0].ends_with("1 pods, 15 spare"), "{}", lines[0]);
        assert_eq!(lines[1].trim(), "10.0.0.20 in");
        assert_eq!(lines.len(), 2);
    }
}
