//! Every operation against moto's server, an EC2 that nobody here wrote.
//!
//! Needs `moto_server` of PyPI's `moto` (the version in `tests/requirements.txt`): `make test-tools` installs it under `target/venv`; `VPCNET_MOTO` names
//! another. What moto does not do as EC2 does (it lists every address where EC2 lists the new ones, ignores prefixes, limits, client tokens and pages,
//! attaches to a used index, deletes what is attached, tags what does not exist) is not asked for here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use vpcnet_cloud::{
    AddressRequest, AttachNetworkInterface, CreateNetworkInterface, CredentialProvider, CredentialSource,
    Credentials, Ec2, Ec2Config, Ec2Error, ErrorClass, Filter, Imds, InterfaceChange, NetworkInterface, Tag,
};

/// A running moto server. It ends when the last test lets go of it, or when this process ends, however it ends: a shell waits for the other end of
/// its standard input to close.
struct Moto {
    shell: Child,
    stdin: Option<ChildStdin>,
    address: String,
}

fn executable() -> PathBuf {
    let path = std::env::var_os("VPCNET_MOTO").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../target/venv/bin/moto_server"
            ))
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "no moto server at {}: run `make test-tools`, or set VPCNET_MOTO",
        path.display()
    );
    path
}

impl Moto {
    fn start() -> Self {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                // The shell lets go of the log, so that its end is the server's end.
                r#""$0" -H 127.0.0.1 -p 0 <&- & child=$!; exec 2>&-; read -r _; kill "$child"; wait"#,
            ])
            .arg(executable())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let stdin = shell.stdin.take();
        let mut log = BufReader::new(shell.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            if log.read_line(&mut line).unwrap_or(0) == 0 {
                panic!("moto ended before it served:\n{said}");
            }
            said.push_str(&line);
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address.split_whitespace().next().unwrap().to_owned();
            }
        };
        // It logs every request: somebody has to read that, or it stops at a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            shell,
            stdin,
            address,
        }
    }

    /// The server all tests of this process share.
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Moto>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::start());
            *shared = Arc::downgrade(&new);
            new
        })
    }

    fn client(&self) -> Ec2 {
        let source = CredentialSource::Static(Credentials::new("AKIDEXAMPLE", "secret", None));
        let mut config = Ec2Config::new("eu-west-1", CredentialProvider::new(source).unwrap());
        config.endpoint = Some(format!("http://{}", self.address));
        Ec2::new(config).unwrap()
    }

    /// An action this crate does not have, to set the scene; the text of an element of its answer.
    fn arrange(&self, form: &str, element: &str) -> String {
        let body = format!("Version=2016-11-15&{form}");
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-west-1/ec2/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let inside = answer
            .split_once(&format!("<{element}>"))
            .and_then(|(_, rest)| rest.split_once('<'));
        inside
            .unwrap_or_else(|| panic!("no <{element}> in {answer}"))
            .0
            .to_owned()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A VPC with a subnet and a security group, its own for each test.
struct Scene {
    moto: Arc<Moto>,
    ec2: Ec2,
    vpc: String,
    subnet: String,
    group: String,
}

impl Scene {
    fn new() -> Self {
        let moto = Moto::shared();
        let vpc = moto.arrange("Action=CreateVpc&CidrBlock=10.0.0.0/16", "vpcId");
        let subnet = moto.arrange(
            &format!("Action=CreateSubnet&VpcId={vpc}&CidrBlock=10.0.0.0/24&AvailabilityZone=eu-west-1a"),
            "subnetId",
        );
        let group = moto.arrange(
            &format!("Action=CreateSecurityGroup&VpcId={vpc}&GroupName=nodes&GroupDescription=d"),
            "groupId",
        );
        Self {
            ec2: moto.client(),
            moto,
            vpc,
            subnet,
            group,
        }
    }

    fn instance(&self) -> String {
        let form = format!(
            "Action=RunInstances&ImageId=ami-12c6146b&MinCount=1&MaxCount=1&InstanceType=m5.large&SubnetId={}",
            self.subnet
        );
        self.moto.arrange(&form, "instanceId")
    }

    async fn interface(&self, ipv4: Option<AddressRequest>) -> Result<NetworkInterface, Ec2Error> {
        let new = CreateNetworkInterface {
            subnet_id: self.subnet.clone(),
            groups: vec![self.group.clone()],
            description: "aws-K8S-i-0 & <co>".to_owned(),
            client_token: format!("token-{}", self.subnet),
            tags: vec![
                Tag::new("node.k8s.amazonaws.com/instance_id", "i-0"),
                Tag::new("päth", "a/b c+d=é"),
            ],
            ipv4,
            ipv6_prefixes: 0,
            connection_tracking: None,
        };
        self.ec2.create_network_interface(&new).await
    }

    async fn read(&self, id: &str) -> NetworkInterface {
        let found = self
            .ec2
            .describe_network_interfaces(&[id.to_owned()])
            .await
            .unwrap();
        let [one] = found.as_slice() else {
            panic!("one: {found:?}")
        };
        one.clone()
    }
}

#[tokio::test]
async fn create_network_interface_and_describe_network_interfaces() {
    let scene = Scene::new();
    let made = scene.interface(Some(AddressRequest::Addresses(3))).await.unwrap();
    assert!(made.id.starts_with("eni-"));
    assert_eq!((&made.subnet_id, &made.vpc_id), (&scene.subnet, &scene.vpc));
    assert_eq!(made.private_ip_addresses.len(), 4);
    assert_eq!(made.secondary_addresses().count(), 3);
    assert_eq!(
        made.private_ip_addresses
            .iter()
            .find(|a| a.primary)
            .map(|a| a.address),
        made.private_ip_address
    );
    assert_eq!(made.tag("node.k8s.amazonaws.com/instance_id"), Some("i-0"));
    assert_eq!(
        made.tag("päth"),
        Some("a/b c+d=é"),
        "what goes out encoded comes back as it was"
    );
    assert_eq!(made.description, "aws-K8S-i-0 & <co>");
    assert_eq!(made.groups.first().map(|g| &g.group_id), Some(&scene.group));
    let read = scene.read(&made.id).await;
    assert_eq!(
        (read.mac_address, read.private_ip_addresses),
        (made.mac_address, made.private_ip_addresses)
    );
}

#[tokio::test]
async fn describe_network_interfaces_by_filter() {
    let scene = Scene::new();
    let mine = scene.interface(None).await.unwrap();
    let other = scene.interface(None).await.unwrap();
    scene
        .ec2
        .create_tags(&[other.id], &[Tag::new("mark", "x")])
        .await
        .unwrap();
    let filters = [
        Filter::new("vpc-id", &scene.vpc),
        Filter::new("status", "available"),
    ];
    assert_eq!(
        scene.ec2.find_network_interfaces(&filters).await.unwrap().len(),
        2
    );
    let filters = [Filter::new("vpc-id", &scene.vpc), Filter::new("tag:mark", "x")];
    let marked = scene.ec2.find_network_interfaces(&filters).await.unwrap();
    assert_eq!(marked.len(), 1);
    assert_ne!(marked.first().unwrap().id, mine.id);
}

#[tokio::test]
async fn interfaces_that_do_not_exist() {
    let scene = Scene::new();
    let real = scene.interface(None).await.unwrap();
    let unreal = "eni-00000000000000000".to_owned();
    let error = scene
        .ec2
        .describe_network_interfaces(std::slice::from_ref(&unreal))
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str()),
        (ErrorClass::Gone, "InvalidNetworkInterfaceID.NotFound")
    );
    assert_eq!(error.missing_interfaces(), [unreal.as_str()]);
    let present = scene
        .ec2
        .describe_present_network_interfaces(&[unreal.clone(), real.id.clone()])
        .await
        .unwrap();
    assert_eq!(present.missing, std::slice::from_ref(&unreal));
    assert_eq!(
        present.found.iter().map(|i| &i.id).collect::<Vec<_>>(),
        [&real.id]
    );
    let error = scene.ec2.delete_network_interface(&unreal).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Gone);
}

