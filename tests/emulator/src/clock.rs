//! The emulator's clock: real time plus one offset.
//!
//! The offset is added to `iat` and `exp` of what the emulator issues and to how it judges its own tokens. It never touches `nbf`,
//! which a real registry process checks in real time, nor the assertions, which a real API server issued in real time.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// How far `nbf` lies behind real time, in seconds: more than any honest clock skew.
const NOT_BEFORE_LEEWAY: i64 = 300;

/// Real time plus an offset that tests and the control listener move.
#[derive(Debug, Default)]
pub struct Clock {
    offset: AtomicI64,
}

/// The three time claims of a token, in seconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// When it was issued, by the emulator's clock.
    pub issued_at: i64,
    /// From when it is valid, in real time.
    pub not_before: i64,
    /// When it ends, by the emulator's clock.
    pub expires_at: i64,
}

impl Clock {
    /// Replaces the offset; whole seconds count.
    pub fn set_offset(&self, offset: SignedDuration) {
        self.offset.store(offset.as_secs(), Ordering::SeqCst);
    }

    /// Adds to the offset; whole seconds count.
    pub fn advance(&self, by: SignedDuration) {
        self.offset.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// The offset now in force.
    pub fn offset(&self) -> SignedDuration {
        SignedDuration::from_secs(self.offset.load(Ordering::SeqCst))
    }

    /// Emulator time, in seconds since the epoch.
    pub fn now(&self) -> i64 {
        Timestamp::now().as_second() + self.offset.load(Ordering::SeqCst)
    }

    /// Emulator time as a timestamp.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_second(self.now()).unwrap_or(Timestamp::MAX)
    }

    /// The time claims of a token that is issued now for `lifetime` seconds; a negative lifetime makes one that has already expired.
    pub fn validity(&self, lifetime: i64) -> Validity {
        let issued_at = self.now();
        Validity {
            issued_at,
            not_before: Timestamp::now().as_second() - NOT_BEFORE_LEEWAY,
            expires_at: issued_at + lifetime,
        }
    }

    /// Whether the moment of a state change (`effectiveAfter`) has come.
    pub fn has_come(&self, moment: Option<Timestamp>) -> bool {
        moment.is_none_or(|at| at.as_second() <= self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_moves_iat_and_exp_but_never_nbf() {
        let clock = Clock::default();
        clock.set_offset(SignedDuration::from_hours(3));
        let real = Timestamp::now().as_second();
        let validity = clock.validity(30);
        assert_eq!(validity.expires_at, validity.issued_at + 30);
        assert!(validity.issued_at >= real + 3 * 3600);
        assert!(validity.not_before <= real);
    }
}
