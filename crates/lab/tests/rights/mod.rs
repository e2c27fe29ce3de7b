//! What a role's policy allows, by what a call is about.

use vpcnet_lab::model::*;

use crate::support::Lab;

const CLUSTER: &str = "cluster.k8s.amazonaws.com/name";

fn policy(statements: &serde_json::Value) -> Policy {
    let document = serde_json::json!({ "Version": "2012-10-17", "Statement": statements });
    Policy::parse(&document.to_string()).unwrap()
}

/// One of the policies that are delivered, for the cluster `blue`.
fn delivered(name: &str) -> Policy {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../deploy/iam/{name}.json"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    Policy::parse(&text.replace("CLUSTER_NAME", "blue")).unwrap()
}

struct Node {
    lab: Lab,
    caller: Caller,
}

impl Node {
    fn under(policy: Policy) -> Self {
        let mut lab = Lab::instant();
        let caller = Caller::node(&lab.node.clone());
        lab.vpc.set_role(&RoleConfig {
            name: RoleConfig::NODE.to_owned(),
            policy,
        });
        Self { lab, caller }
    }

    fn ask(&mut self, request: Request) -> Result<Response, ApiError> {
        self.lab.reply(&self.caller, request).outcome
    }

    /// The words of a refusal for lack of rights.
    #[track_caller]
    fn refused(&mut self, request: Request) -> String {
        let error = self.ask(request).unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.status),
            ("UnauthorizedOperation", 403),
            "{error}"
        );
        error.message
    }

    fn creation(&self, tags: &[(&str, &str)]) -> Request {
        let mut create = CreateNetworkInterface::new(self.lab.subnet("subnet-a"));
        create.tags = self::tags(tags);
        Request::CreateNetworkInterface(create)
    }

    /// Makes an interface as the administrator, and attaches it.
    fn attached(&mut self, tags: &[(&str, &str)]) -> (EniId, AttachmentId) {
        let eni = self.lab.create(|c| c.tags = self::tags(tags)).unwrap().id.clone();
        let device = u32::try_from(self.lab.vpc.fabric().interfaces.len()).unwrap();
        let attachment = self.lab.attach(&eni, device).unwrap();
        (eni, attachment)
    }
}

fn tags(tags: &[(&str, &str)]) -> Tags {
    tags.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn one_more(eni: &EniId) -> Request {
    Request::AssignPrivateIpAddresses(AssignPrivateIpAddresses {
        eni: eni.clone(),
        addresses: Wanted::Count(1),
        prefixes: Wanted::Count(0),
        allow_reassignment: false,
    })
}

#[test]
fn an_interface_made_with_tags_needs_the_right_to_tag() {
    let mut node = Node::under(Policy::allowing(&["ec2:CreateNetworkInterface"]));
    let bare = node.creation(&[]);
    assert!(node.ask(bare).is_ok());
    let tagged = node.creation(&[("a", "b")]);
    let said = node.refused(tagged.clone());
    assert!(
        said.contains("ec2:CreateTags") && said.contains("network-interface/*"),
        "{said}"
    );
    // Tagging on creation may be allowed without tagging what others have made.
    node.lab.vpc.set_role(&RoleConfig {
        name: RoleConfig::NODE.to_owned(),
        policy: policy(&serde_json::json!([
            { "Effect": "Allow", "Action": "ec2:CreateNetworkInterface", "Resource": "*" },
            { "Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*",
              "Condition": { "StringEquals": { "ec2:CreateAction": "CreateNetworkInterface" } } },
        ])),
    });
    assert!(node.ask(tagged).is_ok());
    let (eni, _) = node.attached(&[]);
    node.refused(Request::CreateTags {
        resources: vec![eni.to_string()],
        tags: tags(&[("a", "b")]),
    });
}

#[test]
fn each_thing_that_a_call_is_about_must_be_allowed() {
    let mut node = Node::under(policy(&serde_json::json!([
        { "Effect": "Allow", "Action": "ec2:AttachNetworkInterface",
          "Resource": "arn:aws:ec2:*:*:network-interface/*" },
    ])));
    let eni = node.lab.create(|_| ()).unwrap().id.clone();
    let instance = node.lab.node.clone();
    let said = node.refused(Request::AttachNetworkInterface(AttachNetworkInterface {
        eni,
        instance: instance.clone(),
        device_index: 1,
        card: 0,
    }));
    assert!(said.contains(&format!("instance/{instance}")), "{said}");
}

#[test]
fn a_policy_of_one_cluster_leaves_other_clusters_interfaces_alone() {
    let mut node = Node::under(delivered("one-cluster"));
    let (ours, our_attachment) = node.attached(&[(CLUSTER, "blue")]);
    let (theirs, their_attachment) = node.attached(&[(CLUSTER, "green")]);
    assert!(node.ask(one_more(&ours)).is_ok());
    node.refused(one_more(&theirs));
    let detach = |attachment: &AttachmentId| Request::DetachNetworkInterface {
        attachment: attachment.clone(),
        force: false,
    };
    node.refused(detach(&their_attachment));
    assert!(node.ask(detach(&our_attachment)).is_ok());
    node.refused(Request::DeleteNetworkInterface(theirs.clone()));
    assert!(node.ask(Request::DeleteNetworkInterface(ours)).is_ok());
    // Nor can it make theirs its own, or make one for nobody.
    node.refused(Request::CreateTags {
        resources: vec![theirs.to_string()],
        tags: tags(&[(CLUSTER, "blue")]),
    });
    let (bare, blue) = (node.creation(&[]), node.creation(&[(CLUSTER, "blue")]));
    node.refused(bare);
    assert!(node.ask(blue).is_ok());
}

#[test]
fn the_policies_that_are_delivered_allow_no_action_twice_and_nothing_but_ec2() {
    for name in ["ipv4", "ipv6", "subnets", "provided", "one-cluster"] {
        let document = serde_json::Value::from(delivered(name));
        let mut seen = std::collections::BTreeSet::new();
        for statement in document["Statement"].as_array().unwrap() {
            assert!(statement["Sid"].is_string(), "{name}: {statement}");
            for action in statement["Action"].as_array().unwrap() {
                let action = action.as_str().unwrap().to_owned();
                assert!(
                    action.starts_with("ec2:") && !action.contains('*'),
                    "{name}: {action}"
                );
                let about = (
                    statement["Resource"].to_string(),
                    statement["Condition"].to_string(),
                );
                assert!(seen.insert((action.clone(), about)), "{name}: {action} twice");
            }
        }
    }
}

#[test]
fn a_call_without_sense_is_refused_for_lack_of_rights_first() {
    let mut node = Node::under(delivered("ipv4"));
    let wrong = |action| Request::Malformed {
        action,
        error: ApiError::missing("resourceIdSet"),
    };
    assert_eq!(
        node.ask(wrong("CreateTags")).unwrap_err().code,
        "MissingParameter"
    );
    node.refused(wrong("DescribeVpcs"));
}
