//! Which repositories a registry did not grant, in the words of the object.

use super::{Attempt, Observed};
use crate::credential::Repositories;

/// The names of what is missing, as the spec has them: no upstream's word is repeated. An attempt made for
/// another spec counts places in another list, and then none is named.
pub(super) fn said(observed: &Observed<'_>, host: &str, attempt: &Attempt) -> String {
    let object = observed.object;
    let is_of_this = attempt.is_of(object.metadata.generation);
    let mut registries = object.spec.registries.iter();
    let asked = registries
        .find(|registry| registry.server == host && is_of_this)
        .and_then(|registry| Repositories::new(registry.repositories.as_deref()?).ok());
    let names: Vec<&str> = asked
        .iter()
        .flat_map(|asked| asked.named(attempt.error.missing))
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" (not granted: {})", names.join(", "))
    }
}
