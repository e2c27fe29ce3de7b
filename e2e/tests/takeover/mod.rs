//! The part of amazon-vpc-cni-k8s: its files, its rules and its chains, as its releases write them, in their order.

pub(crate) mod scene;

use std::cell::RefCell;

use serde_json::Value;
use vpcnet_e2e::{Lab, Node};

use scene::in_node;

/// What it runs with. Old releases had numbered chains, one for each CIDR, that lead on to the next, and looked at new connections
/// for the mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Release {
    /// `iptables-nft`, and nftables for the mark.
    Nft,
    /// `iptables-legacy` for all.
    Legacy,
    OldNft,
    OldLegacy,
    /// With `AWS_VPC_CNI_NODE_PORT_SUPPORT=false`: what arrives by the primary interface gets no mark.
    NoNodePorts,
}

impl Release {
    fn program(self) -> &'static str {
        match self {
            Self::Nft | Self::OldNft | Self::NoNodePorts => "iptables-nft",
            Self::Legacy | Self::OldLegacy => "iptables-legacy",
        }
    }

    /// Calls, in their order. PRIMARY stands for the node's address.
    fn calls(self) -> Vec<String> {
        let program = self.program();
        let of = |lines: &'static str| lines.trim().lines().map(move |l| format!("{program} --wait {l}"));
        let mangle = of(MANGLE);
        match self {
            Self::Nft | Self::NoNodePorts => of(SNAT)
                .chain(mangle.filter(|call| self == Self::Nft || call.contains("-i eni+")))
                .chain(NATIVE_MARK.map(|batch| format!("nft '{batch}'")))
                .collect(),
            Self::Legacy => of(SNAT).chain(mangle).chain(of(MARK)).collect(),
            Self::OldNft | Self::OldLegacy => of(OLD_SNAT).chain(mangle).chain(of(OLD_MARK)).collect(),
        }
    }
}

const SNAT: &str = r#"
-t nat -N AWS-SNAT-CHAIN-0
-t nat -A POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
-t nat -I AWS-SNAT-CHAIN-0 1 -d 10.0.0.0/16 -m comment --comment "AWS SNAT CHAIN" -j RETURN
-t nat -A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source PRIMARY --random-fully
"#;
const MANGLE: &str = r#"
-t mangle -A PREROUTING -m comment --comment "AWS, primary ENI" -i LINK -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-mark 0x80/0x80
-t mangle -A PREROUTING -m comment --comment "AWS, primary ENI" -i eni+ -j CONNMARK --restore-mark --mask 0x80
-t mangle -A PREROUTING -m comment --comment "AWS, primary ENI" -i vlan+ -j CONNMARK --restore-mark --mask 0x80
"#;
const MARK: &str = r#"
-t nat -N AWS-CONNMARK-CHAIN-0
-t nat -A PREROUTING -i eni+ -m comment --comment "AWS, outbound connections" -j AWS-CONNMARK-CHAIN-0
-t nat -I AWS-CONNMARK-CHAIN-0 1 -d 10.0.0.0/16 -m comment --comment "AWS CONNMARK CHAIN" -j RETURN
-t nat -A PREROUTING -m comment --comment "AWS, CONNMARK" -j CONNMARK --restore-mark --mask 0x80
-t nat -A AWS-CONNMARK-CHAIN-0 -m comment --comment "AWS, CONNMARK" -j CONNMARK --set-xmark 0x80/0x80
"#;
const NATIVE_MARK: [&str; 2] = [
    r#"table ip aws-cni {
        chain snat-mark { }
        chain nat-prerouting {
            type nat hook prerouting priority -90; policy accept;
            fib daddr type local return
            iifname "eni*" counter jump snat-mark
            counter meta mark set ct mark and 0x80
        }
    }"#,
    r#"table ip aws-cni {
        chain snat-mark {
            counter ip daddr 10.0.0.0/16 return
            counter ct mark set ct mark or 0x80
        }
    }"#,
];
/// Two CIDRs, so chains 0 to 2; and the rule of the first releases, which the later ones forgot.
const OLD_SNAT: &str = r#"
-t nat -A POSTROUTING ! -d 10.0.0.0/16 -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source PRIMARY
-t nat -N AWS-SNAT-CHAIN-0
-t nat -N AWS-SNAT-CHAIN-1
-t nat -N AWS-SNAT-CHAIN-2
-t nat -A POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
-t nat -A AWS-SNAT-CHAIN-0 ! -d 10.0.0.0/16 -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-1
-t nat -A AWS-SNAT-CHAIN-1 ! -d 10.77.0.0/16 -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-2
-t nat -A AWS-SNAT-CHAIN-2 -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source PRIMARY --random
-t mangle -A PREROUTING -m comment --comment "AWS, primary ENI" -i abc+ -j CONNMARK --restore-mark --mask 0x100
"#;
const OLD_MARK: &str = r#"
-t nat -N AWS-CONNMARK-CHAIN-0
-t nat -N AWS-CONNMARK-CHAIN-1
-t nat -N AWS-CONNMARK-CHAIN-2
-t nat -A PREROUTING -i eni+ -m comment --comment "AWS, outbound connections" -m state --state NEW -j AWS-CONNMARK-CHAIN-0
-t nat -A AWS-CONNMARK-CHAIN-0 ! -d 10.0.0.0/16 -m comment --comment "AWS CONNMARK CHAIN, VPC CIDR" -j AWS-CONNMARK-CHAIN-1
-t nat -A AWS-CONNMARK-CHAIN-1 ! -d 10.77.0.0/16 -m comment --comment "AWS CONNMARK CHAIN, VPC CIDR" -j AWS-CONNMARK-CHAIN-2
-t nat -A PREROUTING -m comment --comment "AWS, CONNMARK" -j CONNMARK --restore-mark --mask 0x80
-t nat -A AWS-CONNMARK-CHAIN-2 -m comment --comment "AWS, CONNMARK" -j CONNMARK --set-xmark 0x80/0x80
"#;
/// kube-proxy's kind, and an operator's that look like the original's.
const OTHERS: &str = r#"
-t nat -N KUBE-SERVICES
-t nat -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-t nat -A KUBE-SERVICES -d 10.100.0.1/32 -p tcp -m comment --comment "default/kubernetes:https" -m tcp --dport 443 -j DNAT --to-destination 10.0.0.99:443
-t nat -N MY-AWS-SNAT-CHAIN-0
-t nat -A POSTROUTING -m comment --comment "AWS SNAT CHAIN of mine" -j MY-AWS-SNAT-CHAIN-0
-t mangle -A PREROUTING -i eth9 -m comment --comment "mine" -j CONNMARK --set-xmark 0x8000/0x8000
"#;

