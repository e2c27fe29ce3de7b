//! The faces of the VPC to the world: the EC2 Query API and the instance metadata service, over HTTP.
//!
//! What it must not know: how the VPC decides. It turns forms into requests, answers into XML, and imposes the
//! latencies and lost answers the model names.

mod engine;

pub use engine::Engine;
