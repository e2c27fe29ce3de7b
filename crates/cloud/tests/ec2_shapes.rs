//! Each operation against the answer the EC2 API reference shows for it: what is sent, and what is read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

mod support;

use std::collections::HashMap;

use support::{Asked, Say, Server};
use vpcnet_cloud::{
    AddressRequest, AttachNetworkInterface, CreateNetworkInterface, CredentialProvider, CredentialSource,
    Credentials, Ec2, Ec2Config, ErrorClass, Filter, InterfaceChange, Tag,
};

fn client(server: &Server) -> Ec2 {
    let source = CredentialSource::Static(Credentials::new(
        "AKIDEXAMPLE",
        "secret-key",
        Some("session-token"),
    ));
    let mut config = Ec2Config::new("eu-west-1", CredentialProvider::new(source).unwrap());
    config.endpoint = Some(server.url());
    Ec2::new(config).unwrap()
}

/// A client of a server that always gives this answer, and a look at what it is asked.
async fn answered_by(body: &'static str) -> (Ec2, Server) {
    let server = Server::start(move |_, _| Say::ok(body)).await;
    (client(&server), server)
}

/// A client of a server that answers every action as those are answered that answer nothing.
async fn done() -> (Ec2, Server) {
    let server = Server::start(|_, asked| {
        let action = asked.form().remove("Action").unwrap_or_default();
        Say::ok(format!(
            "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>e1c6d73b</requestId><return>true</return></{action}Response>"
        ))
    })
    .await;
    (client(&server), server)
}

fn only(server: &Server) -> (Asked, HashMap<String, String>) {
    let asked = server.asked();
    let [one] = asked.as_slice() else {
        panic!("one request: {asked:?}")
    };
    (one.clone(), one.form())
}

fn strings<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

macro_rules! has {
    ($form:expr, $($name:literal = $value:literal),+ $(,)?) => {
        $(assert_eq!($form.get($name).map(String::as_str), Some($value), "{} in {:?}", $name, $form);)+
    };
}

#[tokio::test]
async fn a_call_is_a_signed_form() {
    let (ec2, server) = done().await;
    ec2.delete_network_interface("eni-0001").await.unwrap();
    let (asked, form) = only(&server);
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/"));
    has!(
        form,
        "Action" = "DeleteNetworkInterface",
        "Version" = "2016-11-15",
        "NetworkInterfaceId" = "eni-0001"
    );
    assert_eq!(
        asked.header("content-type"),
        Some("application/x-www-form-urlencoded; charset=utf-8")
    );
    assert_eq!(asked.header("x-amz-security-token"), Some("session-token"));
    assert_eq!(asked.header("host"), Some(server.address.to_string().as_str()));
    let date = asked.header("x-amz-date").unwrap();
    let authorization = asked.header("authorization").unwrap();
    let day = date.get(..8).unwrap();
    let start = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{day}/eu-west-1/ec2/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature="
    );
    assert!(authorization.starts_with(&start), "{authorization}");
    assert!(asked.header("user-agent").unwrap().starts_with("vpcnet/"));
}

#[tokio::test]
async fn create_network_interface() {
    let (ec2, server) = answered_by(include_str!("shapes/create_network_interface.xml")).await;
    let new = CreateNetworkInterface {
        subnet_id: "subnet-0a".to_owned(),
        groups: vec!["sg-1a2b3c4d".to_owned()],
        description: "aws-K8S-i-0aaa".to_owned(),
        client_token: "token-1".to_owned(),
        tags: vec![Tag::new("node.k8s.amazonaws.com/instance_id", "i-0aaa")],
        ipv4: Some(AddressRequest::Addresses(2)),
        ipv6_prefixes: 0,
        connection_tracking: None,
    };
    let made = ec2.create_network_interface(&new).await.unwrap();
    assert_eq!(
        (made.id.as_str(), made.status.as_str()),
        ("eni-0cfca18614EXAMPLE", "pending")
    );
    assert_eq!(strings(made.secondary_addresses()), ["10.0.2.130", "10.0.2.131"]);
    assert_eq!(made.private_ip_address.unwrap().to_string(), "10.0.2.157");
    assert_eq!(
        (
            made.tag("node.k8s.amazonaws.com/instance_id"),
            made.tag("empty"),
            made.tag("no")
        ),
        (Some("i-0aaa"), Some(""), None)
    );
    assert!(made.attachment.is_none() && made.ipv4_prefixes.is_empty());
    let (_, form) = only(&server);
    has!(
        form,
        "ClientToken" = "token-1",
        "SecondaryPrivateIpAddressCount" = "2",
        "TagSpecification.1.ResourceType" = "network-interface",
        "TagSpecification.1.Tag.1.Key" = "node.k8s.amazonaws.com/instance_id",
        "SecurityGroupId.1" = "sg-1a2b3c4d",
    );
}

