//! The table as text: finding a row without parsing the others, and parsing that row.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::{CardLimit, Hypervisor, InstanceLimits};

const TEXT: &str = include_str!("../instance-limits.tsv");

/// The rows behind the comments and the line of column names.
fn body() -> &'static str {
    let mut rest = TEXT;
    while let Some((line, after)) = rest.split_once('\n') {
        if !line.starts_with('#') {
            return after;
        }
        rest = after;
    }
    ""
}

/// Every row, in order.
pub(crate) fn rows() -> impl Iterator<Item = &'static str> {
    body().lines()
}

/// The row of `name`. Halves the text, which is sorted by the bytes of the first column (a test holds it so).
pub(crate) fn find(name: &str) -> Option<&'static str> {
    let mut text = body();
    while !text.is_empty() {
        let middle = text.len() / 2;
        // The file is ASCII, so every index is a character boundary; `get` keeps a later non-ASCII row from panicking.
        let start = text.get(..middle)?.rfind('\n').map_or(0, |at| at + 1);
        let end = text.get(start..)?.find('\n').map_or(text.len(), |at| start + at);
        let row = text.get(start..end)?;
        let found = row.split('\t').next().unwrap_or_default();
        match found.cmp(name) {
            Ordering::Equal => return Some(row),
            Ordering::Less => text = text.get(end + 1..).unwrap_or_default(),
            Ordering::Greater => text = text.get(..start)?,
        }
    }
    None
}

/// A row as values; `None` if it is not exactly nine good columns.
pub(crate) fn parse(row: &'static str) -> Option<InstanceLimits> {
    let mut fields = row.split('\t');
    let instance_type = fields.next().filter(|name| !name.is_empty())?;
    let _total: u32 = fields.next()?.parse().ok()?;
    let ipv4_per_interface = fields.next()?.parse().ok()?;
    let cards = (0..)
        .zip(fields.next()?.split(','))
        .map(|(card, count)| {
            Some(CardLimit {
                card,
                interfaces: count.parse().ok()?,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    let default_card = fields.next()?.parse().ok()?;
    let interfaces = cards.iter().find(|c| c.card == default_card)?.interfaces;
    let hypervisor = match fields.next()? {
        "nitro" => Hypervisor::Nitro,
        "xen" => Hypervisor::Xen,
        "unknown" => Hypervisor::Unknown,
        _ => return None,
    };
    let bare_metal = fields.next()?.parse().ok()?;
    let trunk_capable = match fields.next()? {
        "unknown" => None,
        known => Some(known.parse().ok()?),
    };
    let branch_interfaces = match fields.next()? {
        "" | "unknown" => None,
        known => Some(known.parse().ok()?),
    };
    if fields.next().is_some() {
        return None;
    }
    Some(InstanceLimits {
        instance_type: Cow::Borrowed(instance_type),
        interfaces,
        ipv4_per_interface,
        cards,
        default_card,
        hypervisor,
        bare_metal,
        trunk_capable,
        branch_interfaces,
    })
}
