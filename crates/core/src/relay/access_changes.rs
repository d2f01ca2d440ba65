//! Limits how often the same access change is acted on: immediately, and then at most once at the end of each second.
//!
//! An app may repeat a change many times a second, and a role that may NOTIFY can send any change. Each change that is
//! acted on starts access checks, so their number is bounded here.

use std::collections::HashSet;

use crate::limits::REVOCATIONS_MAX;
use crate::protocol::notify::AccessChange;

/// The access changes of the current second.
#[derive(Debug, Default)]
pub struct AccessChanges {
    acted_on: HashSet<AccessChange>,
    owed: HashSet<AccessChange>,
}

/// A change that concerns every user in every session.
const EVERYBODY: AccessChange = AccessChange {
    session: None,
    user: None,
};

impl AccessChanges {
    /// Returns true if the caller must act on a change immediately. Otherwise [`Self::next_second`] returns it.
    pub fn is_first(&mut self, change: AccessChange) -> bool {
        if self.acted_on.len() < REVOCATIONS_MAX {
            if self.acted_on.insert(change) {
                return true;
            }
            self.owed.insert(change);
        } else if !self.acted_on.contains(&change) {
            // Too many different changes to remember: owe a check of every user.
            self.owed.insert(EVERYBODY);
        } else {
            self.owed.insert(change);
        }
        false
    }

    /// Starts the next second and returns the changes that were not acted on.
    pub fn next_second(&mut self) -> Vec<AccessChange> {
        self.acted_on.clear();
        let owed: Vec<AccessChange> = self.owed.drain().collect();
        self.acted_on.extend(&owed);
        owed
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::protocol::id::UserId;

    #[test]
    fn the_first_change_passes_and_repeats_wait_for_the_next_second() {
        let mut changes = AccessChanges::default();
        assert!(changes.is_first(user(1)) && changes.is_first(user(2)));
        for _ in 0..100 {
            assert!(!changes.is_first(user(1)));
        }
        assert_eq!(changes.next_second(), [user(1)]);
        assert!(!changes.is_first(user(1)) && changes.is_first(user(2)));
        assert_eq!(changes.next_second(), [user(1)]);
        assert_eq!(changes.next_second(), []);
        assert!(changes.is_first(user(1)));
    }

    #[test]
    fn too_many_changes_become_a_change_for_everyone() {
        let mut changes = AccessChanges::default();
        for number in 0..REVOCATIONS_MAX as u128 {
            assert!(changes.is_first(user(number)));
        }
        for number in 0..2 * REVOCATIONS_MAX as u128 {
            assert!(!changes.is_first(user(number + REVOCATIONS_MAX as u128)));
        }
        assert_eq!(changes.next_second(), [EVERYBODY]);
    }

    fn user(number: u128) -> AccessChange {
        AccessChange {
            session: None,
            user: Some(UserId(Uuid::from_u128(number))),
        }
    }
}
