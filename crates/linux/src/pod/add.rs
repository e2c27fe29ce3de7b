//! Making a pod's interfaces: three sends, however many pods there are.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{Added, FROM_POD_RULE, PodError, PodInterface, Step, TO_POD_RULE, any_from_rule, validate};
use crate::netlink::{Device, Errno, MAIN, Neighbour, Refusal, Request, Route, Rule, Socket, Veth};
use crate::netns::Netns;
use crate::sysctl::Tree;

/// First and longest pause between looks at an IPv6 address that is not usable yet: a look costs some 10 µs, an ADD some 2 ms.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_micros(30), Duration::from_millis(1));
/// How long an IPv6 address may stay unusable.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);

/// [`add_by`] for a caller who has no socket of the pod's namespace.
///
/// # Errors
/// As [`add_by`].
pub fn add(host: &mut Socket, pod: &Netns, interfaces: &[PodInterface]) -> Result<Vec<Added>, PodError> {
    let mut inside = Socket::open_in(pod).map_err(PodError::kernel(Step::Look))?;
    add_by(host, pod, &mut inside, interfaces)
}

/// Makes the interfaces of a pod. `host` must be a socket of the namespace the calling thread is in, `inside` one of the
/// pod's.
///
/// First everything is checked that can be; then the veth pairs are made (one send), the pod's ends are set up (one
/// send), the host's routes and rules are written (one send). A host link of the same name, left by an earlier pod of the
/// same name (StatefulSets), is deleted first. Rules that an earlier owner of the address left are replaced.
///
/// # Errors
/// [`PodError`]; the kernel is then as before the call, except that a stale link and stale rules of nobody stay deleted,
/// and for what [`PodError::left_behind`] names.
pub fn add_by(
    host: &mut Socket,
    pod: &Netns,
    inside: &mut Socket,
    interfaces: &[PodInterface],
) -> Result<Vec<Added>, PodError> {
    validate::interfaces(interfaces)?;
    if pod.is_current()? {
        return Err(PodError::HostNamespace {
            path: pod.path().to_path_buf(),
        });
    }
    for one in interfaces {
        if inside
            .index_of(&one.name)
            .map_err(PodError::kernel(Step::Look))?
            .is_some()
        {
            return Err(PodError::NameTaken {
                name: one.name.clone(),
                netns: pod.path().to_path_buf(),
            });
        }
    }
    let stale = stale_links(host, interfaces)?;
    run_all(host, Step::Stale, &stale, &[Errno::NODEV])?;

    let mut done = Done::default();
    match wire(host, inside, pod, interfaces, &mut done) {
        Ok(added) => Ok(added),
        Err(error) => Err(error.with_undo(done.undo(host, inside))),
    }
}

/// Deletes for the links in our way, all of them veths.
fn stale_links(host: &mut Socket, interfaces: &[PodInterface]) -> Result<Vec<Request>, PodError> {
    let look = PodError::kernel(Step::Stale);
    let mut stale = Vec::new();
    for one in interfaces {
        // An ioctl for the common case; only a hit is worth a message.
        if host.index_of(&one.host_name).map_err(&look)?.is_none() {
            continue;
        }
        let Some(link) = host.link(&one.host_name).map_err(&look)? else {
            continue;
        };
        if link.kind.as_deref() != Some("veth") {
            let kind = link.kind.unwrap_or_else(|| "physical".to_owned());
            return Err(PodError::HostNameTaken {
                name: one.host_name.clone(),
                kind,
            });
        }
        stale.push(Request::DeleteLink(link.device()));
    }
    Ok(stale)
}

/// What was made so far.
#[derive(Default)]
struct Done {
    links: Vec<String>,
    rules: Vec<Rule>,
    pod_rules: Vec<Rule>,
}

impl Done {
    /// Unmakes it; a link takes its peer, routes and addresses along. Gives what stays, in words.
    fn undo(self, host: &mut Socket, inside: &mut Socket) -> Vec<String> {
        let rules = self.rules.into_iter().map(Request::DeleteRule);
        let links = self
            .links
            .into_iter()
            .map(|name| Request::DeleteLink(Device::named(name)));
        let mut left = unmake(host, rules.chain(links).collect());
        left.extend(unmake(
            inside,
            self.pod_rules.into_iter().map(Request::DeleteRule).collect(),
        ));
        left
    }
}

