//! IMDS, EC2, and the rights that the settings need.

use vpcnet_cloud::{
    CredentialProvider, CredentialSource, DryRun, Ec2, Ec2Action, Ec2Config, Imds, InstanceFacts,
    process_environment,
};
use vpcnet_config::{Config, Family};

use super::Findings;
use crate::primary;

/// Looks.
pub(super) async fn look(config: &Config) -> Findings {
    let mut found = Findings::of("aws");
    let imds = match primary::imds(config) {
        Ok(imds) => imds,
        Err(error) => {
            found.problem(error.to_string(), "correct AWS_EC2_METADATA_SERVICE_ENDPOINT");
            return found;
        }
    };
    let facts = match imds.instance_facts().await {
        Ok(facts) => facts,
        Err(error) => {
            found.problem(
                format!("IMDS does not answer: {error}"),
                "reach 169.254.169.254 from here: hostNetwork: true, or a hop limit of 2; no firewall or proxy before it",
            );
            return found;
        }
    };
    let identity = &facts.identity;
    found.ok(format!(
        "IMDS: {} {}, {}",
        identity.instance_id, identity.instance_type, identity.availability_zone
    ));
    match primary::find(config, None).await {
        Ok(primary) => found.ok(format!(
            "the primary interface {} is {}",
            facts.interface_id, primary.link.name
        )),
        Err(error) => found.problem(
            error.to_string(),
            "run it in the node's network namespace (hostNetwork: true)",
        ),
    }
    instance_type(&mut found, config, &identity.instance_type);
    if config.pool.imds_only {
        found.skipped("EC2: ENABLE_IMDS_ONLY_MODE makes no call to it");
    } else {
        ec2(&mut found, config, &imds, &facts).await;
    }
    found
}

fn instance_type(found: &mut Findings, config: &Config, name: &str) {
    match vpcnet_limits::lookup(name) {
        None => found.warn(
            format!("{name} is not in this version's table: EC2 is asked for its limits"),
            "permit ec2:DescribeInstanceTypes",
        ),
        Some(limits) => {
            let xen = !limits.bare_metal && matches!(limits.hypervisor, vpcnet_limits::Hypervisor::Xen);
            if xen && config.family == Family::V6 {
                found.problem(
                    format!("{name} has no prefixes, and so no IPv6 pods"),
                    "use a type on Nitro",
                );
            } else if xen && config.pool.prefixes {
                found.warn(
                    format!("{name} has no prefixes: single addresses are used"),
                    "use a type on Nitro, or ENABLE_PREFIX_DELEGATION=false",
                );
            }
        }
    }
}

async fn ec2(found: &mut Findings, config: &Config, imds: &Imds, facts: &InstanceFacts) {
    let client = match client(config, imds, &facts.identity.region) {
        Ok(client) => client,
        Err(error) => {
            found.problem(error.to_string(), "correct the settings for EC2");
            return;
        }
    };
    let id = [facts.interface_id.clone()];
    match client.describe_network_interfaces(&id).await {
        Ok(_) => found.ok(format!("EC2 answers at {}", client.endpoint())),
        Err(error) if error.code == "UnauthorizedOperation" => {
            found.ok(format!("EC2 answers at {}", client.endpoint()));
            lacking(found, &["DescribeNetworkInterfaces"]);
        }
        Err(error) => {
            found.problem(
                format!("EC2 cannot be asked: {error}"),
                "reach the endpoint from here (route, NAT gateway or VPC endpoint, security group), with a role or credentials",
            );
            return;
        }
    }
    if config.interfaces.subnet_discovery {
        let own = std::slice::from_ref(&facts.subnet_id);
        match client.describe_subnets(own, &[]).await {
            Ok(_) => {}
            Err(error) if error.code == "UnauthorizedOperation" => lacking(found, &["DescribeSubnets"]),
            Err(error) => found.warn(format!("ec2:DescribeSubnets: {error}"), ""),
        }
    }
    let about = DryRun {
        instance: &facts.identity.instance_id,
        interface: &facts.interface_id,
        subnet: &facts.subnet_id,
    };
    let mut refused = Vec::new();
    let wanted = rights(config);
    for action in &wanted {
        match client.may(*action, &about).await {
            Ok(true) => {}
            Ok(false) => refused.push(action.name()),
            Err(error) => found.warn(
                format!("whether ec2:{action} is permitted is not known: {error}"),
                "",
            ),
        }
    }
    if refused.is_empty() {
        found.ok(format!(
            "rights for EC2: {} actions asked by dry run, none is refused",
            wanted.len()
        ));
    } else {
        lacking(found, &refused);
    }
}

fn lacking(found: &mut Findings, actions: &[&str]) {
    let list: Vec<String> = actions.iter().map(|action| format!("ec2:{action}")).collect();
    found.problem(
        format!("not permitted: {}", list.join(", ")),
        "permit them in the role's policy (amazon-vpc-cni-k8s's policy AmazonEKS_CNI_Policy has them)",
    );
}

/// The actions that change something, by what the settings let the agent do.
fn rights(config: &Config) -> Vec<Ec2Action> {
    if !config.pool.provisioning {
        return Vec::new();
    }
    if config.family == Family::V6 {
        return vec![Ec2Action::AssignIpv6Addresses, Ec2Action::CreateTags];
    }
    vec![
        Ec2Action::CreateNetworkInterface,
        Ec2Action::AttachNetworkInterface,
        Ec2Action::DetachNetworkInterface,
        Ec2Action::DeleteNetworkInterface,
        Ec2Action::ModifyNetworkInterfaceAttribute,
        Ec2Action::AssignPrivateIpAddresses,
        Ec2Action::UnassignPrivateIpAddresses,
        Ec2Action::CreateTags,
    ]
}

fn client(config: &Config, imds: &Imds, region: &str) -> Result<Ec2, vpcnet_cloud::ConfigError> {
    let region = config.cloud.region.as_deref().unwrap_or(region);
    let source = CredentialSource::from_environment(&process_environment, imds, region)?;
    let mut settings = Ec2Config::new(region, CredentialProvider::new(source)?);
    settings.endpoint.clone_from(&config.cloud.ec2_endpoint);
    settings.http_timeout = config.cloud.timeout;
    Ec2::new(settings)
}
