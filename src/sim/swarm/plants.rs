//! Planted bugs: each shows that an invariant can fail.

use super::truth::Invariant;

/// A bug to be found. None is ever in a node's code: the simulation's disks, replicas and readers
/// misbehave instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Replicas acknowledge at once, and sync two seconds later.
    AckBeforeSync,
    /// A depositor counts a packet as acknowledged after the first disk.
    ShortQuorum,
    /// A disk forgets half of what it synced when its node restarts.
    ForgetfulDisk,
    /// More disks die than the promise allows.
    DeathTooMany,
    /// No node repairs anything.
    NoRepair,
    /// A node that is no replica any more hands a mailbox over without asking.
    LeaveUnasked,
    /// A reader believes the first replica that has delivered, and looks at no other.
    BlindReader,
    /// A reader forgets what it has seen and keeps its cursors.
    ForgetSeen,
    /// Honest replicas leave the last packet out of a page and give the cursor behind it.
    SkipPage,
    /// A torn disk keeps its epoch, so that sequences are given out twice.
    SameEpoch,
    /// A replica keeps packets that are retracted.
    KeepRetracted,
    /// A reader passes over retractions.
    IgnoreRetraction,
    /// Questions that get no answer are never given up.
    LeakQuestions,
}

impl Plant {
    pub const ALL: [Plant; 13] = [
        Plant::AckBeforeSync,
        Plant::ShortQuorum,
        Plant::ForgetfulDisk,
        Plant::DeathTooMany,
        Plant::NoRepair,
        Plant::LeaveUnasked,
        Plant::BlindReader,
        Plant::ForgetSeen,
        Plant::SkipPage,
        Plant::SameEpoch,
        Plant::KeepRetracted,
        Plant::IgnoreRetraction,
        Plant::LeakQuestions,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Plant::AckBeforeSync => "ack-before-sync",
            Plant::ShortQuorum => "short-quorum",
            Plant::ForgetfulDisk => "forgetful-disk",
            Plant::DeathTooMany => "death-too-many",
            Plant::NoRepair => "no-repair",
            Plant::LeaveUnasked => "leave-unasked",
            Plant::BlindReader => "blind-reader",
            Plant::ForgetSeen => "forget-seen",
            Plant::SkipPage => "skip-page",
            Plant::SameEpoch => "same-epoch",
            Plant::KeepRetracted => "keep-retracted",
            Plant::IgnoreRetraction => "ignore-retraction",
            Plant::LeakQuestions => "leak-questions",
        }
    }

    pub fn named(name: &str) -> Option<Plant> {
        Plant::ALL.into_iter().find(|plant| plant.name() == name)
    }

    /// The invariant that it breaks.
    pub fn breaks(self) -> Invariant {
        match self {
            Plant::AckBeforeSync | Plant::ShortQuorum => Invariant::Acknowledged,
            Plant::ForgetfulDisk | Plant::DeathTooMany | Plant::LeaveUnasked => Invariant::Durable,
            Plant::NoRepair => Invariant::Agreement,
            Plant::BlindReader => Invariant::Complete,
            Plant::ForgetSeen => Invariant::Duplicate,
            Plant::SkipPage | Plant::SameEpoch => Invariant::Cursor,
            Plant::KeepRetracted | Plant::IgnoreRetraction => Invariant::Retracted,
            Plant::LeakQuestions => Invariant::Bounded,
        }
    }
}
