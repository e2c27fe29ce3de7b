//! Serves the VPC's EC2 API and metadata service on loopback, without fabric and without root: for trying a client.
//!
//! `cargo run -p vpcnet-lab --example faces`, then `eval` the lines it prints. It runs until it is interrupted.
//! Whoever asks the metadata service is taken for the one node there is.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use vpcnet_lab::api::{Engine, serve_ec2, serve_imds};
use vpcnet_lab::model::{NodeSpec, RoleConfig, Vpc, VpcConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut vpc = Vpc::new(VpcConfig::default(), 1);
    let node = vpc.run_instance(Duration::ZERO, &NodeSpec::new("node-1", "m5.large"))?;
    let keys = vpc
        .role_credentials(RoleConfig::ADMIN)
        .ok_or("the lab has no administrator")?;
    let engine = Engine::new(vpc);
    let ec2 = TcpListener::bind("127.0.0.1:0").await?;
    let imds = TcpListener::bind("127.0.0.1:0").await?;

    println!("export AWS_ENDPOINT_URL_EC2=http://{}", ec2.local_addr()?);
    println!(
        "export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://{}",
        imds.local_addr()?
    );
    println!("export AWS_REGION=us-west-2");
    println!("# The administrator's keys; without them a client reads the node's from the metadata service.");
    println!(
        "# export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}",
        keys.access_key, keys.secret_key
    );

    let clock = engine.clone();
    tokio::select! {
        () = async move { clock.run().await } => {}
        () = serve_ec2(ec2, engine.clone()) => {}
        () = serve_imds(imds, engine.clone(), move |_: IpAddr| Some(node.clone())) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
