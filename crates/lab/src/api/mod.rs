//! The faces of the VPC to the world: the EC2 Query API and the instance metadata service, over HTTP.
//!
//! What it must not know: how the VPC decides. It turns forms into requests, answers into XML, and imposes the
//! latencies and lost answers the model names.

mod ec2;
mod engine;
mod http;
mod imds;
mod operator;
mod params;
mod parse;
mod parse_instances;
mod render;
mod render_instances;
mod render_network;
mod sigv4;
mod xml;

pub use ec2::serve_ec2;
pub use engine::Engine;
pub use imds::serve_imds;
pub use operator::operator_call;
