"""Drives the lab's EC2 and IMDS faces with boto3 and compares its answers with moto's.

Run by the Rust test `api_boto3`, which starts both faces and passes their addresses in the environment. Every answer is
also held against botocore's model of the EC2 API: an element EC2 does not have, or a value of the wrong type, fails.
"""

import datetime
import json
import os
import unittest
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

LAB = json.loads(os.environ["LAB"])
NAMESPACE = "{http://ec2.amazonaws.com/doc/2016-11-15/}"


def client(endpoint=None, **options):
    config = Config(retries={"total_max_attempts": 1}, **options.pop("config", {}))
    options.setdefault("aws_access_key_id", LAB["access_key"])
    options.setdefault("aws_secret_access_key", LAB["secret_key"])
    made = boto3.client(
        "ec2", endpoint_url=endpoint or LAB["ec2"], region_name="us-west-2", config=config, **options
    )
    if endpoint is None:
        made.meta.events.register("before-parse.ec2.*", check_against_model)
    return made


def check_against_model(operation_model, response_dict, **_):
    if response_dict["status_code"] >= 300:
        return
    root = ElementTree.fromstring(response_dict["body"])
    expected = f"{NAMESPACE}{operation_model.name}Response"
    assert root.tag == expected, f"{root.tag} is not {expected}"
    check_structure(root, operation_model.output_shape, operation_model.name, top=True)


def check_structure(element, shape, path, top=False):
    members = {s.serialization.get("name", n): s for n, s in shape.members.items()} if shape else {}
    seen = set()
    for child in element:
        name = child.tag.removeprefix(NAMESPACE)
        # EC2 puts these beside what its model lists.
        if top and name in ("requestId", "return") and name not in members:
            continue
        assert name in members, f"{path}/{name} is not in EC2's model"
        assert name not in seen, f"{path}/{name} comes twice"
        seen.add(name)
        check_value(child, members[name], f"{path}/{name}")


def check_value(element, shape, path):
    text = element.text or ""
    if shape.type_name == "structure":
        check_structure(element, shape, path)
    elif shape.type_name == "list":
        for item in element:
            assert item.tag == f"{NAMESPACE}item", f"{path} holds {item.tag}"
            check_value(item, shape.member, f"{path}/item")
    elif shape.type_name == "boolean":
        assert text in ("true", "false"), f"{path} is {text!r}"
    elif shape.type_name in ("integer", "long"):
        int(text)
    elif shape.type_name == "timestamp":
        datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.000Z")
    if shape.type_name == "string" and getattr(shape, "enum", None) and text:
        # EC2 has types the model of its day lacks, and shows `pending` in the very example of CreateNetworkInterface.
        known = shape.enum + ["pending"] if path.endswith("nterface/status") else shape.enum
        open_ended = path.endswith("/instanceType")
        assert open_ended or text in known, f"{path}: {text!r} is not one of {known}"


class Lab(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.ec2 = client()
        subnets = cls.ec2.describe_subnets(Filters=[{"Name": "tag:Name", "Values": ["subnet-a"]}])["Subnets"]
        cls.subnet = subnets[0]["SubnetId"]
        cls.groups = {g["GroupName"]: g["GroupId"] for g in cls.ec2.describe_security_groups()["SecurityGroups"]}

    def setUp(self):
        self.made = []

    def tearDown(self):
        for eni in self.made:
            for found in self.ec2.describe_network_interfaces(
                Filters=[{"Name": "network-interface-id", "Values": [eni]}]
            )["NetworkInterfaces"]:
                if "Attachment" in found:
                    self.ec2.detach_network_interface(AttachmentId=found["Attachment"]["AttachmentId"])
                self.ec2.delete_network_interface(NetworkInterfaceId=eni)

    def create(self, **options):
        options.setdefault("SubnetId", self.subnet)
        made = self.ec2.create_network_interface(**options)["NetworkInterface"]
        self.made.append(made["NetworkInterfaceId"])
        return made

    def one(self, eni):
        return self.ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]

    def refused(self, code, call, status=400, **options):
        with self.assertRaises(ClientError) as caught:
            call(**options)
        response = caught.exception.response
        self.assertEqual(response["Error"]["Code"], code, response["Error"]["Message"])
        self.assertEqual(response["ResponseMetadata"]["HTTPStatusCode"], status)
        self.assertRegex(response["ResponseMetadata"]["RequestId"], r"^[0-9a-f-]{36}$")
        return response["Error"]["Message"]


