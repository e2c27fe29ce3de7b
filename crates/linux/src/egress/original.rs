//! The iptables chains that the AWS VPC CNI's egress plugin makes, one for each pod: `CNI-E4-…` and `CNI-E6-…` in the `nat`
//! table, with a jump to it from POSTROUTING. Its pods may outlive it on a node, and its own DEL leaves the chain when the pod's
//! namespace is gone.
//!
//! Those that the nft back end of iptables wrote are nftables objects and are removed here. Those of the legacy back end cannot
//! be seen by netlink.

use super::nf::{self, Attribute, Do, Message, Nf};
use crate::netlink::{Errno, NetlinkError, parse};

const NAT: &str = "nat";
const POSTROUTING: &str = "POSTROUTING";

const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CHAIN: u16 = 2;
const MATCH_NAME: u16 = 1;
const MATCH_INFO: u16 = 3;

/// A pod's chain, as the jump to it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalChain {
    /// `CNI-E4-…` or `CNI-E6-…`.
    pub name: String,
    /// The jump's comment: `name: "<network>" id: "<container>"`.
    pub comment: String,
}

/// The chains that POSTROUTING jumps to and whose names begin with `prefix`.
///
/// # Errors
/// The rules cannot be read. No such table is no chain.
pub fn original_chains(v6: bool, prefix: &str) -> Result<Vec<OriginalChain>, NetlinkError> {
    let mut all = jumps(&mut Nf::open()?, v6)?;
    all.retain(|jump| jump.to.starts_with(prefix));
    let mut chains: Vec<OriginalChain> = Vec::with_capacity(all.len());
    for jump in all {
        if !chains.iter().any(|chain| chain.name == jump.to) {
            chains.push(OriginalChain {
                name: jump.to,
                comment: jump.comment,
            });
        }
    }
    Ok(chains)
}

/// Removes a pod's chain and the jumps to it, in one transaction; says whether there was one.
///
/// # Errors
/// [`NetlinkError`]; the chain is then as before.
pub fn remove_original_chain(v6: bool, chain: &str) -> Result<bool, NetlinkError> {
    let mut kernel = Nf::open()?;
    let chain_id = [
        Attribute::text(CHAIN_TABLE, NAT),
        Attribute::text(CHAIN_NAME, chain),
    ];
    let message = |kind, attributes: &[Attribute]| Message {
        kind,
        v6,
        attributes: attributes.to_vec(),
    };
    let what = format!("look for iptables chain {chain}");
    if kernel.get(&message(Do::GetChain, &chain_id), &what)?.is_none() {
        return Ok(false);
    }
    let mut all: Vec<Message> = jumps(&mut kernel, v6)?
        .into_iter()
        .filter(|jump| jump.to == chain)
        .map(|jump| {
            let rule = [
                Attribute::text(RULE_TABLE, NAT),
                Attribute::text(RULE_CHAIN, POSTROUTING),
                Attribute::bytes(RULE_HANDLE, jump.handle),
            ];
            message(Do::DeleteRule, &rule)
        })
        .collect();
    // Without a handle: all of them.
    let rules = [
        Attribute::text(RULE_TABLE, NAT),
        Attribute::text(RULE_CHAIN, chain),
    ];
    all.push(message(Do::DeleteRule, &rules));
    all.push(message(Do::DeleteChain, &chain_id));
    match kernel.transact(&all, &format!("delete iptables chain {chain}")) {
        // Somebody else was quicker.
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

struct Jump {
    to: String,
    comment: String,
    handle: Vec<u8>,
}

fn jumps(kernel: &mut Nf, v6: bool) -> Result<Vec<Jump>, NetlinkError> {
    let question = Message {
        kind: Do::GetRule,
        v6,
        attributes: vec![
            Attribute::text(RULE_TABLE, NAT),
            Attribute::text(RULE_CHAIN, POSTROUTING),
        ],
    };
    let rules = kernel.list(&question, "list the rules of iptables' nat POSTROUTING")?;
    Ok(rules.iter().filter_map(|rule| jump(rule)).collect())
}

fn jump(rule: &[u8]) -> Option<Jump> {
    let is =
        |attribute, wanted: &str| nf::attribute(rule, attribute).is_some_and(|v| parse::text(v) == wanted);
    if !is(RULE_TABLE, NAT) || !is(RULE_CHAIN, POSTROUTING) {
        return None;
    }
    let mut to = None;
    let mut comment = String::new();
    for (_, expression) in parse::attributes(nf::attribute(rule, RULE_EXPRESSIONS)?, 0) {
        let name = nf::inside(expression, EXPRESSION_NAME).map(parse::text);
        let data = nf::inside(expression, EXPRESSION_DATA).unwrap_or_default();
        match name.as_deref() {
            Some("immediate") => {
                let verdict = nf::inside(data, IMMEDIATE_DATA).and_then(|d| nf::inside(d, DATA_VERDICT));
                to = verdict
                    .and_then(|v| nf::inside(v, VERDICT_CHAIN))
                    .map(parse::text);
            }
            Some("match") if nf::inside(data, MATCH_NAME).is_some_and(|n| parse::text(n) == "comment") => {
                comment = nf::inside(data, MATCH_INFO).map(parse::text).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(Jump {
        to: to?,
        comment,
        handle: nf::attribute(rule, RULE_HANDLE)?.to_vec(),
    })
}
