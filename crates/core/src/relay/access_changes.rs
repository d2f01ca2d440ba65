//! Folds changes of access: of those that say the same, two a second are acted on, the first at once.
//!
//! An app may say the same many times a second, and whoever may NOTIFY may say anything. Each change that is acted on
//! has callers asked about, so their number is bounded here.

use std::collections::HashSet;

use crate::limits::REVOCATIONS_MAX;
use crate::protocol::notify::AccessChange;

/// The changes of the current second.
#[derive(Debug, Default)]
pub struct AccessChanges {
    acted_on: HashSet<AccessChange>,
    owed: HashSet<AccessChange>,
}

/// A change that concerns everybody everywhere.
const EVERYBODY: AccessChange = AccessChange {
    session: None,
    user: None,
};

impl AccessChanges {
    /// Takes a change; says whether to act on it at once. If not, [`Self::next_second`] gives it.
    pub fn is_first(&mut self, change: AccessChange) -> bool {
        if self.acted_on.len() < REVOCATIONS_MAX {
            if self.acted_on.insert(change) {
                return true;
            }
            self.owed.insert(change);
        } else if !self.acted_on.contains(&change) {
            // Too many to tell apart: it may be anybody's.
            self.owed.insert(EVERYBODY);
        } else {
            self.owed.insert(change);
        }
        false
    }

    /// A second is over: gives what was not acted on.
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
    fn the_first_is_acted_on_at_once_and_the_rest_once_a_second() {
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
    fn too_many_are_everybody() {
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