class Reads(Lab):
    def test_the_vpc(self):
        vpc = self.ec2.describe_vpcs()["Vpcs"][0]
        self.assertEqual(vpc["CidrBlock"], "10.0.0.0/16")
        self.assertEqual(vpc["CidrBlockAssociationSet"][0]["CidrBlockState"], {"State": "associated"})
        self.assertEqual(vpc["Tags"], [{"Key": "Name", "Value": "lab"}])

    def test_subnets(self):
        found = self.ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-west-2b"]}])
        self.assertEqual(len(found["Subnets"]), 1)
        subnet = found["Subnets"][0]
        self.assertEqual(subnet["CidrBlock"], "10.0.16.0/20")
        self.assertEqual(subnet["AvailableIpAddressCount"], 4091)
        self.assertIs(subnet["MapPublicIpOnLaunch"], False)

    def test_security_groups(self):
        node = self.ec2.describe_security_groups(GroupIds=[self.groups["node"]])["SecurityGroups"][0]
        pairs = [p["UserIdGroupPairs"] for p in node["IpPermissions"] if p["UserIdGroupPairs"]]
        self.assertEqual(pairs[0][0]["GroupId"], self.groups["node"])
        ports = [(p["FromPort"], p["ToPort"]) for p in node["IpPermissions"] if p["IpProtocol"] == "tcp"]
        self.assertEqual(ports, [(30000, 32767)])
        by_name = self.ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
        self.assertEqual([g["GroupId"] for g in by_name], [self.groups["default"]])

    def test_instance_types(self):
        found = self.ec2.describe_instance_types(InstanceTypes=["m5.large"])["InstanceTypes"][0]["NetworkInfo"]
        self.assertEqual(
            (found["MaximumNetworkInterfaces"], found["Ipv4AddressesPerInterface"], found["MaximumNetworkCards"]),
            (3, 10, 1),
        )
        everything = self.ec2.get_paginator("describe_instance_types").paginate()
        names = [t["InstanceType"] for page in everything for t in page["InstanceTypes"]]
        self.assertGreater(len(names), 1000)
        self.assertEqual(len(names), len(set(names)))

    def test_instances(self):
        reservations = self.ec2.describe_instances(InstanceIds=[LAB["node"]])["Reservations"]
        instance = reservations[0]["Instances"][0]
        self.assertEqual(instance["State"], {"Code": 16, "Name": "running"})
        self.assertEqual(instance["PrivateIpAddress"], "10.0.0.4")
        self.assertEqual(instance["PublicIpAddress"], "198.51.100.2")
        self.assertEqual(instance["MetadataOptions"]["HttpPutResponseHopLimit"], 2)
        interface = instance["NetworkInterfaces"][0]
        self.assertEqual(interface["Attachment"]["DeviceIndex"], 0)
        self.assertEqual(interface["Attachment"]["Status"], "attached")
        age = datetime.datetime.now(datetime.timezone.utc) - instance["LaunchTime"]
        self.assertLess(abs(age.total_seconds()), 120)


