//! A start on a machine nothing is known of: IMDS says what it is, and is asked until it does.

use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use vpcnet_cloud::{Ec2, InstanceFacts};
use vpcnet_ipam::{Event, Evidence, InterfaceFacts, KernelEvidence, Limits, Pool, Restored};

use super::listing::{InUse, Seen, list};
use super::{Surroundings, identity, tell};
use crate::aims::Zone;
use crate::config::Family;
use crate::core::Started;
use crate::files::Found;
use crate::limits;
use crate::refresh::takes_groups;
use crate::state::{Facts, Machine};
use crate::{cards, clock, zone};

/// First and longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Goes on until the pool is there.
pub async fn cold(
    around: &Surroundings,
    found: Found,
    kernel: KernelEvidence,
) -> (Started, Vec<InterfaceFacts>, Ec2) {
    let mut pause = PAUSE.0;
    loop {
        let began = Instant::now();
        let attempted = attempt(around, &found, &kernel).await;
        around
            .metrics
            .drop_in
            .initialised(attempted.is_ok(), began.elapsed());
        match attempted {
            Ok(done) => return done,
            Err(why) => {
                around.metrics.error("nodeInit");
                tracing::warn!(%why, retry_in_ms = pause.as_millis(), "not started yet");
                around.core.starting(why);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn attempt(
    around: &Surroundings,
    found: &Found,
    kernel: &KernelEvidence,
) -> Result<(Started, Vec<InterfaceFacts>, Ec2), String> {
    let instance = around.imds.instance_facts().await.map_err(|e| e.to_string())?;
    let mut machine = machine(&instance);
    let vpc_ipv6_cidrs = ipv6_facts(around, &mut machine).await?;
    let ec2 = around.ec2(&machine.region).map_err(|e| e.to_string())?;
    let limits = limits_of(around.config.pool.imds_only, &ec2, &machine, found).await?;
    let in_use = InUse {
        checkpoint: found.checkpoint.as_ref(),
        kernel,
    };
    let seen = list(around, &ec2, &machine, &in_use)
        .await
        .map_err(|e| e.to_string())?;
    let zone = zone_of(around, &ec2, &machine, found).await;
    let interfaces: Vec<InterfaceFacts> = seen.iter().map(|i| i.facts.clone()).collect();
    if !interfaces.iter().any(|i| i.is_primary) {
        return Err("IMDS does not show the primary interface with its address yet".into());
    }
    around.host.set_up_now(&interfaces).map_err(|e| e.to_string())?;
    around.snat.set_source(machine.local_ipv4, &machine.mac);
    around.snat.ensure(&instance.vpc_ipv4_cidrs).await;

    let salt = found
        .state
        .as_ref()
        .map_or_else(salt, |s| s.facts.token_salt.clone());
    let earlier = found.state.as_ref().map(|s| &s.facts);
    let earlier = earlier.filter(|f| f.machine.instance_id == machine.instance_id);
    let facts = Facts {
        token_salt: salt,
        vpc_cidrs: instance.vpc_ipv4_cidrs,
        applied_groups: applied(found, &instance.security_groups, &interfaces),
        vpc_ipv6_cidrs,
        outliving: earlier.map(|f| f.outliving.clone()).unwrap_or_default(),
        behind: earlier.map(|f| f.behind.clone()).unwrap_or_default(),
        groups: instance.security_groups,
        limits,
        zone,
        tags: around.tags(&machine),
        intents: found
            .state
            .as_ref()
            .map(|s| s.facts.intents.clone())
            .unwrap_or_default(),
        machine,
    };
    let started = restore(around, found, kernel, facts, seen)?;
    Ok((started, interfaces, ec2))
}

/// A pool that knows the owners and the interfaces.
fn restore(
    around: &Surroundings,
    found: &Found,
    kernel: &KernelEvidence,
    facts: Facts,
    seen: Vec<Seen>,
) -> Result<Started, String> {
    let limits = cards::managed(&facts.limits, around.config.uses_all_cards());
    let primary = seen.iter().find(|i| i.facts.is_primary);
    let primary = primary.map(|i| i.facts.subnet.clone());
    let machine = &facts.machine;
    around
        .aims
        .set_machine(&machine.instance_type, &limits, primary, facts.zone.clone());
    let targets = around.aims.targets();
    let restored = Restored {
        checkpoint: found.checkpoint.clone(),
        journal: found.state.as_ref().map(|s| s.pool.clone()),
        kernel: kernel.clone(),
    };
    let identity = identity(&facts.machine, &facts.token_salt);
    let now = clock::now();
    let (mut pool, notes, mut actions) =
        Pool::restore(identity, limits, targets, restored, now).map_err(|e| e.to_string())?;
    for fact in around.aims.facts() {
        actions.extend(pool.handle(now, fact));
    }
    let ids = seen.iter().map(|i| i.facts.id.clone()).collect();
    for one in seen {
        actions.extend(pool.handle(now, one.event()));
    }
    actions.extend(pool.handle(
        now,
        Event::InterfacesListed {
            ids,
            evidence: Evidence::Imds,
        },
    ));
    let notes = tell(&notes, &around.metrics);
    Ok(Started {
        pool,
        actions,
        facts,
        rewrite: true,
        notes,
    })
}

/// Where pods have IPv6 addresses: the node's own goes into the machine, the VPC's CIDRs are returned.
async fn ipv6_facts(around: &Surroundings, machine: &mut Machine) -> Result<Vec<Ipv6Net>, String> {
    if around.config.family != Family::V6 {
        return Ok(Vec::new());
    }
    let kind = &machine.instance_type;
    if !limits::takes_prefixes(kind) {
        return Err(format!(
            "ENABLE_IPv6 is set, but interfaces of instance type {kind} take no prefixes: use one on the Nitro hypervisor"
        ));
    }
    let own = around.imds.primary_ipv6().await.map_err(|e| e.to_string())?;
    machine.local_ipv6 = Some(own.ok_or_else(|| {
        "ENABLE_IPv6 is set, but the instance has no IPv6 address: give its primary interface one, and its subnet an IPv6 CIDR"
            .to_owned()
    })?);
    let cidrs = around.imds.vpc_ipv6_cidrs(&machine.mac).await;
    cidrs.map_err(|e| e.to_string())
}

fn machine(instance: &InstanceFacts) -> Machine {
    let id = &instance.identity;
    Machine {
        instance_id: id.instance_id.clone(),
        instance_type: id.instance_type.clone(),
        region: id.region.clone(),
        availability_zone: id.availability_zone.clone(),
        vpc_id: instance.vpc_id.clone(),
        mac: id.mac.clone(),
        local_ipv4: Some(id.local_ipv4),
        local_ipv6: None,
    }
}

/// What an earlier life on this instance knew is good enough to begin with: it is asked for again when it matters.
async fn zone_of(around: &Surroundings, ec2: &Ec2, machine: &Machine, found: &Found) -> Option<Zone> {
    if !around.aims.needs_zone() {
        return None;
    }
    let earlier = found.state.as_ref().map(|s| &s.facts);
    let earlier = earlier.filter(|f| f.machine.instance_id == machine.instance_id);
    match earlier.and_then(|f| f.zone.clone()) {
        Some(zone) => Some(zone),
        None => zone::describe_at_start(ec2, machine).await,
    }
}

/// From the table, else from an earlier life, else from EC2.
async fn limits_of(imds_only: bool, ec2: &Ec2, machine: &Machine, found: &Found) -> Result<Limits, String> {
    if let Some(known) = vpcnet_limits::lookup(&machine.instance_type) {
        return Ok(limits::of_type(known));
    }
    if let Some(state) = found
        .state
        .as_ref()
        .filter(|s| s.facts.machine.instance_type == machine.instance_type)
    {
        return Ok(state.facts.limits.clone());
    }
    if imds_only {
        return Err(format!(
            "the limits of instance type {} are not in the built-in table, and ENABLE_IMDS_ONLY_MODE forbids to ask EC2 for them",
            machine.instance_type
        ));
    }
    match ec2.instance_limits(&machine.instance_type).await {
        Ok(limits) => Ok(limits::of_type(&limits)),
        Err(error) => Err(format!(
            "the limits of instance type {} are not in the built-in table and EC2 does not tell them: {error}",
            machine.instance_type
        )),
    }
}

/// With only the primary interface, and interfaces of others, there is nothing to apply groups to. Otherwise, unless we remember, the first look at
/// them applies them, as the original does.
fn applied(found: &Found, groups: &[String], interfaces: &[InterfaceFacts]) -> Vec<String> {
    match &found.state {
        _ if !interfaces.iter().any(takes_groups) => groups.to_vec(),
        Some(state) => state.facts.applied_groups.clone(),
        None => Vec::new(),
    }
}

/// Random, so that a life without memory of an earlier one asks EC2 for new things and not for the old ones.
fn salt() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness the boot's id and the clock must do.
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        return format!("{}-{}", super::boot_id(), clock::now().wall_ns);
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use vpcnet_cloud::{CredentialProvider, CredentialSource, Ec2Config, Imds};
    use vpcnet_ipam::Journal;

    use super::*;
    use crate::state::StateFile;

    /// EC2 at this address.
    fn ec2(endpoint: String) -> Ec2 {
        let imds = Imds::new(Some("http://127.0.0.1:1".into())).unwrap();
        let keys = |name: &str| {
            let known = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(&name);
            known.then(|| "x".to_owned())
        };
        let source = CredentialSource::from_environment(&keys, &imds, "eu-west-1").unwrap();
        let mut config = Ec2Config::new("eu-west-1", CredentialProvider::new(source).unwrap());
        config.endpoint = Some(endpoint);
        Ec2::new(config).unwrap()
    }

    /// Answers every request with this.
    fn answering(body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // The request may come in pieces; its end is that of the form's last field.
                let mut seen = Vec::new();
                let mut piece = [0; 4096];
                while !String::from_utf8_lossy(&seen).contains("InstanceType.1=") {
                    let n = stream.read(&mut piece).unwrap();
                    if n == 0 {
                        break;
                    }
                    seen.extend_from_slice(&piece[..n]);
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + body).as_bytes()).unwrap();
            }
        });
        format!("http://{address}")
    }

    fn machine(instance_type: &str) -> Machine {
        Machine {
            instance_type: instance_type.into(),
            ..Machine::default()
        }
    }

    /// An earlier life on such a machine, with such limits.
    fn earlier(instance_type: &str, limits: &Limits) -> Found {
        let facts = Facts {
            machine: machine(instance_type),
            limits: limits.clone(),
            ..Facts::default()
        };
        let identity = super::identity(&facts.machine, "salt");
        let valid = limits::of_type(vpcnet_limits::lookup("m5.large").unwrap());
        let journal: Journal = Pool::new(identity, valid, vpcnet_ipam::Targets::default())
            .unwrap()
            .journal();
        let bytes = StateFile::write(&facts, &journal).unwrap();
        Found {
            state: Some(StateFile::parse(&bytes).unwrap()),
            ..Found::default()
        }
    }

    #[tokio::test]
    async fn a_type_that_the_table_lacks_has_the_limits_of_the_earlier_life_else_those_that_ec2_tells() {
        let away = || ec2("http://127.0.0.1:1".into());
        let known = limits_of(false, &away(), &machine("m5.large"), &Found::default())
            .await
            .unwrap();
        assert_eq!(known.ipv4_per_interface, 10, "the table needs nobody");
        let remembered = Limits {
            ipv4_per_interface: 77,
            ..known.clone()
        };
        let found = earlier("x9.huge", &remembered);
        assert_eq!(
            limits_of(false, &away(), &machine("x9.huge"), &found)
                .await
                .unwrap(),
            remembered
        );
        // Another type was there: its limits are not this one's.
        let why = limits_of(false, &away(), &machine("x9.small"), &found)
            .await
            .unwrap_err();
        assert!(
            why.contains("x9.small are not in the built-in table and EC2 does not tell them"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn ec2_is_not_asked_where_only_imds_may_be() {
        let why = limits_of(true, &ec2(answering("")), &machine("x9.huge"), &Found::default())
            .await
            .unwrap_err();
        assert!(
            why.contains("x9.huge") && why.contains("ENABLE_IMDS_ONLY_MODE"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn limits_that_make_no_sense_are_named_and_not_taken() {
        for (body, reason) in [
            (
                "<DescribeInstanceTypesResponse><instanceTypeSet><item><instanceType>x9.huge</instanceType><networkInfo><maximumNetworkInterfaces>many</maximumNetworkInterfaces></networkInfo></item></instanceTypeSet></DescribeInstanceTypesResponse>",
                "many",
            ),
            (
                "<DescribeInstanceTypesResponse><instanceTypeSet><item><instanceType>x9.huge</instanceType></item></instanceTypeSet></DescribeInstanceTypesResponse>",
                "no interface and address limits for x9.huge",
            ),
            (
                "<DescribeInstanceTypesResponse><instanceTypeSet/></DescribeInstanceTypesResponse>",
                "x9.huge",
            ),
            ("<DescribeInstanceTypesResponse><instanceTypeSet>", "ends before"),
            ("<html>502 Bad Gateway</html>", "no DescribeInstanceTypesResponse"),
        ] {
            let ec2 = ec2(answering(body));
            let why = limits_of(false, &ec2, &machine("x9.huge"), &Found::default())
                .await
                .unwrap_err();
            assert!(why.contains("x9.huge") && why.contains(reason), "{body}: {why}");
        }
    }
}
