//! When a credential is refreshed.

use jiff::{SignedDuration, Timestamp};

use super::Observed;
use super::fraction::fraction_of;
use crate::credential::{JITTER_FRACTION, Lifetime, saturating_add};

/// However short a life is, the next refresh is not sooner.
const FLOOR: SignedDuration = SignedDuration::from_secs(10);

/// The refresh fraction of its life after its start, less a jitter of up to a tenth of it that is derived
/// from the object's UID.
pub(super) fn refresh_at(lifetime: &Lifetime, observed: &Observed<'_>) -> Timestamp {
    let uid = observed.object.metadata.uid.as_deref().unwrap_or_default();
    let wait = lifetime.part(observed.settings.refresh_fraction);
    let jitter = lifetime.part(JITTER_FRACTION * fraction_of(&["refresh", uid]));
    saturating_add(lifetime.start, (wait - jitter).max(FLOOR))
}
