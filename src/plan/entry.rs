//! A credential in the Secret, or on its way there.

use jiff::Timestamp;

use crate::credential::{CLOCK_STEP, Credential, IssuedFor, Lifetime, saturating_add};

/// An entry of the Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Its token is known.
    Known(Issued),
    /// An earlier process wrote it. Its token is not known, the rest is in the status.
    Sealed {
        /// When it works.
        lifetime: Lifetime,
        /// What it was issued for.
        issued_for: IssuedFor,
        /// Another client has changed the Secret: the entry may be gone.
        is_doubtful: bool,
    },
}

/// A credential, and what it was issued for.
#[derive(Clone, Debug, PartialEq)]
pub struct Issued {
    /// The credential.
    pub credential: Credential,
    /// What it was issued for.
    pub issued_for: IssuedFor,
}

// === impl Issued ===

impl Issued {
    /// Judges its times again after the clock was set back to `now`.
    pub(super) fn rebase(&mut self, now: Timestamp) {
        let credential = &mut self.credential;
        credential.lifetime = credential.lifetime.by(now).in_whole_seconds();
        if credential.received_at > saturating_add(now, CLOCK_STEP) {
            credential.received_at = now;
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Judges its times again after the clock was set back to `now`.
    pub(super) fn rebase(&mut self, now: Timestamp) {
        match self {
            Self::Known(issued) => issued.rebase(now),
            Self::Sealed { lifetime, .. } => *lifetime = lifetime.by(now).in_whole_seconds(),
        }
    }

    /// Whether another client has changed the Secret since: it may be gone.
    pub fn is_doubtful(&self) -> bool {
        matches!(
            self,
            Self::Sealed {
                is_doubtful: true,
                ..
            }
        )
    }

    /// When it works.
    pub fn lifetime(&self) -> Lifetime {
        match self {
            Self::Known(issued) => issued.credential.lifetime,
            Self::Sealed { lifetime, .. } => *lifetime,
        }
    }

    /// What it was issued for.
    pub fn issued_for(&self) -> &IssuedFor {
        match self {
            Self::Known(issued) => &issued.issued_for,
            Self::Sealed { issued_for, .. } => issued_for,
        }
    }
}
