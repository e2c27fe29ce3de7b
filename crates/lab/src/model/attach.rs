//! Interfaces go into instances and come out.

use super::error::ApiError;
use super::ids::{AttachmentId, EniId, InstanceId};
use super::request::AttachNetworkInterface;
use super::response::Response;
use super::state::{Attachment, Instance, InstanceState, InterfaceStatus};
use super::vpc::{Due, Vpc};

impl Vpc {
    pub(crate) fn attach(&mut self, wanted: &AttachNetworkInterface) -> Result<Response, ApiError> {
        let interface = self.interface(&wanted.eni)?.clone();
        let instance = self.instance(&wanted.instance)?.clone();
        if interface.attachment.is_some() {
            return Err(ApiError::client(
                "InvalidNetworkInterface.InUse",
                format!("Interface: [{}] in use.", interface.id),
            ));
        }
        if !matches!(instance.state, InstanceState::Pending | InstanceState::Running) {
            let (_, name) = instance.state.code_name();
            return Err(ApiError::client(
                "IncorrectState",
                format!(
                    "Instance '{}' is '{name}': interfaces attach to pending and running instances",
                    instance.id
                ),
            ));
        }
        let zone = |id| self.subnets.get(id).map(|s| s.zone.clone());
        if zone(&interface.subnet) != zone(&instance.subnet) {
            return Err(ApiError::combination(
                "You may not attach a network interface to an instance if they are not in the same availability zone",
            ));
        }
        let slots = interface.slots().max(interface.ipv6.slots());
        self.fits(&instance, wanted.device_index, wanted.card, slots)?;
        let attachment = self.bond(
            &wanted.eni,
            &wanted.instance,
            wanted.device_index,
            wanted.card,
            false,
        );
        let delay = self.weather.delay(self.config.timing.attach);
        let due = self.schedule(delay, Due::Interface(wanted.eni.clone()));
        self.change_interface(&wanted.eni, |i| {
            i.status = InterfaceStatus::Attaching;
            i.due = Some(due);
        });
        Ok(Response::Attached {
            attachment,
            card: wanted.card,
        })
    }

    /// Writes the bond down, without a say on the interface's status.
    pub(crate) fn bond(
        &mut self,
        eni: &EniId,
        instance: &InstanceId,
        device_index: u32,
        card: u32,
        delete_on_termination: bool,
    ) -> AttachmentId {
        let id = AttachmentId(format!("{}{}", AttachmentId::PREFIX, self.hex()));
        let attachment = Attachment {
            id: id.clone(),
            instance: instance.clone(),
            device_index,
            card,
            at: self.now,
            delete_on_termination,
        };
        self.attachments.insert(id.clone(), eni.clone());
        self.change_interface(eni, |i| i.attachment = Some(attachment));
        id
    }

    /// Whether an interface with so many slots, of the family with more, may go there.
    fn fits(&self, instance: &Instance, device_index: u32, card: u32, slots: usize) -> Result<(), ApiError> {
        let kind = &instance.instance_type;
        let limits = vpcnet_limits::lookup(kind).ok_or_else(|| {
            ApiError::invalid_value(format!("The limits of instance type '{kind}' are not known"))
        })?;
        let Some(room) = limits.cards.iter().find(|c| c.card == card) else {
            return Err(ApiError::invalid_value(format!(
                "Network card index {card} is not valid for instance type '{kind}', which has {} network card(s)",
                limits.cards.len()
            )));
        };
        let mut on_card = 0u32;
        for other in self.attached_to(&instance.id) {
            let Some(attachment) = other.attachment.as_ref().filter(|a| a.card == card) else {
                continue;
            };
            if attachment.device_index == device_index {
                return Err(ApiError::invalid_value(format!(
                    "Instance '{}' already has an interface attached at device index '{device_index}'.",
                    instance.id
                )));
            }
            on_card += 1;
        }
        if on_card >= room.interfaces {
            return Err(ApiError::client(
                "AttachmentLimitExceeded",
                format!("Interface count {} exceeds the limit for {kind}", on_card + 1),
            ));
        }
        self.slots_fit(kind, slots)
    }

    /// Whether an interface of an instance of this type may have so many addresses and prefixes of a family: as many IPv6
    /// addresses as IPv4 ones (API reference, AssignIpv6Addresses).
    pub(crate) fn slots_fit(&self, instance_type: &str, slots: usize) -> Result<(), ApiError> {
        let limit = vpcnet_limits::lookup(instance_type).map_or(u32::MAX, |l| l.ipv4_per_interface);
        if u32::try_from(slots).unwrap_or(u32::MAX) <= limit {
            return Ok(());
        }
        Err(ApiError::client(
            "PrivateIpAddressLimitExceeded",
            "Number of private addresses will exceed limit.",
        ))
    }

    pub(crate) fn detach(&mut self, id: &AttachmentId) -> Result<Response, ApiError> {
        if !id.well_formed() {
            return Err(ApiError::malformed(
                "InvalidAttachmentId.Malformed",
                id.as_str(),
                AttachmentId::PREFIX,
            ));
        }
        let eni = self
            .attachments
            .get(id)
            .cloned()
            .ok_or_else(|| ApiError::no_attachment(id.as_str()))?;
        let interface = self.interface(&eni)?.clone();
        let attachment = interface
            .attachment
            .as_ref()
            .ok_or_else(|| ApiError::no_attachment(id.as_str()))?;
        if attachment.device_index == 0 && attachment.card == 0 {
            return Err(ApiError::client(
                "OperationNotPermitted",
                "The network interface at device index 0 and networkCard index 0 cannot be detached.",
            ));
        }
        if interface.status != InterfaceStatus::InUse {
            return Err(ApiError::client(
                "IncorrectState",
                format!(
                    "Attachment '{id}' is in the state '{}'",
                    interface.status.attachment()
                ),
            ));
        }
        let delay = self.weather.delay(self.config.timing.detach);
        let due = self.schedule(delay, Due::Interface(eni.clone()));
        self.change_interface(&eni, |i| {
            i.status = InterfaceStatus::Detaching;
            i.due = Some(due);
        });
        Ok(Response::Done)
    }

    /// Interfaces with a bond to the instance, by card and device index.
    pub(crate) fn attached_to(&self, instance: &InstanceId) -> Vec<std::sync::Arc<super::state::Interface>> {
        let mut list: Vec<_> = self
            .interfaces
            .values()
            .filter(|i| i.attachment.as_ref().is_some_and(|a| a.instance == *instance))
            .cloned()
            .collect();
        list.sort_by_key(|i| i.attachment.as_ref().map(|a| (a.card, a.device_index)));
        list
    }

    /// What happens to the interfaces of an instance that is gone.
    pub(crate) fn release_interfaces(&mut self, instance: &InstanceId) {
        for interface in self.attached_to(instance) {
            let Some(attachment) = &interface.attachment else {
                continue;
            };
            if attachment.delete_on_termination {
                self.remove_interface(&interface.id);
                continue;
            }
            self.attachments.remove(&attachment.id);
            if let Some(public) = interface.public {
                self.public.remove(&public);
            }
            self.change_interface(&interface.id, |i| {
                i.status = InterfaceStatus::Available;
                i.attachment = None;
                i.public = None;
                i.due = None;
            });
        }
    }
}