#[tokio::test]
async fn describe_network_interfaces() {
    let (ec2, server) = answered_by(include_str!("shapes/describe_network_interfaces.xml")).await;
    let found = ec2
        .describe_network_interfaces(&["eni-0001".to_owned(), "eni-0002".to_owned()])
        .await
        .unwrap();
    let [first, second] = found.as_slice() else {
        panic!("two: {found:?}")
    };
    let attachment = first.attachment.as_ref().unwrap();
    assert_eq!(
        (attachment.id.as_str(), attachment.instance_id.as_str()),
        ("eni-attach-6537fc0c", "i-0aaa")
    );
    assert_eq!(
        (attachment.device_index, attachment.network_card_index),
        (Some(1), Some(2))
    );
    assert_eq!(
        (attachment.status.as_str(), attachment.delete_on_termination),
        ("attached", Some(true))
    );
    assert_eq!(strings(&first.ipv4_prefixes), ["10.0.0.64/28", "10.0.0.80/28"]);
    assert_eq!(strings(&first.ipv6_addresses), ["2001:db8:1234:1a00::123"]);
    assert_eq!(strings(&first.ipv6_prefixes), ["2001:db8:1234:1a00:7::/80"]);
    assert_eq!(strings(first.secondary_addresses()), ["10.0.0.148"]);
    assert_eq!(
        first
            .groups
            .iter()
            .map(|g| g.group_id.as_str())
            .collect::<Vec<_>>(),
        ["sg-3f4b5653", "sg-3f4b5654"]
    );
    let tracking = first.connection_tracking.unwrap();
    assert_eq!(
        (
            tracking.tcp_established_timeout,
            tracking.udp_timeout,
            tracking.udp_stream_timeout
        ),
        (Some(86_400), None, Some(120))
    );
    assert_eq!(
        (first.interface_type.as_str(), first.source_dest_check),
        ("trunk", Some(true))
    );
    assert_eq!(
        (second.private_ip_address, second.private_ip_addresses.len()),
        (None, 0)
    );
    let (_, form) = only(&server);
    has!(
        form,
        "NetworkInterfaceId.1" = "eni-0001",
        "NetworkInterfaceId.2" = "eni-0002"
    );
    assert!(
        !form.contains_key("MaxResults"),
        "EC2 refuses a page size with ids"
    );
}