/// It, on the node.
pub(crate) struct Original {
    release: Release,
    primary: String,
    others: RefCell<Vec<String>>,
}

impl Original {
    /// `primary` is the node's address.
    pub(crate) fn of(release: Release, primary: &str) -> Self {
        Self {
            release,
            primary: primary.to_owned(),
            others: RefCell::default(),
        }
    }

    /// Rules that are not its own, in the same tables.
    pub(crate) fn add_others(&self, lab: &Lab) {
        let program = self.release.program();
        let lines = OTHERS.trim().lines();
        let script: Vec<String> = lines.map(|line| format!("{program} --wait {line}")).collect();
        in_node(lab, &script.join("\n"));
        *self.others.borrow_mut() = self.shown(lab);
    }

    pub(crate) fn remove_others(&self, lab: &Lab) {
        let program = self.release.program();
        in_node(
            lab,
            &format!("for table in nat mangle; do {program} -t $table -F; {program} -t $table -X; done"),
        );
    }

    pub(crate) fn others(&self) -> Vec<String> {
        self.others.borrow().clone()
    }

    /// Chains and rules of its tables, whoever's they are.
    pub(crate) fn shown(&self, lab: &Lab) -> Vec<String> {
        let program = self.release.program();
        let script =
            format!("{program} -t nat -S; {program} -t mangle -S; nft list tables | grep aws-cni || true");
        let shown = in_node(lab, &script);
        let mut lines: Vec<String> = shown
            .lines()
            .filter(|line| !line.starts_with("-P"))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }

    /// Reads the owners, and writes them as it does: without what it does not know.
    pub(crate) fn take_the_files(&self, node: &Node<'_>) {
        let file = node.checkpoint_file();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, AGES[0].write(&text).unwrap()).unwrap();
    }

    /// Sets the packet filter up, call by call; before each one `so_far` is asked, with how many there were.
    pub(crate) fn set_up(&self, lab: &Lab, so_far: impl Fn(usize)) {
        let route = in_node(lab, "ip -4 -o route show default");
        let link = route.split_whitespace().nth(4).unwrap();
        // That it takes its rule for the mark away first, and adds it again, is left out: packets between the two leave by wrong ways
        // at each of its starts, whoever served before.
        for (n, call) in self.release.calls().iter().enumerate() {
            so_far(n);
            in_node(lab, &call.replace("PRIMARY", &self.primary).replace("LINK", link));
        }
    }
}

/// A checkpoint of the releases of a time.
pub(crate) struct Age {
    pub(crate) name: &'static str,
    /// Makes an entry one of that time; none: there is no file.
    entry: Option<fn(&mut Value)>,
}

impl Age {
    /// What it would have written where vpcnet wrote this; none: it wrote none.
    pub(crate) fn write(&self, ours: &str) -> Option<String> {
        let entry = self.entry?;
        let mut file: Value = serde_json::from_str(ours).unwrap();
        file.as_object_mut().unwrap().remove("writer");
        file["allocations"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(entry);
        Some(format!("{file}\n"))
    }
}

fn without(entry: &mut Value, field: &str) {
    entry.as_object_mut().unwrap().remove(field);
}

pub(crate) const AGES: &[Age] = &[
    Age {
        name: "1.20 and later",
        entry: Some(|_| {}),
    },
    Age {
        name: "before 1.20: no count of interfaces",
        entry: Some(|entry| without(&mut entry["metadata"], "interfacesCount")),
    },
    Age {
        name: "before 1.11: no time and no pod",
        entry: Some(|entry| {
            without(entry, "metadata");
            without(entry, "allocationTimestamp");
        }),
    },
    Age {
        name: "pods of the time when the container runtime was asked",
        entry: Some(|entry| {
            without(entry, "metadata");
            without(entry, "allocationTimestamp");
            entry["networkName"] = "_migrated-from-cri".into();
            entry["ifName"] = "unknown".into();
        }),
    },
    Age {
        name: "before there was a checkpoint",
        entry: None,
    },
];

/// As the releases of that time wrote them: only to the VPC a pod's packets are led to its interface's table.
pub(crate) fn rules_by_destination(lab: &Lab) {
    in_node(
        lab,
        "ip -4 rule | sed -n 's/^1536:\\tfrom \\([^ ]*\\) lookup \\([^ ]*\\).*/\\1 \\2/p' | while read -r pod table; do
           ip rule delete from $pod priority 1536
           ip rule add from $pod to 10.0.0.0/16 lookup $table priority 1536
           ip rule add from $pod to 10.77.0.0/16 lookup $table priority 1536
         done",
    );
}