class Interfaces(Lab):
    def test_a_whole_life(self):
        made = self.create(
            Description="aws-K8S-i-1 <&>",
            Groups=[self.groups["node"]],
            SecondaryPrivateIpAddressCount=2,
            TagSpecifications=[
                {"ResourceType": "network-interface", "Tags": [{"Key": "k", "Value": "v"}, {"Key": "e", "Value": ""}]}
            ],
            ConnectionTrackingSpecification={"TcpEstablishedTimeout": 600},
        )
        eni = made["NetworkInterfaceId"]
        self.assertEqual(made["Description"], "aws-K8S-i-1 <&>")
        self.assertEqual(len(made["PrivateIpAddresses"]), 3)
        self.assertEqual([a["Primary"] for a in made["PrivateIpAddresses"]], [True, False, False])
        self.assertEqual(made["PrivateIpAddresses"][0]["PrivateIpAddress"], made["PrivateIpAddress"])
        self.assertEqual(made["TagSet"], [{"Key": "e", "Value": ""}, {"Key": "k", "Value": "v"}])
        self.assertEqual(made["ConnectionTrackingConfiguration"], {"TcpEstablishedTimeout": 600})
        self.assertEqual(made["Groups"], [{"GroupId": self.groups["node"], "GroupName": "node"}])
        self.ec2.get_waiter("network_interface_available").wait(
            NetworkInterfaceIds=[eni], WaiterConfig={"Delay": 1, "MaxAttempts": 5}
        )
        attached = self.ec2.attach_network_interface(
            NetworkInterfaceId=eni, InstanceId=LAB["node"], DeviceIndex=1, NetworkCardIndex=0
        )
        attachment = attached["AttachmentId"]
        self.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=eni, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True}
        )
        seen = self.one(eni)
        self.assertEqual(seen["Status"], "in-use")
        self.assertEqual(
            {k: seen["Attachment"][k] for k in ("AttachmentId", "DeleteOnTermination", "DeviceIndex", "Status")},
            {"AttachmentId": attachment, "DeleteOnTermination": True, "DeviceIndex": 1, "Status": "attached"},
        )
        assigned = self.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=3)
        new = [a["PrivateIpAddress"] for a in assigned["AssignedPrivateIpAddresses"]]
        self.assertEqual((len(new), assigned["NetworkInterfaceId"]), (3, eni))
        prefixes = self.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, Ipv4PrefixCount=2)
        prefixes = [p["Ipv4Prefix"] for p in prefixes["AssignedIpv4Prefixes"]]
        self.assertEqual(self.one(eni)["Ipv4Prefixes"], [{"Ipv4Prefix": p} for p in prefixes])
        self.ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=new[:2])
        self.ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni, Ipv4Prefixes=prefixes)
        seen = self.one(eni)
        self.assertEqual(len(seen["PrivateIpAddresses"]), 4)
        self.assertNotIn("Ipv4Prefixes", seen)
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, SourceDestCheck={"Value": False})
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, Groups=[self.groups["default"]])
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, Description={"Value": "other"})
        seen = self.one(eni)
        self.assertEqual((seen["SourceDestCheck"], seen["Description"]), (False, "other"))
        self.assertEqual(seen["Groups"][0]["GroupName"], "default")
        self.ec2.detach_network_interface(AttachmentId=attachment)
        self.ec2.delete_network_interface(NetworkInterfaceId=eni)
        message = self.refused(
            "InvalidNetworkInterfaceID.NotFound", self.ec2.describe_network_interfaces, NetworkInterfaceIds=[eni]
        )
        self.assertIn(f"'{eni}'", message)

    def test_tags_and_filters(self):
        eni = self.create()["NetworkInterfaceId"]
        self.ec2.create_tags(Resources=[eni], Tags=[{"Key": "node.k8s.amazonaws.com/instance_id", "Value": "i-1"}])
        leaked = [
            {"Name": "tag-key", "Values": ["node.k8s.amazonaws.com/instance_id"]},
            {"Name": "status", "Values": ["available"]},
            {"Name": "vpc-id", "Values": [self.one(eni)["VpcId"]]},
        ]
        pages = self.ec2.get_paginator("describe_network_interfaces").paginate(
            Filters=leaked, PaginationConfig={"PageSize": 1000}
        )
        found = [i["NetworkInterfaceId"] for page in pages for i in page["NetworkInterfaces"]]
        self.assertEqual(found, [eni])
        self.ec2.delete_tags(Resources=[eni], Tags=[{"Key": "node.k8s.amazonaws.com/instance_id"}])
        self.assertEqual(self.ec2.describe_network_interfaces(Filters=leaked)["NetworkInterfaces"], [])

    def test_pages(self):
        made = {self.create()["NetworkInterfaceId"] for _ in range(12)}
        pages = list(
            self.ec2.get_paginator("describe_network_interfaces").paginate(PaginationConfig={"PageSize": 5})
        )
        found = [i["NetworkInterfaceId"] for page in pages for i in page["NetworkInterfaces"]]
        self.assertEqual([len(p["NetworkInterfaces"]) for p in pages][:2], [5, 5])
        self.assertEqual(len(found), len(set(found)))
        self.assertLess(made, set(found))

    def test_one_token_one_interface(self):
        first = self.create(ClientToken="token-1")["NetworkInterfaceId"]
        again = self.ec2.create_network_interface(SubnetId=self.subnet, ClientToken="token-1")
        self.assertEqual((again["NetworkInterface"]["NetworkInterfaceId"], again["ClientToken"]), (first, "token-1"))
        self.refused(
            "IdempotentParameterMismatch",
            self.ec2.create_network_interface,
            SubnetId=self.subnet,
            ClientToken="token-1",
            Description="other",
        )

    def test_named_addresses(self):
        made = self.create(
            PrivateIpAddresses=[
                {"PrivateIpAddress": "10.0.8.10", "Primary": True},
                {"PrivateIpAddress": "10.0.8.11", "Primary": False},
            ]
        )
        self.assertEqual([a["PrivateIpAddress"] for a in made["PrivateIpAddresses"]], ["10.0.8.10", "10.0.8.11"])
        self.refused("InvalidIPAddress.InUse", self.create, PrivateIpAddress="10.0.8.11")
        prefix = self.create(Ipv4Prefixes=[{"Ipv4Prefix": "10.0.9.16/28"}])
        self.assertEqual(prefix["Ipv4Prefixes"], [{"Ipv4Prefix": "10.0.9.16/28"}])