/// Runs deletes to the end; gives those that failed.
fn unmake(socket: &mut Socket, requests: Vec<Request>) -> Vec<String> {
    if requests.is_empty() {
        return Vec::new();
    }
    let outcomes = match socket.run(&requests) {
        Ok(outcomes) => outcomes,
        Err(error) => return vec![error.to_string()],
    };
    let refusals = outcomes.into_iter().filter_map(Result::err);
    let real = refusals.filter(|refusal| !matches!(refusal.errno, Errno::NODEV | Errno::NOENT));
    real.map(|refusal| refusal.to_string()).collect()
}

fn wire(
    host: &mut Socket,
    inside: &mut Socket,
    pod: &Netns,
    interfaces: &[PodInterface],
    done: &mut Done,
) -> Result<Vec<Added>, PodError> {
    make_pairs(host, pod, interfaces, done)?;
    let added = interfaces
        .iter()
        .map(|one| indices(host, inside, one))
        .collect::<Result<Vec<_>, _>>()?;
    quiet_host_ends(interfaces)?;
    if interfaces.iter().any(|one| one.address.is_ipv6()) {
        enable_ipv6(pod, interfaces)?;
    }
    let pairs = || interfaces.iter().zip(&added);
    let in_pod: Vec<Request> = pairs().flat_map(|(one, at)| in_pod(one, at)).collect();
    let outcomes = inside.run(&in_pod).map_err(PodError::kernel(Step::Pod))?;
    let mut first: Result<(), Refusal> = Ok(());
    for (request, outcome) in in_pod.into_iter().zip(outcomes) {
        match (request, outcome) {
            (Request::AddRule(rule), Ok(())) => done.pod_rules.push(rule),
            (Request::AddRule(_), Err(refusal)) if refusal.errno == Errno::EXIST => {}
            (_, outcome) => first = first.and(outcome),
        }
    }
    first.map_err(|refusal| PodError::kernel(Step::Pod)(refusal.into()))?;
    on_host(host, interfaces, &added, done)?;
    await_addresses(inside, interfaces)?;
    Ok(added)
}

