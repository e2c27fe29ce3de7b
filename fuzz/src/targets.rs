//! One file a target.

mod checkpoint;
mod cni;
mod ec2_xml;
mod imds;
mod kubernetes;
mod state;

pub(crate) use checkpoint::CHECKPOINT;
pub(crate) use cni::{CNI_ARGS, CNI_STDIN};
pub(crate) use ec2_xml::EC2_XML;
pub(crate) use imds::IMDS;
pub(crate) use kubernetes::KUBERNETES;
pub(crate) use state::STATE;