class Refusals(Lab):
    def test_errors_are_ec2s(self):
        eni = self.create()["NetworkInterfaceId"]
        refused = self.refused
        self.ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=LAB["node"], DeviceIndex=1)
        message = refused("InvalidParameterValue", self.ec2.delete_network_interface, NetworkInterfaceId=eni)
        self.assertEqual(message, f"Network interface '{eni}' is currently in use.")
        refused(
            "PrivateIpAddressLimitExceeded",
            self.ec2.assign_private_ip_addresses,
            NetworkInterfaceId=eni,
            SecondaryPrivateIpAddressCount=10,
        )
        second = self.create()["NetworkInterfaceId"]
        message = refused(
            "InvalidParameterValue",
            self.ec2.attach_network_interface,
            NetworkInterfaceId=second,
            InstanceId=LAB["node"],
            DeviceIndex=1,
        )
        self.assertIn("already has an interface attached at device index '1'", message)
        refused("InvalidSubnetID.NotFound", self.ec2.create_network_interface, SubnetId="subnet-00000001")
        refused("InvalidGroup.NotFound", self.create, Groups=["sg-00000001"])
        refused("InvalidAttachmentID.NotFound", self.ec2.detach_network_interface, AttachmentId="eni-attach-00000001")
        refused("InvalidInstanceID.NotFound", self.ec2.describe_instances, InstanceIds=["i-00000001"])
        refused("InvalidParameterValue", self.ec2.describe_subnets, Filters=[{"Name": "odd", "Values": ["x"]}])
        refused("InvalidParameterCombination", self.create, SecondaryPrivateIpAddressCount=1, Ipv4PrefixCount=1)
        refused("DryRunOperation", self.ec2.describe_vpcs, status=412, DryRun=True)

    def test_an_unknown_parameter_or_action_is_refused(self):
        ec2 = client()
        ec2.meta.events.register("before-call.ec2.DescribeSubnets", lambda params, **_: params["body"].update(Odd="1"))
        message = self.refused("UnknownParameter", ec2.describe_subnets)
        self.assertEqual(message, "The parameter Odd is not recognized")
        self.refused("InvalidAction", self.ec2.describe_key_pairs)

    def test_throttled(self):
        ec2 = client()
        codes = []
        for _ in range(12):
            try:
                ec2.delete_tags(Resources=[self.subnet], Tags=[{"Key": "none"}])
            except ClientError as error:
                codes.append((error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]))
        self.assertEqual(set(codes), {("RequestLimitExceeded", 503)})
        self.assertGreaterEqual(len(codes), 5)


