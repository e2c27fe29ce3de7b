//! Time passing in the VPC, and how EC2 writes a moment.

use std::time::Duration;

use super::ids::{EniId, InstanceId};
use super::state::{InstanceState, InterfaceStatus};
use super::vpc::{Due, Vpc};

impl Vpc {
    /// Lets time pass until `now`: attachments complete, instances start and go. True if [`Vpc::fabric`] changed.
    ///
    /// Each step happens at its own time, so the result does not depend on how often this is called.
    pub fn advance(&mut self, now: Duration) -> bool {
        let before = self.fabric_generation;
        while let Some((at, due)) = self.timeline.first().cloned() {
            if at > now {
                break;
            }
            self.timeline.pop_first();
            self.tell_time(at);
            match due {
                Due::Interface(eni) => self.interface_step(at, &eni),
                Due::Instance(instance) => self.instance_step(at, &instance),
            }
        }
        self.tell_time(now);
        self.fabric_generation != before
    }

    /// When the next step is due; `None`: nothing happens by itself.
    #[must_use]
    pub fn next_change(&self) -> Option<Duration> {
        self.timeline.first().map(|(at, _)| *at)
    }

    fn interface_step(&mut self, at: Duration, eni: &EniId) {
        let Some(interface) = self.interfaces.get(eni).cloned() else {
            return;
        };
        if interface.due != Some(at) {
            return;
        }
        let detached = interface.status == InterfaceStatus::Detaching;
        if detached && let Some(attachment) = &interface.attachment {
            self.attachments.remove(&attachment.id);
        }
        self.change_interface(eni, |i| {
            i.due = None;
            i.status = match i.status {
                InterfaceStatus::Attaching | InterfaceStatus::InUse => InterfaceStatus::InUse,
                _ => InterfaceStatus::Available,
            };
            if detached {
                i.attachment = None;
            }
        });
    }

    fn instance_step(&mut self, at: Duration, id: &InstanceId) {
        let Some(instance) = self.instances.get(id).cloned() else {
            return;
        };
        if instance.due != Some(at) {
            return;
        }
        let next = match instance.state {
            InstanceState::Pending => InstanceState::Running,
            InstanceState::ShuttingDown => {
                self.release_interfaces(id);
                self.rights.forget(id);
                InstanceState::Terminated
            }
            other => other,
        };
        self.change_instance(id, |i| {
            i.due = None;
            i.state = next;
        });
    }

    /// Moment of lab time as EC2 writes it.
    #[must_use]
    pub fn moment(&self, at: Duration) -> String {
        timestamp(self.config.epoch.saturating_add(at.as_secs()))
    }
}

/// Unix seconds as EC2 writes them: `2026-01-01T00:00:00.000Z`.
#[must_use]
pub fn timestamp(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Days to a civil date by eras of 400 years that begin on 1 March (H. Hinnant, "chrono-compatible date algorithms").
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.000Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_ec2_writes_them() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(timestamp(1_767_225_599), "2025-12-31T23:59:59.000Z");
        assert_eq!(timestamp(1_767_225_600), "2026-01-01T00:00:00.000Z");
    }
}