#[tokio::test]
async fn asking_for_no_ids_asks_nobody() {
    let (ec2, server) = answered_by("").await;
    assert!(ec2.describe_network_interfaces(&[]).await.unwrap().is_empty());
    assert!(ec2.describe_instances(&[]).await.unwrap().is_empty());
    assert_eq!(
        ec2.assign_private_ip_addresses("eni-1", AddressRequest::Prefixes(0))
            .await
            .unwrap(),
        Default::default()
    );
    ec2.unassign_private_ip_addresses("eni-1", &[], &[])
        .await
        .unwrap();
    ec2.assign_ipv6_addresses("eni-1", 0, 0).await.unwrap();
    ec2.unassign_ipv6_addresses("eni-1", &[], &[]).await.unwrap();
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn describe_instances() {
    let (ec2, _server) = answered_by(include_str!("shapes/describe_instances.xml")).await;
    let found = ec2.describe_instances(&["i-0aaa".to_owned()]).await.unwrap();
    let first = found.first().unwrap();
    assert_eq!(
        (first.id.as_str(), first.instance_type.as_str(), first.state()),
        ("i-0aaa", "m5.large", "running")
    );
    assert_eq!(first.used_device_indexes(0), [0, 3]);
    assert_eq!(first.used_device_indexes(1), [1]);
    assert_eq!(found.last().unwrap().state(), "");
}

#[tokio::test]
async fn limits_come_from_the_table_or_else_from_ec2() {
    let (ec2, server) = answered_by(include_str!("shapes/describe_instance_types.xml")).await;
    assert_eq!(ec2.instance_limits("m5.large").await.unwrap().interfaces, 3);
    assert!(server.asked().is_empty(), "no call for a type of the table");
    let limits = ec2.instance_limits("x9.huge").await.unwrap();
    assert_eq!(
        (limits.interfaces, limits.ipv4_per_interface, limits.default_card),
        (7, 50, 0)
    );
    assert_eq!(
        limits
            .cards
            .iter()
            .map(|c| (c.card, c.interfaces))
            .collect::<Vec<_>>(),
        [(0, 7), (1, 5)]
    );
    has!(only(&server).1, "InstanceType.1" = "x9.huge");
    assert_eq!(
        ec2.instance_limits("x9.other").await.unwrap_err().code,
        "MalformedResponse"
    );
}

#[tokio::test]
async fn describe_subnets_vpcs_and_groups() {
    let (ec2, server) = answered_by(include_str!("shapes/describe_subnets.xml")).await;
    let subnets = ec2
        .describe_subnets(&[], &[Filter::new("vpc-id", "vpc-1a2b3c4d")])
        .await
        .unwrap();
    let subnet = subnets.first().unwrap();
    assert_eq!(
        (
            subnet.available_ip_address_count,
            subnet.ipv4_cidr.unwrap().to_string().as_str()
        ),
        (Some(251), "10.0.1.0/24")
    );
    assert_eq!(strings(subnet.ipv6_cidrs()), ["2001:db8:1234:1a00::/64"]);
    assert_eq!(subnet.tag("kubernetes.io/role/cni"), Some("1"));
    has!(
        only(&server).1,
        "Filter.1.Name" = "vpc-id",
        "Filter.1.Value.1" = "vpc-1a2b3c4d",
        "MaxResults" = "200"
    );

    let (ec2, server) = answered_by(include_str!("shapes/describe_vpcs.xml")).await;
    let vpcs = ec2
        .describe_vpcs(&["vpc-0ee975135d".to_owned()], &[])
        .await
        .unwrap();
    assert_eq!(
        strings(vpcs.first().unwrap().ipv4_cidrs()),
        ["10.0.0.0/16", "100.64.0.0/16"]
    );
    has!(only(&server).1, "VpcId.1" = "vpc-0ee975135d");

    let (ec2, server) = answered_by(include_str!("shapes/describe_security_groups.xml")).await;
    let groups = ec2
        .describe_security_groups(&["sg-9bf6ceff".to_owned()], &[])
        .await
        .unwrap();
    assert_eq!(
        (
            groups.first().unwrap().name.as_str(),
            groups.first().unwrap().vpc_id.as_str()
        ),
        ("SSHAccess", "vpc-31896b55")
    );
    has!(only(&server).1, "GroupId.1" = "sg-9bf6ceff");
}

#[tokio::test]
async fn attach_and_detach() {
    let (ec2, server) = answered_by(include_str!("shapes/attach_network_interface.xml")).await;
    let mut attach = AttachNetworkInterface {
        interface_id: "eni-1".to_owned(),
        instance_id: "i-1".to_owned(),
        device_index: 1,
        network_card_index: 0,
    };
    let attached = ec2.attach_network_interface(&attach).await.unwrap();
    assert_eq!(
        (attached.attachment_id.as_str(), attached.network_card_index),
        ("eni-attach-d94b09b0", Some(0))
    );
    let (_, form) = only(&server);
    has!(
        form,
        "NetworkInterfaceId" = "eni-1",
        "InstanceId" = "i-1",
        "DeviceIndex" = "1"
    );
    assert!(!form.contains_key("NetworkCardIndex"));
    attach.network_card_index = 3;
    ec2.attach_network_interface(&attach).await.unwrap();
    has!(server.asked().last().unwrap().form(), "NetworkCardIndex" = "3");

    let (ec2, server) = done().await;
    ec2.detach_network_interface("eni-attach-1", false).await.unwrap();
    let (_, form) = only(&server);
    has!(form, "AttachmentId" = "eni-attach-1");
    assert!(!form.contains_key("Force"));
    ec2.detach_network_interface("eni-attach-1", true).await.unwrap();
    has!(server.asked().last().unwrap().form(), "Force" = "true");
}

#[tokio::test]
async fn modify_network_interface_attribute() {
    let (ec2, server) = done().await;
    for change in [
        InterfaceChange::DeleteOnTermination {
            attachment_id: "eni-attach-1".to_owned(),
            delete: true,
        },
        InterfaceChange::Groups(vec!["sg-1".to_owned(), "sg-2".to_owned()]),
        InterfaceChange::SourceDestCheck(false),
        InterfaceChange::Description("d".to_owned()),
    ] {
        ec2.modify_network_interface_attribute("eni-1", &change)
            .await
            .unwrap();
    }
    let forms: Vec<_> = server.asked().iter().map(Asked::form).collect();
    let [delete, groups, check, description] = forms.as_slice() else {
        panic!("four: {forms:?}")
    };
    has!(
        delete,
        "NetworkInterfaceId" = "eni-1",
        "Attachment.AttachmentId" = "eni-attach-1",
        "Attachment.DeleteOnTermination" = "true"
    );
    has!(groups, "SecurityGroupId.1" = "sg-1", "SecurityGroupId.2" = "sg-2");
    has!(check, "SourceDestCheck.Value" = "false");
    has!(description, "Description.Value" = "d");
}

#[tokio::test]
async fn assign_and_unassign() {
    let (ec2, server) = answered_by(include_str!("shapes/assign_private_ip_addresses.xml")).await;
    let given = ec2
        .assign_private_ip_addresses("eni-1", AddressRequest::Addresses(2))
        .await
        .unwrap();
    assert_eq!(
        (strings(&given.addresses), strings(&given.prefixes)),
        (strings(["10.0.2.1", "10.0.2.11"]), strings(["10.0.2.64/28"]))
    );
    has!(
        only(&server).1,
        "NetworkInterfaceId" = "eni-1",
        "SecondaryPrivateIpAddressCount" = "2"
    );
    ec2.assign_private_ip_addresses("eni-1", AddressRequest::Prefixes(1))
        .await
        .unwrap();
    let form = server.asked().last().unwrap().form();
    has!(form, "Ipv4PrefixCount" = "1");
    assert!(!form.contains_key("SecondaryPrivateIpAddressCount"));

    let (ec2, server) = answered_by(include_str!("shapes/assign_ipv6_addresses.xml")).await;
    let given = ec2.assign_ipv6_addresses("eni-1", 2, 1).await.unwrap();
    assert_eq!(given.addresses.len(), 2);
    assert_eq!(strings(&given.prefixes), ["2001:db8:1234:1a00:5::/80"]);
    has!(only(&server).1, "Ipv6AddressCount" = "2", "Ipv6PrefixCount" = "1");

    let (ec2, server) = done().await;
    let (address, prefix) = ("10.0.2.1".parse().unwrap(), "10.0.2.64/28".parse().unwrap());
    ec2.unassign_private_ip_addresses("eni-1", &[address], &[prefix])
        .await
        .unwrap();
    has!(
        only(&server).1,
        "PrivateIpAddress.1" = "10.0.2.1",
        "Ipv4Prefix.1" = "10.0.2.64/28"
    );
    let (address, prefix) = (
        "2001:db8::1".parse().unwrap(),
        "2001:db8:0:0:5::/80".parse().unwrap(),
    );
    ec2.unassign_ipv6_addresses("eni-1", &[address], &[prefix])
        .await
        .unwrap();
    has!(
        server.asked().last().unwrap().form(),
        "Ipv6Addresses.1" = "2001:db8::1",
        "Ipv6Prefix.1" = "2001:db8:0:0:5::/80"
    );
}

#[tokio::test]
async fn create_and_delete_tags() {
    let (ec2, server) = done().await;
    ec2.create_tags(&["eni-1".to_owned()], &[Tag::new("a", "1"), Tag::new("b", "")])
        .await
        .unwrap();
    ec2.delete_tags(&["eni-1".to_owned()], &["a".to_owned()])
        .await
        .unwrap();
    let forms: Vec<_> = server.asked().iter().map(Asked::form).collect();
    let [create, delete] = forms.as_slice() else {
        panic!("two: {forms:?}")
    };
    has!(
        create,
        "ResourceId.1" = "eni-1",
        "Tag.1.Key" = "a",
        "Tag.1.Value" = "1",
        "Tag.2.Key" = "b",
        "Tag.2.Value" = ""
    );
    has!(delete, "ResourceId.1" = "eni-1", "Tag.1.Key" = "a");
    assert!(
        !delete.contains_key("Tag.1.Value"),
        "with a value only a tag of that value is removed"
    );
}

#[tokio::test]
async fn all_pages_are_read() {
    let server = Server::start(|_, asked| {
        let page = asked.form().get("NextToken").cloned().unwrap_or_default();
        let (id, next) = match page.as_str() {
            "" => ("eni-1", "<nextToken>two</nextToken>"),
            "two" => ("eni-2", "<nextToken>three</nextToken>"),
            _ => ("eni-3", ""),
        };
        Say::ok(format!("<DescribeNetworkInterfacesResponse><networkInterfaceSet><item><networkInterfaceId>{id}</networkInterfaceId></item></networkInterfaceSet>{next}</DescribeNetworkInterfacesResponse>"))
    })
    .await;
    let found = client(&server)
        .find_network_interfaces(&[Filter::new("status", "available")])
        .await
        .unwrap();
    assert_eq!(
        found.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(),
        ["eni-1", "eni-2", "eni-3"]
    );
    assert_eq!(server.accepted(), 1, "over one connection");
}

#[tokio::test]
async fn pages_that_never_end_are_an_error() {
    let (ec2, server) =
        answered_by("<DescribeVpcsResponse><vpcSet/><nextToken>again</nextToken></DescribeVpcsResponse>")
            .await;
    let error = ec2.describe_vpcs(&[], &[]).await.unwrap_err();
    assert_eq!(
        (error.code.as_str(), server.asked().len()),
        ("MalformedResponse", 2)
    );
}

#[tokio::test]
async fn ids_ec2_does_not_know_are_dropped_and_the_rest_asked_for_again() {
    let server = Server::start(|before, asked| match before {
        0 => Say::error(400, "InvalidNetworkInterfaceID.NotFound", "The networkInterface IDs 'eni-1, eni-3' do not exist"),
        _ => {
            let form = asked.form();
            assert_eq!(form.get("NetworkInterfaceId.1").map(String::as_str), Some("eni-2"));
            Say::ok("<DescribeNetworkInterfacesResponse><networkInterfaceSet><item><networkInterfaceId>eni-2</networkInterfaceId></item></networkInterfaceSet></DescribeNetworkInterfacesResponse>")
        }
    })
    .await;
    let ids: Vec<String> = strings(["eni-1", "eni-2", "eni-3"]);
    let present = client(&server)
        .describe_present_network_interfaces(&ids)
        .await
        .unwrap();
    assert_eq!(present.found.len(), 1);
    assert_eq!(present.missing, ["eni-1", "eni-3"]);
}

#[tokio::test]
async fn a_not_found_that_names_nobody_asked_for_ends_the_search() {
    let server = Server::start(|_, _| {
        Say::error(
            400,
            "InvalidNetworkInterfaceID.NotFound",
            "The networkInterface ID 'eni-9' does not exist",
        )
    })
    .await;
    let error = client(&server)
        .describe_present_network_interfaces(&["eni-1".to_owned()])
        .await
        .unwrap_err();
    assert_eq!((error.class, server.asked().len()), (ErrorClass::Gone, 1));
}

#[tokio::test]
async fn answers_of_the_wrong_shape_are_clear_errors() {
    for (body, word) in [
        (
            "<DescribeNetworkInterfacesResponse><networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId><attachment><deviceIndex>one</deviceIndex></attachment></item></networkInterfaceSet></DescribeNetworkInterfacesResponse>",
            "one",
        ),
        (
            "<DescribeNetworkInterfacesResponse><networkInterfaceSet><item><networkInterfaceId>eni-1",
            "",
        ),
        (
            "<DescribeNetworkInterfacesResponse><networkInterfaceSet><item><subnetId>s</subnetId></item></networkInterfaceSet></DescribeNetworkInterfacesResponse>",
            "networkInterfaceId",
        ),
        ("<html><body>It works!</body></html><p>", ""),
        ("", ""),
    ] {
        let (ec2, _server) = answered_by(body).await;
        let error = ec2
            .describe_network_interfaces(&["eni-1".to_owned()])
            .await
            .unwrap_err();
        assert_eq!(error.code, "MalformedResponse", "{body}");
        assert!(error.to_string().contains("DescribeNetworkInterfaces"), "{error}");
        assert!(error.message.contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_call_that_ec2_says_it_did_not_do_is_an_error() {
    let (ec2, _server) = answered_by(
        "<DeleteNetworkInterfaceResponse><return>false</return></DeleteNetworkInterfaceResponse>",
    )
    .await;
    assert!(ec2.delete_network_interface("eni-1").await.is_err());
}

#[tokio::test]
async fn a_page_of_some_proxy_is_no_answer_that_lists_nothing() {
    let (ec2, _server) = answered_by("<html><body>Please log in</body></html>").await;
    let error = ec2
        .describe_network_interfaces(&["eni-1".to_owned()])
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str()),
        (ErrorClass::Retry, "MalformedResponse")
    );
    assert!(
        error
            .message
            .contains("it is no DescribeNetworkInterfacesResponse"),
        "{error}"
    );
}
