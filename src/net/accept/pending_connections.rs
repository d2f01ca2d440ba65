//! Caps the connections that have not upgraded yet, in total and per address.
//!
//! If there is no room for another connection, the oldest is evicted. So a client that opens connections and sends nothing
//! cannot block others: an honest handshake takes milliseconds.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio_util::sync::CancellationToken;

use crate::limits::{PLAIN_CONNECTIONS_MAX, PLAIN_CONNECTIONS_PER_ADDRESS_MAX};
use crate::net::accept::client_address::AddressKey;

/// The connections before their upgrade, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct PendingConnections {
    all: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    client: Option<AddressKey>,
    slot: Weak<CancellationToken>,
}

/// The slot of one connection. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Slot(Arc<CancellationToken>);

impl Slot {
    /// Waits until another connection needs the slot. Cancel-safe.
    pub(crate) async fn evicted(&self) {
        self.0.cancelled().await;
    }
}

impl PendingConnections {
    /// Reserves a slot for a connection. `None` is a trusted proxy, which has no limit per address. The flag tells whether
    /// another connection was evicted.
    pub(crate) fn enter(&mut self, client: Option<AddressKey>) -> (Slot, bool) {
        self.all.retain(|pending| pending.slot.strong_count() > 0);
        let is_same = |pending: &Pending| client.is_some() && pending.client == client;
        let of_client = self.all.iter().filter(|pending| is_same(pending)).count();
        let leaves = if of_client >= PLAIN_CONNECTIONS_PER_ADDRESS_MAX {
            self.all.iter().position(is_same)
        } else {
            (self.all.len() >= PLAIN_CONNECTIONS_MAX).then_some(0)
        };
        let pending = leaves.and_then(|slot| self.all.remove(slot));
        if let Some(slot) = pending.as_ref().and_then(|pending| pending.slot.upgrade()) {
            slot.cancel();
        }
        let slot = Arc::default();
        self.all.push_back(Pending {
            client,
            slot: Arc::downgrade(&slot),
        });
        (Slot(slot), pending.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn an_address_evicts_its_own_oldest_connection() {
        let mut pending = PendingConnections::default();
        let (other, _) = pending.enter(client(1));
        let all: Vec<_> = (0..PLAIN_CONNECTIONS_PER_ADDRESS_MAX)
            .map(|_| pending.enter(client(2)))
            .collect();
        assert!(all.iter().all(|(_, evicted)| !evicted));
        let (newest, evicted) = pending.enter(client(2));
        assert!(evicted && all[0].0.0.is_cancelled());
        assert!(!all[1].0.0.is_cancelled());
        assert!(!newest.0.is_cancelled() && !other.0.is_cancelled());
    }

    #[test]
    fn a_full_queue_evicts_the_oldest_and_a_dropped_slot_is_free() {
        let mut pending = PendingConnections::default();
        let mut all: VecDeque<_> = (0..PLAIN_CONNECTIONS_MAX)
            .map(|_| pending.enter(None).0)
            .collect();
        let (_newest, evicted) = pending.enter(client(1));
        assert!(evicted && all[0].0.is_cancelled() && !all[1].0.is_cancelled());
        all.drain(..2);
        let (_next, evicted) = pending.enter(None);
        assert!(!evicted);
        assert!(all.iter().all(|slot| !slot.0.is_cancelled()));
    }

    fn client(number: u8) -> Option<AddressKey> {
        Some(AddressKey::from(IpAddr::from([192, 0, 2, number])))
    }
}
