//! The pure core: decides what the gateway does for each frame, notification and answer of the database.
//!
//! ```text
//!   notices, pages ──► Router ──► chunks for receivers        one per fan-out loop
//!                        ▲ │
//!            join, attach │ │ joined, live, behind, lost
//!                        │ ▼
//!   frames, answers ──► Peer ───► frames, queries, writes      one per connection
//! ```
//!
//! No code here waits, reads a clock, logs or counts. The time is an argument. Decisions are return values, or effects
//! that the caller drains.
//!
//! Read the modules in this order: [`history`], `redaction`, `backlog`, [`delivery`], [`router`], [`topic`],
//! `kept_tallies`, [`snapshot`], [`start_point`], `permissions`, [`peer_context`], `progress`,
//! [`subscription`], [`may_write`], [`message`], [`peer`], [`personal`], `own_votes`, [`access_changes`],
//! [`tally`], [`resume`], [`write_queue`], [`holds`].

pub mod access_changes;
mod backlog;
pub mod delivery;
pub(crate) mod history;
pub mod holds;
mod kept_tallies;
pub mod may_write;
pub mod message;
mod own_votes;
pub mod peer;
pub mod peer_context;
mod permissions;
pub mod personal;
mod progress;
mod redaction;
pub mod resume;
pub mod router;
pub mod snapshot;
pub mod start_point;
pub(crate) mod subscription;
pub mod tally;
pub mod topic;
pub mod write_queue;

#[cfg(test)]
mod peer_scripts;
#[cfg(test)]
mod router_scripts;

/// Identifies a connection. Unique during the life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);