class Ipv6(Lab):
    """In a VPC with IPv6, which the others' VPC has not."""

    def test_a_subnet_and_the_vpc_show_their_cidrs(self):
        vpc = self.ec2.describe_vpcs()["Vpcs"][0]
        association = vpc["Ipv6CidrBlockAssociationSet"][0]
        self.assertEqual(association["Ipv6CidrBlock"], "2001:db8:c10d::/56")
        self.assertEqual(association["Ipv6CidrBlockState"]["State"], "associated")
        filters = [{"Name": "ipv6-cidr-block-association.ipv6-cidr-block", "Values": ["2001:db8:c10d:1::/64"]}]
        subnets = self.ec2.describe_subnets(Filters=filters)["Subnets"]
        self.assertEqual(len(subnets), 1)
        self.assertTrue(subnets[0]["AssignIpv6AddressOnCreation"])
        self.assertEqual(subnets[0]["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"], "2001:db8:c10d:1::/64")

    def test_security_groups_show_ipv6_ranges(self):
        group = self.ec2.describe_security_groups(GroupIds=[self.groups["node"]])["SecurityGroups"][0]
        ranges = [r["CidrIpv6"] for p in group["IpPermissionsEgress"] for r in p["Ipv6Ranges"]]
        self.assertEqual(ranges, ["::/0"])

    def test_an_interface_is_made_with_addresses_and_prefixes(self):
        made = self.create(Ipv6PrefixCount=1)
        self.assertEqual(len(made["Ipv6Addresses"]), 1)
        self.assertEqual(len(made["Ipv6Prefixes"]), 1)
        named = self.create(
            Ipv6Addresses=[{"Ipv6Address": "2001:db8:c10d::abcd"}], Ipv6Prefixes=[{"Ipv6Prefix": "2001:db8:c10d:0:77::/80"}]
        )
        self.assertEqual([a["Ipv6Address"] for a in named["Ipv6Addresses"]], ["2001:db8:c10d::abcd"])
        self.assertEqual([p["Ipv6Prefix"] for p in named["Ipv6Prefixes"]], ["2001:db8:c10d:0:77::/80"])
        filters = [{"Name": "ipv6-addresses.ipv6-address", "Values": ["2001:db8:c10d::abcd"]}]
        found = self.ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
        self.assertEqual([f["NetworkInterfaceId"] for f in found], [named["NetworkInterfaceId"]])

    def test_prefixes_and_addresses_are_assigned_and_unassigned(self):
        eni = self.create()["NetworkInterfaceId"]
        answer = self.ec2.assign_ipv6_addresses(NetworkInterfaceId=eni, Ipv6PrefixCount=2)
        self.assertEqual(answer["NetworkInterfaceId"], eni)
        prefixes = answer["AssignedIpv6Prefixes"]
        self.assertEqual(len(prefixes), 2)
        addresses = self.ec2.assign_ipv6_addresses(NetworkInterfaceId=eni, Ipv6AddressCount=1)["AssignedIpv6Addresses"]
        self.assertEqual([p["Ipv6Prefix"] for p in self.one(eni)["Ipv6Prefixes"]], prefixes)
        gone = self.ec2.unassign_ipv6_addresses(NetworkInterfaceId=eni, Ipv6Prefixes=prefixes[:1], Ipv6Addresses=addresses)
        self.assertEqual(gone["UnassignedIpv6Prefixes"], prefixes[:1])
        self.assertEqual(gone["UnassignedIpv6Addresses"], addresses)
        self.assertEqual([p["Ipv6Prefix"] for p in self.one(eni)["Ipv6Prefixes"]], prefixes[1:])

    def test_what_makes_no_sense_is_refused(self):
        eni = self.create()["NetworkInterfaceId"]
        assign = self.ec2.assign_ipv6_addresses
        self.refused("MissingParameter", assign, NetworkInterfaceId=eni)
        self.refused(
            "InvalidParameterCombination", assign, NetworkInterfaceId=eni, Ipv6PrefixCount=1, Ipv6Prefixes=["2001:db8:c10d:0:5::/80"]
        )
        self.refused("InvalidParameterValue", assign, NetworkInterfaceId=eni, Ipv6Prefixes=["2001:db8:ffff::/80"])
        self.refused("InvalidNetworkInterfaceID.NotFound", assign, NetworkInterfaceId="eni-00000000000000000", Ipv6PrefixCount=1)
        self.refused(
            "InvalidParameterValue",
            self.ec2.unassign_ipv6_addresses,
            NetworkInterfaceId=eni,
            Ipv6Prefixes=["2001:db8:c10d:0:5::/80"],
        )

    def test_an_instance_starts_with_an_address(self):
        started = self.ec2.run_instances(
            ImageId="ami-1", InstanceType="m5.large", MinCount=1, MaxCount=1, SubnetId=self.subnet, Ipv6AddressCount=2
        )["Instances"][0]
        self.assertEqual(len(started["NetworkInterfaces"][0]["Ipv6Addresses"]), 2)
        self.ec2.terminate_instances(InstanceIds=[started["InstanceId"]])


