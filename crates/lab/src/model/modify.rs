//! ModifyNetworkInterfaceAttribute: one attribute in each call, as EC2 has it.

use super::error::ApiError;
use super::ids::EniId;
use super::request::AttributeChange;
use super::response::Response;
use super::vpc::Vpc;

impl Vpc {
    pub(crate) fn modify_interface(
        &mut self,
        eni: &EniId,
        change: AttributeChange,
    ) -> Result<Response, ApiError> {
        let interface = self.interface(eni)?.clone();
        match change {
            AttributeChange::Description(text) => self.change_interface(eni, |i| i.description = text),
            AttributeChange::Groups(wanted) => {
                if wanted.is_empty() {
                    return Err(ApiError::missing("groupId"));
                }
                let groups = self.resolve_groups(&wanted)?;
                self.change_interface(eni, |i| i.groups = groups);
            }
            AttributeChange::SourceDestCheck(check) => {
                self.change_interface(eni, |i| i.source_dest_check = check);
            }
            AttributeChange::Tracking(tracking) => self.change_interface(eni, |i| i.tracking = tracking),
            AttributeChange::DeleteOnTermination { attachment, delete } => {
                if interface.attachment.as_ref().is_none_or(|a| a.id != attachment) {
                    return Err(ApiError::no_attachment(attachment.as_str()));
                }
                self.change_interface(eni, |i| {
                    if let Some(a) = &mut i.attachment {
                        a.delete_on_termination = delete;
                    }
                });
            }
        }
        Ok(Response::Done)
    }
}
