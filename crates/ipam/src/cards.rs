//! Network cards: each has a pool of its own, with the card's limits. The first is the primary interface's; only it follows
//! the targets, the others hold one warm address each, as in the original.

use crate::backoff::Block;
use crate::event::InterfaceKind;
use crate::ids::{CardIndex, DeviceIndex};
use crate::pool::Pool;

/// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET` of every card but the first.
const OTHER_CARDS: (u32, u32) = (1, 1);

impl Pool {
    /// The cards that are managed, the first one first. A card that an address-less EFA interface sits on is left alone
    /// unless a managed interface is on it too.
    pub fn cards(&self) -> impl Iterator<Item = CardIndex> {
        let all = self.limits.cards.iter().map(|c| c.card);
        all.filter(|card| self.is_first(*card) || !self.is_left_alone(*card))
    }

    fn is_left_alone(&self, card: CardIndex) -> bool {
        let on_it = || self.interfaces.values().filter(move |i| i.card == card);
        let efa_only = |kind| kind == InterfaceKind::EfaOnly;
        on_it().any(|i| efa_only(i.kind)) && !on_it().any(|i| i.managed && !efa_only(i.kind))
    }

    pub(crate) fn first_card(&self) -> CardIndex {
        self.limits.card().card
    }

    pub(crate) fn is_first(&self, card: CardIndex) -> bool {
        card == self.first_card()
    }

    /// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET` of a card, if they are what counts there.
    pub(crate) fn ip_targets(&self, card: CardIndex) -> Option<(u32, u32)> {
        if self.is_first(card) && self.targets.auto {
            Some((self.churn.warm, 0))
        } else if self.is_first(card) {
            self.targets.ip_targets()
        } else {
            Some(OTHER_CARDS)
        }
    }

    /// Interfaces a card may have.
    pub(crate) fn max_interfaces(&self, card: CardIndex) -> u32 {
        let limit = self.limits.cards.iter().find(|c| c.card == card);
        limit.map_or(0, |c| c.under(&self.targets))
    }

    /// Why no interface is attached at a position for now.
    pub(crate) fn refused_device(&self, card: CardIndex, device: DeviceIndex) -> Option<&Block> {
        self.refused_devices.get(&card)?.get(&device)
    }

    pub(crate) fn refuse_device(&mut self, card: CardIndex, device: DeviceIndex, block: Block) {
        self.refused_devices
            .entry(card)
            .or_default()
            .insert(device, block);
    }

    pub(crate) fn accept_device(&mut self, card: CardIndex, device: DeviceIndex) {
        if let Some(of_card) = self.refused_devices.get_mut(&card) {
            of_card.remove(&device);
        }
    }
}
