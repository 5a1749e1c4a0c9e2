//! Decisions. Pure: no async, no client, no clock, no randomness.
//!
//! [`Facts`] holds what is known of one object: watch events, results of mints, answers of the API server. After each
//! of them, [`step`] decides what to do now: mints to start, at most one call to the API server, and when to decide
//! again. It is total: a failure is a fact like any other.

mod answers;
mod backoff;
mod case;
mod entitlement;
mod entry;
mod facts;
mod failure;
mod identity;
mod policy;
mod problem;
mod refresh;
mod schedule;
mod secret;
mod secret_call;
mod service_account;
mod settings;
mod status;
mod step;

#[cfg(test)]
mod tests;

pub use backoff::{Attempt, Backoff, Revision};
pub use entry::{Entry, Issued};
pub use facts::{Facts, RegistryFacts, SecretFacts};
pub use failure::reason;
pub use policy::{Policy, PolicyRule};
pub use problem::Problem;
pub use refresh::RefreshRequest;
pub use secret_call::{Refusal, SecretAnswer, SecretCall, SecretVersion, SecretWrite};
pub use service_account::{NamedAccount, ServiceAccountFacts};
pub use settings::{ClusterFacts, PolicyCheck, PolicyState, Settings};
pub use status::{Standing, State, StatusWrite};
pub use step::{Call, Step, step};
