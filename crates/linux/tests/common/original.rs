//! What the node agent of amazon-vpc-cni-k8s writes, as its releases do: by either of iptables' programs, and by nftables.
#![allow(dead_code)] // each test binary uses its part

use std::process::{Command, Stdio};

/// `iptables` by its back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Iptables {
    Nft,
    Legacy,
}

impl Iptables {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        }
    }

    /// Each line is a call's arguments, as a shell takes them.
    pub(crate) fn run(self, lines: &str) {
        let script: String = lines
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| format!("{} --wait {line}\n", self.program()))
            .collect();
        shell(&script);
    }

    /// Its chains and rules, without those that the kernel always has.
    pub(crate) fn shown(self) -> Vec<String> {
        let script = format!("{0} -t nat -S; {0} -t mangle -S", self.program());
        let shown = shell(&script);
        let mut lines: Vec<String> = shown
            .lines()
            .filter(|line| !line.starts_with("-P"))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }
}

/// Runs a script in the namespace of the calling thread.
pub(crate) fn shell(script: &str) -> String {
    let output = Command::new("bash")
        .args(["-ec", script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// SNAT, and what is in `mangle`, of the present releases; the VPC is 10.0.0.0/16, the primary interface eth0 with 10.0.0.10.
pub(crate) const PRESENT: &str = r#"
-t nat -N AWS-SNAT-CHAIN-0
-t nat -A POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
-t nat -I AWS-SNAT-CHAIN-0 1 -d 10.0.0.0/16 -m comment --comment "AWS SNAT CHAIN" -j RETURN
-t nat -A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.0.10 --random-fully
-t mangle -A PREROUTING -m comment --comment "AWS, primary ENI" -i eth0 -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-mark 0x80/0x80
-t mangle -A PREROUTING -m comment --comment "AWS, primary ENI" -i eni+ -j CONNMARK --restore-mark --mask 0x80
-t mangle -A PREROUTING -m comment --comment "AWS, primary ENI" -i vlan+ -j CONNMARK --restore-mark --mask 0x80
"#;

/// The mark of pods' connections to outside, by iptables.
pub(crate) const MARK: &str = r#"
-t nat -N AWS-CONNMARK-CHAIN-0
-t nat -A PREROUTING -i eni+ -m comment --comment "AWS, outbound connections" -j AWS-CONNMARK-CHAIN-0
-t nat -I AWS-CONNMARK-CHAIN-0 1 -d 10.0.0.0/16 -m comment --comment "AWS CONNMARK CHAIN" -j RETURN
-t nat -A PREROUTING -m comment --comment "AWS, CONNMARK" -j CONNMARK --restore-mark --mask 0x80
-t nat -A AWS-CONNMARK-CHAIN-0 -m comment --comment "AWS, CONNMARK" -j CONNMARK --set-xmark 0x80/0x80
"#;

/// The same by nftables.
pub(crate) const NATIVE_MARK: &str = r#"nft -f - <<'END'
table ip aws-cni {
    chain snat-mark {
        ip daddr 10.0.0.0/16 counter return
        counter ct mark set ct mark or 0x80
    }
    chain nat-prerouting {
        type nat hook prerouting priority -90; policy accept;
        fib daddr type local return
        iifname "eni*" counter jump snat-mark
        counter meta mark set ct mark and 0x80
    }
}
END
"#;

/// Of old releases: a chain for each CIDR, leading to the next; one jump of a time when new connections were looked at; marks,
/// prefixes and interfaces of settings that were changed since.
pub(crate) const OLD: &str = r#"
-t nat -N AWS-SNAT-CHAIN-0
-t nat -N AWS-SNAT-CHAIN-1
-t nat -N AWS-SNAT-CHAIN-2
-t nat -A POSTROUTING -m comment --comment "AWS SNAT CHAN" -j AWS-SNAT-CHAIN-0
-t nat -A AWS-SNAT-CHAIN-0 ! -d 10.0.0.0/16 -m comment --comment "AWS SNAT CHAN" -j AWS-SNAT-CHAIN-1
-t nat -A AWS-SNAT-CHAIN-1 ! -d 10.1.0.0/16 -m comment --comment "AWS SNAT CHAN" -j AWS-SNAT-CHAIN-2
-t nat -A AWS-SNAT-CHAIN-2 -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.0.10 --random
-t nat -A POSTROUTING ! -d 10.0.0.0/16 -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.0.10
-t nat -N AWS-CONNMARK-CHAIN-0
-t nat -N AWS-CONNMARK-CHAIN-1
-t nat -A PREROUTING -i eni+ -m comment --comment "AWS, outbound connections" -m state --state NEW -j AWS-CONNMARK-CHAIN-0
-t nat -A AWS-CONNMARK-CHAIN-0 ! -d 10.0.0.0/16 -m comment --comment "AWS CONNMARK CHAIN, VPC CIDR" -j AWS-CONNMARK-CHAIN-1
-t nat -A AWS-CONNMARK-CHAIN-1 -m comment --comment "AWS, CONNMARK" -j CONNMARK --set-xmark 0x80/0x80
-t nat -A PREROUTING -m comment --comment "AWS, CONNMARK" -j CONNMARK --restore-mark --mask 0x80
-t mangle -A PREROUTING -m comment --comment "AWS, primary ENI" -i ens5 -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-mark 0x100/0x100
-t mangle -A PREROUTING -m comment --comment "AWS, primary ENI" -i abc+ -j CONNMARK --restore-mark --mask 0x100
"#;

/// Of others: kube-proxy's kind, and an operator's that look like the original's.
pub(crate) const OTHERS: &str = r#"
-t nat -N KUBE-SERVICES
-t nat -N MY-AWS-SNAT-CHAIN-0
-t nat -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-t nat -A KUBE-SERVICES -d 10.100.0.1/32 -p tcp -m comment --comment "default/kubernetes:https" -m tcp --dport 443 -j DNAT --to-destination 10.0.0.99:443
-t nat -A POSTROUTING -m comment --comment "AWS SNAT CHAIN of mine" -j MY-AWS-SNAT-CHAIN-0
-t nat -A MY-AWS-SNAT-CHAIN-0 -s 10.9.0.0/16 -m comment --comment "a \"quoted\" one" -j MASQUERADE
-t mangle -A PREROUTING -i eth0 -m comment --comment "mine" -j CONNMARK --set-xmark 0x8000/0x8000
"#;