class Keys(Lab):
    def test_only_known_keys_and_right_secrets(self):
        refused = self.refused
        refused("AuthFailure", client(aws_secret_access_key="wrong").describe_vpcs, status=401)
        refused("AuthFailure", client(aws_access_key_id="AKIAUNKNOWN").describe_vpcs, status=401)
        unsigned = client(config={"signature_version": botocore.UNSIGNED})
        refused("MissingAuthenticationToken", unsigned.describe_vpcs, status=403)

    def test_a_node_reads_its_credentials_from_imds_and_may_do_what_its_role_lists(self):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            os.environ.pop(name, None)
        os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = LAB["imds"]
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.environ["AWS_CONFIG_FILE"] = os.devnull
        session = boto3.Session(region_name="us-west-2")
        credentials = session.get_credentials()
        self.assertEqual(credentials.method, "iam-role")
        frozen = credentials.get_frozen_credentials()
        keys = {"aws_access_key_id": frozen.access_key, "aws_secret_access_key": frozen.secret_key}
        node = client(aws_session_token=frozen.token, **keys)
        self.assertEqual(len(node.describe_vpcs()["Vpcs"]), 1)
        message = self.refused(
            "UnauthorizedOperation", node.terminate_instances, status=403, InstanceIds=[LAB["node"]]
        )
        self.assertIn("lab-node", message)
        self.refused("AuthFailure", client(**keys).describe_vpcs, status=401)
        self.refused("AuthFailure", client(aws_session_token="other", **keys).describe_vpcs, status=401)


class Instances(Lab):
    def test_they_come_and_go(self):
        started = self.ec2.run_instances(
            ImageId="ami-12345678",
            InstanceType="t3.medium",
            MinCount=2,
            MaxCount=2,
            SubnetId=self.subnet,
            SecurityGroupIds=[self.groups["node"]],
            IamInstanceProfile={"Name": "lab-node"},
            MetadataOptions={"HttpTokens": "optional", "HttpPutResponseHopLimit": 1},
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "made-by-boto3"}]}],
        )
        ids = [i["InstanceId"] for i in started["Instances"]]
        self.assertEqual([i["AmiLaunchIndex"] for i in started["Instances"]], [0, 1])
        self.ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 5})
        reservations = self.ec2.describe_instances(
            Filters=[{"Name": "tag:Name", "Values": ["made-by-*"]}, {"Name": "instance-state-name", "Values": ["running"]}]
        )["Reservations"]
        self.assertEqual([len(r["Instances"]) for r in reservations], [2])
        self.assertEqual(reservations[0]["Instances"][0]["MetadataOptions"]["HttpTokens"], "optional")
        changed = self.ec2.modify_instance_metadata_options(InstanceId=ids[0], HttpPutResponseHopLimit=3)
        self.assertEqual(changed["InstanceMetadataOptions"]["HttpPutResponseHopLimit"], 3)
        primary = reservations[0]["Instances"][0]["NetworkInterfaces"][0]
        self.refused(
            "OperationNotPermitted",
            self.ec2.detach_network_interface,
            AttachmentId=primary["Attachment"]["AttachmentId"],
        )
        gone = self.ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"]
        self.assertEqual({g["PreviousState"]["Name"] for g in gone}, {"running"})
        self.ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 5})
        self.refused(
            "InvalidNetworkInterfaceID.NotFound",
            self.ec2.describe_network_interfaces,
            NetworkInterfaceIds=[primary["NetworkInterfaceId"]],
        )


