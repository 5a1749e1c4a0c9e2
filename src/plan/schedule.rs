//! When a credential is refreshed, and how objects are spread over time.

use jiff::{SignedDuration, Timestamp};

use crate::credential::{Digest, JITTER_FRACTION, Lifetime, saturating_add};

/// However short a life is, the next refresh is not sooner.
const FLOOR: SignedDuration = SignedDuration::from_secs(10);

/// A number in `[0, 1)` that depends on an object's UID and on what it is used for, and on nothing else.
pub(super) fn spread(uid: &str, purpose: &str) -> f64 {
    Digest::of_parts([purpose, uid]).fraction()
}

/// `fraction` of its life after its start, minus a jitter of up to a tenth of it that is derived from the
/// object's UID.
pub(super) fn refresh_at(lifetime: &Lifetime, fraction: f64, uid: &str) -> Timestamp {
    let wait = lifetime.part(fraction);
    let jitter = lifetime.part(JITTER_FRACTION * spread(uid, "refresh"));
    saturating_add(lifetime.start, (wait - jitter).max(FLOOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_spread() {
        assert!((spread("u", "a") - spread("u", "a")).abs() < f64::EPSILON);
        let all: Vec<f64> = (0..1_000).map(|i| spread(&i.to_string(), "a")).collect();
        assert!(all.iter().all(|f| (0.0..1.0).contains(f)));
        let mean = all.iter().sum::<f64>() / 1_000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }
}
