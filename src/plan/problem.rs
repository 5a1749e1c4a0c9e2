//! What prevents an object from working.

use crate::api::Reason;

/// Why something does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The stable reason.
    pub reason: Reason,
    /// What happened, to which object, and what to do next; nothing in it changes from attempt to attempt.
    pub message: String,
    /// Whether a person must act before it can work.
    pub needs_action: bool,
}

// === impl Problem ===

impl Problem {
    /// A person must act.
    pub fn needing_action(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            needs_action: true,
            ..Self::passing(reason, message)
        }
    }

    /// It may pass without anybody's help.
    pub fn passing(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            needs_action: false,
        }
    }
}
