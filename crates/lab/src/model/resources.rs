//! What a call is about, for its caller's policy: the resources, and the request's context with each of them (Service authorization
//! reference, "Actions, resources, and condition keys for Amazon EC2").
//!
//! Describe calls, and those by which the lab's nodes come and go, are judged by no resource: a policy allows them on `*` or not
//! at all. Of a thing that does not exist only its ARN is known, so a condition on its tags does not hold.

use std::collections::BTreeMap;

use super::error::ApiError;
use super::ids::{AttachmentId, EniId, GroupId, InstanceId, SubnetId};
use super::policy::{Asked, Verdict};
use super::request::{AttributeChange, CreateNetworkInterface, Request, Tags};
use super::rights::{Caller, refusal};
use super::vpc::Vpc;

type Context = BTreeMap<String, Vec<String>>;

impl Vpc {
    /// Refuses a call that the caller's role does not allow, on all it is about.
    pub(crate) fn authorize(&self, caller: &Caller, request: &Request) -> Result<(), ApiError> {
        let action = request.action();
        match self.rights.of_action(caller, action) {
            Some(Verdict::Allowed) => {}
            Some(verdict) => return Err(self.refuse(caller, action, verdict)),
            // Its parameters are not known, and so not what it is about.
            None if matches!(request, Request::Malformed { .. }) => {
                if !self.rights.mentions(caller, action) {
                    return Err(self.refuse(caller, action, Verdict::NotAllowed));
                }
            }
            None => self.authorize_each(caller, self.about(request))?,
        }
        match request {
            // "Tag your resources on creation" asks for the right to tag, too.
            Request::CreateNetworkInterface(c) if !c.tags.is_empty() => self.authorize_tags(caller, c),
            _ => Ok(()),
        }
    }

    fn authorize_tags(&self, caller: &Caller, create: &CreateNetworkInterface) -> Result<(), ApiError> {
        match self.rights.of_action(caller, "CreateTags") {
            Some(Verdict::Allowed) => Ok(()),
            _ => {
                let mut asked = self.new_interface("CreateTags", create);
                put(&mut asked.context, "ec2:CreateAction", ["CreateNetworkInterface"]);
                self.authorize_each(caller, vec![asked])
            }
        }
    }

    fn authorize_each(&self, caller: &Caller, all: Vec<Asked>) -> Result<(), ApiError> {
        all.iter()
            .try_for_each(|asked| self.rights.authorize(&self.config.account, caller, asked))
    }

    fn refuse(&self, caller: &Caller, action: &str, verdict: Verdict) -> ApiError {
        refusal(&self.config.account, caller, &self.of_nothing(action), verdict)
    }

    fn about(&self, request: &Request) -> Vec<Asked> {
        let action = request.action();
        match request {
            Request::CreateNetworkInterface(c) => {
                let mut all = vec![
                    self.new_interface(action, c),
                    self.subnet_asked(action, &c.subnet),
                ];
                all.extend(c.groups.iter().map(|g| self.group_asked(action, g)));
                all
            }
            Request::AttachNetworkInterface(a) => {
                vec![
                    self.eni_asked(action, &a.eni),
                    self.instance_asked(action, &a.instance),
                ]
            }
            Request::DetachNetworkInterface { attachment, .. } => self.attachment_asked(action, attachment),
            Request::ModifyNetworkInterfaceAttribute { eni, change } => {
                let mut all = vec![self.eni_asked(action, eni)];
                match change {
                    AttributeChange::Groups(groups) => {
                        all.extend(groups.iter().map(|g| self.group_asked(action, g)));
                    }
                    AttributeChange::DeleteOnTermination { .. } => {
                        let found = self.interfaces.get(eni).and_then(|i| i.attachment.as_ref());
                        all.extend(found.map(|a| self.instance_asked(action, &a.instance)));
                    }
                    _ => {}
                }
                all
            }
            Request::DeleteNetworkInterface(eni)
            | Request::UnassignPrivateIpAddresses { eni, .. }
            | Request::UnassignIpv6Addresses { eni, .. } => vec![self.eni_asked(action, eni)],
            Request::AssignPrivateIpAddresses(a) => vec![self.eni_asked(action, &a.eni)],
            Request::AssignIpv6Addresses(a) => vec![self.eni_asked(action, &a.eni)],
            Request::CreateTags { resources, tags } => self.tagged(action, resources, tags),
            Request::DeleteTags { resources, tags } => {
                let tags = tags
                    .iter()
                    .map(|(k, v)| (k.clone(), v.clone().unwrap_or_default()));
                self.tagged(action, resources, &tags.collect())
            }
            _ => vec![self.of_nothing(action)],
        }
    }

    /// The action by itself.
    fn of_nothing(&self, action: &str) -> Asked {
        let mut context = Context::new();
        put(&mut context, "ec2:Region", [&self.config.region]);
        put(&mut context, "aws:RequestedRegion", [&self.config.region]);
        Asked {
            action: format!("ec2:{action}"),
            arn: None,
            context,
        }
    }

