//! The connections that are no sockets yet: so many, and so many of one address.
//!
//! Where there is no room for another the oldest is turned out, so that whoever opens connections and says nothing keeps
//! nobody else out: a handshake takes milliseconds.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio_util::sync::CancellationToken;

use crate::net::accept::client_address::AddressKey;
use usher_core::limits::{PLAIN_CONNECTIONS_MAX, PLAIN_CONNECTIONS_PER_ADDRESS_MAX};

/// Who is waiting, the oldest first.
#[derive(Debug, Default)]
pub struct Lobby {
    guests: VecDeque<Guest>,
}

#[derive(Debug)]
struct Guest {
    client: Option<AddressKey>,
    place: Weak<CancellationToken>,
}

/// A place in the lobby. Dropping it gives it back.
#[derive(Debug)]
pub struct Place(Arc<CancellationToken>);

impl Place {
    /// Waits until the place is needed by somebody else. Cancel-safe.
    pub async fn turned_out(&self) {
        self.0.cancelled().await;
    }
}

impl Lobby {
    /// A place for a connection of a client, or of a proxy: those have no bound of their own. Says whether somebody was
    /// turned out for it.
    pub fn enter(&mut self, client: Option<AddressKey>) -> (Place, bool) {
        self.guests.retain(|guest| guest.place.strong_count() > 0);
        let is_same = |guest: &Guest| client.is_some() && guest.client == client;
        let of_client = self.guests.iter().filter(|guest| is_same(guest)).count();
        let leaves = if of_client >= PLAIN_CONNECTIONS_PER_ADDRESS_MAX {
            self.guests.iter().position(is_same)
        } else {
            (self.guests.len() >= PLAIN_CONNECTIONS_MAX).then_some(0)
        };
        let guest = leaves.and_then(|place| self.guests.remove(place));
        if let Some(place) = guest.as_ref().and_then(|guest| guest.place.upgrade()) {
            place.cancel();
        }
        let place = Arc::default();
        self.guests.push_back(Guest {
            client,
            place: Arc::downgrade(&place),
        });
        (Place(place), guest.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn one_address_turns_out_its_own_oldest() {
        let mut lobby = Lobby::default();
        let (other, _) = lobby.enter(client(1));
        let all: Vec<_> = (0..PLAIN_CONNECTIONS_PER_ADDRESS_MAX)
            .map(|_| lobby.enter(client(2)))
            .collect();
        assert!(all.iter().all(|(_, turned_out)| !turned_out));
        let (newest, turned_out) = lobby.enter(client(2));
        assert!(turned_out && all[0].0.0.is_cancelled());
        assert!(!all[1].0.0.is_cancelled());
        assert!(!newest.0.is_cancelled() && !other.0.is_cancelled());
    }

    #[test]
    fn a_full_lobby_turns_out_the_oldest_and_who_left_makes_room() {
        let mut lobby = Lobby::default();
        let mut all: VecDeque<_> = (0..PLAIN_CONNECTIONS_MAX)
            .map(|_| lobby.enter(None).0)
            .collect();
        let (_newest, turned_out) = lobby.enter(client(1));
        assert!(turned_out && all[0].0.is_cancelled() && !all[1].0.is_cancelled());
        all.drain(..2);
        let (_next, turned_out) = lobby.enter(None);
        assert!(!turned_out);
        assert!(all.iter().all(|place| !place.0.is_cancelled()));
    }

    fn client(number: u8) -> Option<AddressKey> {
        Some(AddressKey::from(IpAddr::from([192, 0, 2, number])))
    }
}