class Lossy(Lab):
    """Run apart, with a fault plan: see `api_boto3.rs`."""

    def test_a_client_that_repeats_gets_through(self):
        config = Config(retries={"total_max_attempts": 3, "mode": "standard"}, read_timeout=2, connect_timeout=5)
        ec2 = boto3.client(
            "ec2",
            endpoint_url=LAB["ec2"],
            region_name="us-west-2",
            aws_access_key_id=LAB["access_key"],
            aws_secret_access_key=LAB["secret_key"],
            config=config,
        )
        repeats = lambda answer: answer["ResponseMetadata"]["RetryAttempts"]
        # The answer was lost, the effect was not: the token makes the repeat harmless.
        made = ec2.create_network_interface(SubnetId=self.subnet, Description="lossy")
        self.assertEqual(repeats(made), 1)
        eni = made["NetworkInterface"]["NetworkInterfaceId"]
        found = ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": ["lossy"]}])
        self.assertEqual([i["NetworkInterfaceId"] for i in found["NetworkInterfaces"]], [eni])
        # Throttled, then silent, then answered.
        self.assertEqual(repeats(ec2.describe_vpcs()), 2)
        # Carried out, answered with an error: the repeat meets its own effect.
        message = self.refused(
            "InvalidNetworkInterface.InUse",
            ec2.attach_network_interface,
            NetworkInterfaceId=eni,
            InstanceId=LAB["node"],
            DeviceIndex=1,
        )
        self.assertIn(eni, message)


class Metadata(unittest.TestCase):
    def get(self, path, **headers):
        request = urllib.request.Request(f"{LAB['imds']}/latest/{path}", headers=headers)
        return urllib.request.urlopen(request, timeout=5).read().decode()

    def test_botocore_reads_the_region_and_urllib_the_tree(self):
        from botocore.utils import InstanceMetadataRegionFetcher

        fetched = InstanceMetadataRegionFetcher(base_url=LAB["imds"] + "/")
        self.assertEqual(fetched.retrieve_region(), "us-west-2")
        request = urllib.request.Request(
            f"{LAB['imds']}/latest/api/token",
            method="PUT",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
        )
        token = urllib.request.urlopen(request, timeout=5).read().decode()
        headers = {"X-aws-ec2-metadata-token": token}
        self.assertEqual(self.get("meta-data/instance-id", **headers), LAB["node"])
        document = json.loads(self.get("dynamic/instance-identity/document", **headers))
        self.assertEqual((document["region"], document["instanceId"]), ("us-west-2", LAB["node"]))
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.get("meta-data/instance-id")
        self.assertEqual(caught.exception.code, 401)


def skeleton(value, path=""):
    """Paths and types of an answer, without what it says."""
    if isinstance(value, dict):
        return {p: t for k, v in value.items() for p, t in skeleton(v, f"{path}.{k}").items()}
    if isinstance(value, list):
        return {p: t for v in value for p, t in skeleton(v, f"{path}[]").items()} or {f"{path}[]": "empty"}
    return {path: type(value).__name__}