    fn arn(&self, kind: &str, id: &str) -> String {
        let (region, account) = (&self.config.region, &self.config.account);
        format!("arn:aws:ec2:{region}:{account}:{kind}/{id}")
    }

    fn asked(&self, action: &str, kind: &str, id: &str) -> Asked {
        let mut asked = self.of_nothing(action);
        asked.arn = Some(self.arn(kind, id));
        if let Some(tags) = self.tags_of(id) {
            for (key, value) in tags {
                put(&mut asked.context, &format!("aws:ResourceTag/{key}"), [&value]);
                put(&mut asked.context, &format!("ec2:ResourceTag/{key}"), [&value]);
            }
        }
        asked
    }

    /// An interface that is to be made: it has no id yet and no tags, but what is asked for it.
    fn new_interface(&self, action: &str, create: &CreateNetworkInterface) -> Asked {
        let mut asked = self.of_nothing(action);
        asked.arn = Some(self.arn("network-interface", "*"));
        self.put_place(&mut asked.context, &create.subnet);
        put_request_tags(&mut asked.context, &create.tags);
        asked
    }

    fn eni_asked(&self, action: &str, eni: &EniId) -> Asked {
        let mut asked = self.asked(action, "network-interface", eni.as_str());
        if let Some(interface) = self.interfaces.get(eni) {
            put(&mut asked.context, "ec2:NetworkInterfaceID", [eni.as_str()]);
            self.put_place(&mut asked.context, &interface.subnet);
        }
        asked
    }

    fn instance_asked(&self, action: &str, instance: &InstanceId) -> Asked {
        let mut asked = self.asked(action, "instance", instance.as_str());
        if let Some(found) = self.instances.get(instance) {
            put(&mut asked.context, "ec2:InstanceID", [instance.as_str()]);
            put(&mut asked.context, "ec2:InstanceType", [&found.instance_type]);
            let zone = self.subnets.get(&found.subnet).map(|s| s.zone.as_str());
            put(&mut asked.context, "ec2:AvailabilityZone", zone);
        }
        asked
    }

    fn subnet_asked(&self, action: &str, subnet: &SubnetId) -> Asked {
        let mut asked = self.asked(action, "subnet", subnet.as_str());
        self.put_place(&mut asked.context, subnet);
        // Of a subnet itself EC2 says where it is, and not that it is in itself.
        asked.context.remove("ec2:subnet");
        asked
    }

    fn group_asked(&self, action: &str, group: &GroupId) -> Asked {
        let mut asked = self.asked(action, "security-group", group.as_str());
        put(&mut asked.context, "ec2:SecurityGroupID", [group.as_str()]);
        put(
            &mut asked.context,
            "ec2:Vpc",
            [&self.arn("vpc", self.id.as_str())],
        );
        asked
    }

    /// A detachment is about the interface and the instance. Where there is no such attachment, EC2 says that.
    fn attachment_asked(&self, action: &str, attachment: &AttachmentId) -> Vec<Asked> {
        let Some(eni) = self.attachments.get(attachment) else {
            return Vec::new();
        };
        let found = self.interfaces.get(eni).and_then(|i| i.attachment.as_ref());
        let instance = found.map(|a| self.instance_asked(action, &a.instance));
        [self.eni_asked(action, eni)]
            .into_iter()
            .chain(instance)
            .collect()
    }

    fn tagged(&self, action: &str, resources: &[String], tags: &Tags) -> Vec<Asked> {
        let kinds = [
            (EniId::PREFIX, "network-interface"),
            (InstanceId::PREFIX, "instance"),
            (SubnetId::PREFIX, "subnet"),
            (GroupId::PREFIX, "security-group"),
        ];
        let each = resources.iter().map(|id| {
            let kind = kinds.iter().find(|(prefix, _)| id.starts_with(prefix));
            let mut asked = self.asked(action, kind.map_or("vpc", |(_, kind)| kind), id);
            put_request_tags(&mut asked.context, tags);
            asked
        });
        each.collect()
    }

    fn put_place(&self, context: &mut Context, subnet: &SubnetId) {
        let zone = self.subnets.get(subnet).map(|s| s.zone.as_str());
        put(context, "ec2:AvailabilityZone", zone);
        put(context, "ec2:Subnet", [&self.arn("subnet", subnet.as_str())]);
        put(context, "ec2:Vpc", [&self.arn("vpc", self.id.as_str())]);
    }
}

fn put_request_tags(context: &mut Context, tags: &Tags) {
    for (key, value) in tags {
        put(context, &format!("aws:RequestTag/{key}"), [value]);
    }
    put(context, "aws:TagKeys", tags.keys());
}

fn put<T: AsRef<str>>(context: &mut Context, key: &str, values: impl IntoIterator<Item = T>) {
    let values: Vec<String> = values.into_iter().map(|v| v.as_ref().to_owned()).collect();
    if !values.is_empty() {
        context.insert(key.to_ascii_lowercase(), values);
    }
}