#[tokio::test]
async fn delete_network_interface() {
    let scene = Scene::new();
    let made = scene.interface(None).await.unwrap();
    scene.ec2.delete_network_interface(&made.id).await.unwrap();
    assert_eq!(
        scene
            .ec2
            .describe_network_interfaces(&[made.id])
            .await
            .unwrap_err()
            .class,
        ErrorClass::Gone
    );
}

#[tokio::test]
async fn attach_describe_instances_and_detach() {
    let scene = Scene::new();
    let instance = scene.instance();
    let made = scene.interface(None).await.unwrap();
    let attached = scene
        .ec2
        .attach_network_interface(&AttachNetworkInterface {
            interface_id: made.id.clone(),
            instance_id: instance.clone(),
            device_index: 1,
            network_card_index: 0,
        })
        .await
        .unwrap();
    assert!(attached.attachment_id.starts_with("eni-attach-"));
    let read = scene.read(&made.id).await;
    let attachment = read.attachment.unwrap();
    assert_eq!(
        (attachment.id.as_str(), attachment.instance_id.as_str()),
        (attached.attachment_id.as_str(), instance.as_str())
    );
    assert_eq!(attachment.device_index, Some(1));

    let found = scene
        .ec2
        .describe_instances(std::slice::from_ref(&instance))
        .await
        .unwrap();
    let shown = found.first().unwrap();
    assert_eq!(
        (shown.id.as_str(), shown.instance_type.as_str(), shown.state()),
        (instance.as_str(), "m5.large", "running")
    );
    assert_eq!(shown.used_device_indexes(0), [0, 1]);
    assert_eq!((&shown.subnet_id, &shown.vpc_id), (&scene.subnet, &scene.vpc));
    let filtered = scene
        .ec2
        .find_instances(&[Filter::new("vpc-id", &scene.vpc)])
        .await
        .unwrap();
    assert_eq!(filtered.iter().map(|i| &i.id).collect::<Vec<_>>(), [&instance]);

    scene
        .ec2
        .detach_network_interface(&attached.attachment_id, false)
        .await
        .unwrap();
    assert_eq!(scene.read(&made.id).await.status, "available");
    let error = scene
        .ec2
        .detach_network_interface("eni-attach-00000000", true)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Gone, "{error}");
    let error = scene
        .ec2
        .describe_instances(&["i-00000000000000000".to_owned()])
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Gone, "{error}");
}