class BesideMoto(Lab):
    """The same calls to moto: whatever its answers hold, ours hold too, with the same types."""

    # What moto shows and EC2 does not there, or the lab does not model.
    NOT_OURS = (
        ".ResponseMetadata",
        ".Vpcs[].Ipv6CidrBlockAssociationSet",
        ".NetworkInterface.Association",
        ".NetworkInterfaces[].Association",
        ".NetworkInterface.PrivateIpAddresses[].Association",
        # moto shows an attachment on an interface that has none.
        ".NetworkInterface.Attachment",
        ".Subnets[].PrivateDnsNameOptionsOnLaunch",
        ".Subnets[].EncryptionSupport",
        ".Vpcs[].EncryptionControl",
        ".SecurityGroups[].IpPermissions[]",
        ".SecurityGroups[].Tags[]",
        ".InstanceTypes[]",
        # moto's image is one of Windows.
        ".Reservations[].Instances[].Platform",
        ".Reservations[].Instances[].SriovNetSupport",
        ".Reservations[].Instances[].KeyName",
        ".Reservations[].Instances[].KernelId",
        ".Reservations[].Instances[].RamdiskId",
        ".Reservations[].Instances[].BlockDeviceMappings[]",
        ".Reservations[].Instances[].StateReason",
        ".Reservations[].Instances[].StateTransitionReason",
        ".Reservations[].Instances[].Placement.HostId",
        ".Reservations[].Instances[].HibernationOptions",
        ".Reservations[].Instances[].PublicDnsName",
        ".Reservations[].Groups[]",
    )

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.moto_server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        cls.moto_server.start()
        host, port = cls.moto_server.get_host_and_port()
        cls.moto = client(f"http://{host}:{port}", aws_access_key_id="testing", aws_secret_access_key="testing")

    @classmethod
    def tearDownClass(cls):
        cls.moto_server.stop()

    def calls(self, ec2, subnet, group, image):
        """The same life of an interface and an instance; the answers in order."""
        answers = []

        def ask(name, **options):
            answers.append((name, getattr(ec2, name)(**options)))
            return answers[-1][1]

        ask("describe_vpcs")
        ask("describe_subnets", SubnetIds=[subnet])
        ask("describe_security_groups", GroupIds=[group])
        run = {"ImageId": image, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1, "SubnetId": subnet}
        instance = ec2.run_instances(**run)["Instances"][0]["InstanceId"]
        ask("describe_instances", InstanceIds=[instance])
        tags = [{"ResourceType": "network-interface", "Tags": [{"Key": "a", "Value": "b"}]}]
        made = ask(
            "create_network_interface", SubnetId=subnet, Groups=[group], Description="d", TagSpecifications=tags
        )
        eni = made["NetworkInterface"]["NetworkInterfaceId"]
        ask("assign_private_ip_addresses", NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=1)
        attached = ask("attach_network_interface", NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=1)
        ask("describe_network_interfaces", NetworkInterfaceIds=[eni])
        ask("create_tags", Resources=[eni], Tags=[{"Key": "c", "Value": "d"}])
        ask("delete_tags", Resources=[eni], Tags=[{"Key": "c"}])
        ask("modify_network_interface_attribute", NetworkInterfaceId=eni, Description={"Value": "e"})
        ask("detach_network_interface", AttachmentId=attached["AttachmentId"])
        ask("delete_network_interface", NetworkInterfaceId=eni)
        ask("terminate_instances", InstanceIds=[instance])
        return answers

    def test_answers_hold_what_motos_hold(self):
        vpc = self.moto.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = self.moto.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/20")["Subnet"]["SubnetId"]
        groups = self.moto.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        group = groups["SecurityGroups"][0]["GroupId"]
        image = self.moto.describe_images(MaxResults=5)["Images"][0]["ImageId"]
        theirs = self.calls(self.moto, subnet, group, image)
        ours = self.calls(self.ec2, self.subnet, self.groups["default"], "ami-12345678")
        self.assertEqual([n for n, _ in theirs], [n for n, _ in ours])
        wrong = []
        for (name, their), (_, our) in zip(theirs, ours):
            our = skeleton(our)
            for path, kind in skeleton(their).items():
                if kind == "empty" or path.startswith(self.NOT_OURS):
                    continue
                if our.get(path) != kind:
                    wrong.append(f"{name}: moto has {path} ({kind}), the lab {our.get(path)}")
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
