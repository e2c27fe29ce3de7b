//! What the fabric's namespaces and links are called.

use crate::model::EniId;

/// The VPC's link to the internet.
pub(crate) const INTERNET_LINK: &str = "internet";
/// The VPC's link to the peered network.
pub(crate) const PEER_LINK: &str = "peer";
/// The link to the VPC, on the other side of both.
pub(crate) const VPC_LINK: &str = "vpc";

/// Names of one lab's namespaces, all from the name of its state directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    base: String,
}

impl Names {
    /// Of the lab with that base name.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
        }
    }

    /// The VPC's router.
    #[must_use]
    pub fn vpc(&self) -> String {
        format!("{}-vpc", self.base)
    }

    /// The hosts of the internet.
    #[must_use]
    pub fn internet(&self) -> String {
        format!("{}-internet", self.base)
    }

    /// The hosts of the peered network.
    #[must_use]
    pub fn peer(&self) -> String {
        format!("{}-peer", self.base)
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &str) -> String {
        format!("{}-{name}", self.base)
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, name: &str) -> String {
        format!("{}-pod-{name}", self.base)
    }
}

/// The VPC's end of an interface's link: `e` and the last fourteen digits of its id (a link name has fifteen bytes).
#[must_use]
pub fn link_name(eni: &EniId) -> String {
    let digits = eni.as_str().rsplit('-').next().unwrap_or_default();
    let tail: String = digits.chars().rev().take(14).collect();
    format!("e{}", tail.chars().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_fits_and_keeps_the_end_of_the_id() {
        assert_eq!(
            link_name(&EniId::from("eni-0123456789abcdef0")),
            "e3456789abcdef0"
        );
        assert_eq!(link_name(&EniId::from("eni-01234567")), "e01234567");
    }
}