#[tokio::test]
async fn modify_network_interface_attribute() {
    let scene = Scene::new();
    let made = scene.interface(None).await.unwrap();
    let other = scene.moto.arrange(
        &format!(
            "Action=CreateSecurityGroup&VpcId={}&GroupName=other&GroupDescription=d",
            scene.vpc
        ),
        "groupId",
    );
    for change in [
        InterfaceChange::Groups(vec![other.clone()]),
        InterfaceChange::SourceDestCheck(false),
        InterfaceChange::Description("new words".to_owned()),
    ] {
        scene
            .ec2
            .modify_network_interface_attribute(&made.id, &change)
            .await
            .unwrap();
    }
    let read = scene.read(&made.id).await;
    assert_eq!(
        read.groups.iter().map(|g| &g.group_id).collect::<Vec<_>>(),
        [&other]
    );
    assert_eq!(
        (read.source_dest_check, read.description.as_str()),
        (Some(false), "new words")
    );
    // moto takes this one and forgets it.
    let delete = InterfaceChange::DeleteOnTermination {
        attachment_id: "eni-attach-1".to_owned(),
        delete: true,
    };
    scene
        .ec2
        .modify_network_interface_attribute(&made.id, &delete)
        .await
        .unwrap();
}

#[tokio::test]
async fn assign_and_unassign_private_ip_addresses() {
    let scene = Scene::new();
    let made = scene.interface(None).await.unwrap();
    let given = scene
        .ec2
        .assign_private_ip_addresses(&made.id, AddressRequest::Addresses(2))
        .await
        .unwrap();
    let new: Vec<_> = given
        .addresses
        .iter()
        .filter(|a| Some(**a) != made.private_ip_address)
        .copied()
        .collect();
    assert_eq!(new.len(), 2);
    let read = scene.read(&made.id).await;
    assert_eq!(read.secondary_addresses().collect::<Vec<_>>(), new);
    scene
        .ec2
        .unassign_private_ip_addresses(&made.id, new.get(..1).unwrap(), &[])
        .await
        .unwrap();
    let read = scene.read(&made.id).await;
    assert_eq!(
        read.secondary_addresses().collect::<Vec<_>>(),
        new.get(1..).unwrap()
    );
    // moto ignores prefixes: that the call is taken, and its answer read, is all there is to see.
    scene
        .ec2
        .assign_private_ip_addresses(&made.id, AddressRequest::Prefixes(1))
        .await
        .unwrap();
    scene
        .ec2
        .unassign_private_ip_addresses(&made.id, &[], &["10.0.0.64/28".parse().unwrap()])
        .await
        .unwrap();
}