/// An IPv6 address can be used only after a work queue of the kernel's has looked at it, even if it is not to be checked
/// for duplicates. That takes some 10 µs, longer on a busy machine. Waits for the local route, which comes after the end of
/// IFA_F_TENTATIVE: between the two, packets to the address are refused.
fn await_addresses(inside: &mut Socket, interfaces: &[PodInterface]) -> Result<(), PodError> {
    let begin = Instant::now();
    let mut pause = LOOK_AGAIN.0;
    for one in interfaces.iter().filter(|one| one.address.is_ipv6()) {
        while !inside
            .is_local(one.address)
            .map_err(PodError::kernel(Step::Pod))?
        {
            if begin.elapsed() > ADDRESS_LIMIT {
                return Err(PodError::NotReady {
                    address: one.address,
                    undo: Vec::new(),
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
    }
    Ok(())
}

fn make_pairs(
    host: &mut Socket,
    pod: &Netns,
    interfaces: &[PodInterface],
    done: &mut Done,
) -> Result<(), PodError> {
    let requests: Vec<Request> = interfaces
        .iter()
        .map(|one| {
            Request::CreateVeth(Veth {
                name: one.host_name.clone(),
                mac: one.host_mac,
                peer_name: one.name.clone(),
                peer_mac: one.mac,
                peer_netns: pod.as_fd().as_raw_fd(),
                mtu: one.mtu,
            })
        })
        .collect();
    let outcomes = match host.run(&requests) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            // What was made is not known; the names were free a moment ago, so what has them now is ours.
            done.links
                .extend(interfaces.iter().map(|one| one.host_name.clone()));
            return Err(PodError::kernel(Step::Veth)(error));
        }
    };
    let mut first = Ok(());
    for (one, outcome) in interfaces.iter().zip(outcomes) {
        match outcome {
            Ok(()) => done.links.push(one.host_name.clone()),
            Err(refusal) => first = first.and(Err(refusal)),
        }
    }
    first.map_err(|refusal| PodError::kernel(Step::Veth)(refusal.into()))
}

/// Both ends' indices by ioctl, which is cheaper than NLM_F_ECHO and works on every kernel.
fn indices(host: &Socket, inside: &Socket, one: &PodInterface) -> Result<Added, PodError> {
    let find = |socket: &Socket, name: &str| {
        let index = socket.index_of(name).map_err(PodError::kernel(Step::Veth))?;
        index.ok_or_else(|| PodError::Vanished {
            step: Step::Veth,
            name: name.to_owned(),
            undo: Vec::new(),
        })
    };
    Ok(Added {
        host_index: find(host, &one.host_name)?,
        index: find(inside, &one.name)?,
    })
}

/// The host's end must not learn routes or addresses from what a pod sends. Written before the pod's end is up, so
/// that no packet comes before.
fn quiet_host_ends(interfaces: &[PodInterface]) -> Result<(), PodError> {
    let sysctl = Tree::default();
    for one in interfaces {
        for (parameter, value) in [("accept_ra", "0"), ("accept_redirects", "1"), ("forwarding", "0")] {
            let key = format!("net/ipv6/conf/{}/{parameter}", one.host_name);
            let done = match parameter {
                // Any write of it wants the lock of all network changes, and while another has it the kernel lets the call
                // run again and again, on a full processor. A new link mostly has the value.
                "forwarding" => sysctl.ensure(&key, value).map(drop),
                _ => sysctl.write(&key, value),
            };
            match done {
                Ok(()) => {}
                // No IPv6 in this kernel: nothing to keep quiet.
                Err(error) if error.is_missing() => break,
                Err(source) => {
                    return Err(PodError::Sysctl {
                        step: Step::Sysctl,
                        source,
                        undo: Vec::new(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Runtimes may switch IPv6 off in new namespaces.
fn enable_ipv6(pod: &Netns, interfaces: &[PodInterface]) -> Result<(), PodError> {
    let names = interfaces
        .iter()
        .filter(|one| one.address.is_ipv6())
        .map(|one| one.name.as_str())
        .chain(["lo"]);
    let keys: Vec<String> = names
        .map(|name| format!("net/ipv6/conf/{name}/disable_ipv6"))
        .collect();
    let written = pod.within(|| {
        let sysctl = Tree::default();
        keys.iter().try_for_each(|key| match sysctl.ensure(key, "0") {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        })
    })?;
    written.map_err(|source| PodError::Sysctl {
        step: Step::Pod,
        source,
        undo: Vec::new(),
    })
}

fn in_pod(one: &PodInterface, at: &Added) -> impl Iterator<Item = Request> {
    let device = Device::new(at.index, one.name.clone());
    let gateway = one.gateway();
    let table = one.pod_table();
    let no_dad = one.address.is_ipv6();
    [
        Request::SetLink {
            device: device.clone(),
            up: Some(true),
            mtu: None,
        },
        // IPv6: nobody else can have the address, and asking holds back the first packet for 1.8 s.
        Request::AddAddress {
            device: device.clone(),
            net: one.net(),
            no_dad,
            no_prefix_route: false,
        },
        Request::ReplaceRoute(Route::on_link(IpNet::from(gateway), device.clone(), table)),
        Request::AddRoute(Route::default_by(gateway, device.clone(), table, true)),
        Request::SetNeighbour(Neighbour {
            device,
            address: gateway,
            mac: one.host_mac,
            permanent: true,
        }),
    ]
    .into_iter()
    .chain(one.pod_rule().map(Request::AddRule))
}

fn on_host(
    host: &mut Socket,
    interfaces: &[PodInterface],
    added: &[Added],
    done: &mut Done,
) -> Result<(), PodError> {
    let mut requests = Vec::with_capacity(interfaces.len() * 5);
    for (one, at) in interfaces.iter().zip(added) {
        let device = one.host_device(at.host_index);
        // An earlier owner's rule would lead the pod's packets to another ENI, where the VPC drops them. Rules are
        // searched in order and the oldest wins, so it must go; without a table the kernel deletes the first match.
        requests.push(Request::DeleteRule(any_from_rule(one.address)));
        requests.push(Request::ReplaceRoute(Route::on_link(
            one.net(),
            device.clone(),
            MAIN,
        )));
        // Else the answer to the pod's first packet may be lost, and comes after a second by TCP's repetition.
        requests.push(Request::AwaitCarrier(device.clone()));
        requests.extend(one.host_rules().map(Request::AddRule));
        if one.address.is_ipv6() {
            // Without it the host asks for the pod's MAC, from a link-local address that is still being checked for
            // duplicates: the first packet would wait for 2 s.
            let neighbour = Neighbour {
                device,
                address: one.address,
                mac: one.mac,
                permanent: true,
            };
            requests.push(Request::SetNeighbour(neighbour));
        }
    }
    let outcomes = match host.run(&requests) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            done.rules
                .extend(interfaces.iter().flat_map(PodInterface::host_rules));
            return Err(PodError::kernel(Step::Host)(error));
        }
    };
    let mut first: Result<(), Refusal> = Ok(());
    let mut others = false;
    for (request, outcome) in requests.iter().zip(outcomes) {
        match (request, outcome) {
            (Request::DeleteRule(_), Ok(())) => others = true,
            (Request::DeleteRule(_), Err(refusal)) if refusal.errno == Errno::NOENT => {}
            (Request::AddRule(rule), Ok(())) => done.rules.push(rule.clone()),
            (Request::AddRule(_), Err(refusal)) if refusal.errno == Errno::EXIST => others = true,
            (_, Ok(())) => {}
            (_, Err(refusal)) => first = first.and(Err(refusal)),
        }
    }
    first.map_err(|refusal| PodError::kernel(Step::Host)(refusal.into()))?;
    if others {
        settle_rules(host, interfaces, done)
    } else {
        Ok(())
    }
}

/// There was a rule of an earlier owner, so there may be more: old releases wrote one for each CIDR of the VPC. And
/// EEXIST is no proof that *our* rule is there: the kernel's comparison passes over selectors that the new rule lacks, so
/// "from A to B" makes "from A" exist. Only in these cases is reading the whole list worth its price.
fn settle_rules(host: &mut Socket, interfaces: &[PodInterface], done: &mut Done) -> Result<(), PodError> {
    let fail = PodError::kernel(Step::Host);
    let mut present = host.rules(false).map_err(&fail)?;
    if interfaces.iter().any(|one| one.address.is_ipv6()) {
        present.extend(host.rules(true).map_err(&fail)?);
    }
    let wanted: Vec<Rule> = interfaces.iter().flat_map(PodInterface::host_rules).collect();
    let about_us = |rule: &Rule| {
        interfaces.iter().any(|one| match rule.priority {
            TO_POD_RULE => rule.to == Some(one.net()),
            FROM_POD_RULE => rule.from == Some(one.net()),
            _ => false,
        })
    };
    // Not those without a table (a delete without one would match ours too); and those with more selectors first,
    // since a delete also matches rules with selectors that it lacks.
    let mut stale: Vec<&Rule> = present
        .iter()
        .filter(|rule| rule.table.is_some() && about_us(rule))
        .collect();
    stale.retain(|rule| !wanted.contains(rule));
    stale.sort_by_key(|rule| rule.from.is_none() || rule.to.is_none());
    let stale: Vec<Request> = stale.into_iter().cloned().map(Request::DeleteRule).collect();
    run_all(host, Step::Host, &stale, &[Errno::NOENT])?;
    for rule in wanted.into_iter().filter(|rule| !present.contains(rule)) {
        host.run_one(Request::AddRule(rule.clone())).map_err(&fail)?;
        done.rules.push(rule);
    }
    Ok(())
}

/// Runs a batch; the first refusal that is not tolerated is the error.
fn run_all(
    socket: &mut Socket,
    step: Step,
    requests: &[Request],
    tolerated: &[Errno],
) -> Result<(), PodError> {
    if requests.is_empty() {
        return Ok(());
    }
    for outcome in socket.run(requests).map_err(PodError::kernel(step))? {
        match outcome {
            Err(refusal) if !tolerated.contains(&refusal.errno) => {
                return Err(PodError::kernel(step)(refusal.into()));
            }
            _ => {}
        }
    }
    Ok(())
}
