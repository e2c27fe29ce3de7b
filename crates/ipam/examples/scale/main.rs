//! 5,000 nodes and 150,000 pods in one AWS account: `cargo run -p vpcnet-ipam --example scale`.
//!
//! Every node runs the real pool and the real back-off of `vpcnet-cloud`; what lies between them (the executor) and EC2's
//! token buckets are simulated. Beside it stands a model of the AWS VPC CNI, from its documented behaviour: which calls it
//! makes at the start, in its 5 s loop and for an interface, and how it repeats them.
//!
//! The columns: when the last pod had its address; how long pods waited; how much later than EC2's buckets force the pods
//! were served ("beyond": the n-th pod to be served, against the n-th if one mind made all calls, first come first
//! served, and only those that pods need); how many pods more than 60 s later than that; all EC2 calls, and those that
//! EC2 refused.

#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing)] // A program of fixed tables, run by hand.

mod account;
mod original;
mod ours;
mod queue;
mod report;
mod scenario;

use crate::scenario::{Story, Way, forced};

fn main() {
    let only: Option<String> = std::env::args().nth(1);
    for story in Story::ALL {
        if only
            .as_deref()
            .is_some_and(|word| !story.title().starts_with(word))
        {
            continue;
        }
        for (way, name) in [
            (Way::SecondaryIp, "secondary addresses, WARM_ENI_TARGET 1"),
            (Way::Prefixes, "/28 prefixes, WARM_PREFIX_TARGET 1"),
        ] {
            let scenario = story.scenario();
            let forced = forced(&scenario, way);
            report::heading(&format!("{}; {name}", story.title()), &forced);
            ours::run(&scenario, way).print(&forced);
            original::run(&scenario, way).print(&forced);
        }
    }
}