#[tokio::test]
async fn assign_and_unassign_ipv6_addresses() {
    let scene = Scene::new();
    let subnet = scene.moto.arrange(
        &format!(
            "Action=CreateSubnet&VpcId={}&CidrBlock=10.0.1.0/24&Ipv6CidrBlock=2001:db8:1:2::/64",
            scene.vpc
        ),
        "subnetId",
    );
    let scene = Scene { subnet, ..scene };
    let made = scene.interface(None).await.unwrap();
    let given = scene.ec2.assign_ipv6_addresses(&made.id, 2, 0).await.unwrap();
    assert_eq!(given.addresses.len(), 2);
    let read = scene.read(&made.id).await;
    assert_eq!(read.ipv6_addresses, given.addresses);
    scene
        .ec2
        .unassign_ipv6_addresses(&made.id, given.addresses.get(..1).unwrap(), &[])
        .await
        .unwrap();
    assert_eq!(
        scene.read(&made.id).await.ipv6_addresses,
        given.addresses.get(1..).unwrap()
    );
}

#[tokio::test]
async fn create_tags_and_delete_tags() {
    let scene = Scene::new();
    let made = scene.interface(None).await.unwrap();
    let ids = [made.id.clone()];
    scene
        .ec2
        .create_tags(&ids, &[Tag::new("one", "1"), Tag::new("two", "2")])
        .await
        .unwrap();
    scene
        .ec2
        .create_tags(&ids, &[Tag::new("one", "changed")])
        .await
        .unwrap();
    scene
        .ec2
        .delete_tags(&ids, &["two".to_owned(), "never there".to_owned()])
        .await
        .unwrap();
    let read = scene.read(&made.id).await;
    assert_eq!((read.tag("one"), read.tag("two")), (Some("changed"), None));
}

#[tokio::test]
async fn describe_subnets_vpcs_and_security_groups() {
    let scene = Scene::new();
    scene
        .ec2
        .create_tags(
            std::slice::from_ref(&scene.subnet),
            &[Tag::new("kubernetes.io/role/cni", "1")],
        )
        .await
        .unwrap();
    let found = scene
        .ec2
        .describe_subnets(std::slice::from_ref(&scene.subnet), &[])
        .await
        .unwrap();
    let subnet = found.first().unwrap();
    assert_eq!(
        (
            subnet.available_ip_address_count,
            subnet.availability_zone.as_str()
        ),
        (Some(251), "eu-west-1a")
    );
    assert_eq!(
        (subnet.ipv4_cidr, subnet.tag("kubernetes.io/role/cni")),
        ("10.0.0.0/24".parse().ok(), Some("1"))
    );
    let filters = [
        Filter::new("vpc-id", &scene.vpc),
        Filter::new("availability-zone", "eu-west-1a"),
    ];
    assert_eq!(&scene.ec2.describe_subnets(&[], &filters).await.unwrap(), &found);
    let none = [
        Filter::new("vpc-id", &scene.vpc),
        Filter::new("availability-zone", "eu-west-1b"),
    ];
    assert!(scene.ec2.describe_subnets(&[], &none).await.unwrap().is_empty());
    let error = scene
        .ec2
        .describe_subnets(&["subnet-00000000".to_owned()], &[])
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Gone);

    let vpcs = scene
        .ec2
        .describe_vpcs(std::slice::from_ref(&scene.vpc), &[])
        .await
        .unwrap();
    assert_eq!(
        vpcs.first().unwrap().ipv4_cidrs(),
        ["10.0.0.0/16".parse().unwrap()]
    );
    scene.moto.arrange(
        &format!(
            "Action=AssociateVpcCidrBlock&VpcId={}&CidrBlock=100.64.0.0/16",
            scene.vpc
        ),
        "vpcId",
    );
    let vpcs = scene
        .ec2
        .describe_vpcs(&[], &[Filter::new("vpc-id", &scene.vpc)])
        .await
        .unwrap();
    assert_eq!(
        vpcs.first().unwrap().ipv4_cidrs(),
        ["10.0.0.0/16".parse().unwrap(), "100.64.0.0/16".parse().unwrap()]
    );

    let groups = scene
        .ec2
        .describe_security_groups(std::slice::from_ref(&scene.group), &[])
        .await
        .unwrap();
    assert_eq!(
        (
            groups.first().unwrap().name.as_str(),
            &groups.first().unwrap().vpc_id
        ),
        ("nodes", &scene.vpc)
    );
    let groups = scene
        .ec2
        .describe_security_groups(&[], &[Filter::new("vpc-id", &scene.vpc)])
        .await
        .unwrap();
    assert!(groups.iter().any(|g| g.id == scene.group));
}

#[tokio::test]
async fn describe_instance_types_agrees_with_the_table() {
    let scene = Scene::new();
    let names: Vec<String> = [
        "m5.large",
        "m5.4xlarge",
        "c5.18xlarge",
        "t3.small",
        "p4d.24xlarge",
    ]
    .map(str::to_owned)
    .to_vec();
    let found = scene.ec2.describe_instance_types(&names).await.unwrap();
    assert_eq!(found.len(), names.len());
    for described in found {
        let (ours, theirs) = (
            vpcnet_limits::lookup(&described.name).unwrap(),
            described.limits().unwrap(),
        );
        assert_eq!(
            (
                ours.interfaces,
                ours.ipv4_per_interface,
                &ours.cards,
                ours.default_card,
                ours.hypervisor
            ),
            (
                theirs.interfaces,
                theirs.ipv4_per_interface,
                &theirs.cards,
                theirs.default_card,
                theirs.hypervisor
            ),
            "{}",
            described.name
        );
    }
    let error = scene
        .ec2
        .describe_instance_types(&["x9.huge".to_owned()])
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Refused, "{error}");
}

#[tokio::test]
async fn a_web_identity_is_exchanged() {
    let moto = Moto::shared();
    let file = std::env::temp_dir().join(format!("vpcnet-cloud-moto-{}", std::process::id()));
    std::fs::write(&file, "a.b.c").unwrap();
    let endpoint = format!("http://{}", moto.address);
    let environment = |name: &str| match name {
        "AWS_WEB_IDENTITY_TOKEN_FILE" => file.to_str().map(str::to_owned),
        "AWS_ROLE_ARN" => Some("arn:aws:iam::123456789012:role/node".to_owned()),
        "AWS_ENDPOINT_URL_STS" => Some(endpoint.clone()),
        _ => None,
    };
    let source =
        CredentialSource::from_environment(&environment, &Imds::new(None).unwrap(), "eu-west-1").unwrap();
    let credentials = CredentialProvider::new(source)
        .unwrap()
        .get(Instant::now() + Duration::from_secs(10))
        .await;
    std::fs::remove_file(&file).unwrap();
    let credentials = credentials.unwrap();
    assert!(
        credentials.access_key_id.starts_with("ASIA"),
        "{}",
        credentials.access_key_id
    );
    assert!(credentials.session_token.is_some() && credentials.expires.is_some());
}
