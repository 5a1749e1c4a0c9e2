//! What holds for every object.

use jiff::{SignedDuration, Timestamp};

use super::policy::Policy;
use super::problem::Problem;
use crate::credential::{AssertionClaims, ClientId, Clouds, MintError, TenantId};

/// What the platform administrator decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Who may use the controller identity, and for which registries.
    pub policy: Policy,
    /// The enabled clouds, with the authority and the audience of each.
    pub clouds: Clouds,
    /// The controller identity, where there is one.
    pub controller: Option<(ClientId, TenantId)>,
    /// The audiences that a token of another `ServiceAccount` may have; the first is the default.
    pub impersonation_audiences: Vec<String>,
    /// The tenant of identities that name none.
    pub default_tenant_id: Option<TenantId>,
    /// At which part of its life a credential is refreshed, 0 to 1.
    pub refresh_fraction: f64,
    /// Prefixes of the labels and annotations that users may put on their Secret.
    pub secret_metadata_prefixes: Vec<String>,
}

/// What this process knows of its cluster and of itself.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// The claims of the controller's present `ServiceAccount` token for Entra.
    pub own: Result<AssertionClaims, MintError>,
    /// The user name that the API server knows acrcred by, once it is known.
    pub own_user: Option<String>,
    /// The issuer of this cluster's `ServiceAccount` tokens, once one was seen.
    pub issuer: Option<String>,
    /// The admission policy that protects Secrets.
    pub policy: PolicyCheck,
    /// When this process began to reconcile.
    pub since: Timestamp,
    /// How often each Secret is written or verified without another reason.
    pub resync_interval: SignedDuration,
}

/// What is known of the admission policy that protects Secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyCheck {
    /// Whether it is in force.
    pub state: PolicyState,
    /// When the API server last answered that question.
    pub checked_at: Option<Timestamp>,
    /// What to report if the last attempts to check it failed. Nothing in it changes from attempt to attempt.
    pub obstacle: Option<Problem>,
}

/// Whether the admission policy is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyState {
    /// Not known yet: nothing is written.
    #[default]
    Unknown,
    /// It refuses what it must refuse.
    InForce,
    /// The API server accepts what the policy must refuse.
    Missing,
}

/// How long a check of the policy is valid where only the policy distinguishes a foreign Secret from ours.
const CHECK_LASTS: SignedDuration = SignedDuration::from_secs(60);

// === impl ClusterFacts ===

impl ClusterFacts {
    /// Judges its times again after the clock was set back to `now`.
    pub fn rebase(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.policy.checked_at = self.policy.checked_at.map(|at| at.min(now));
    }

    /// Whether `user` is acrcred itself; `None` while its name is not known.
    pub fn is_own_user(&self, user: &str) -> Option<bool> {
        let subject = self.own.as_ref().ok().map(|own| own.subject.name.as_str());
        let mut names = [self.own_user.as_deref(), subject]
            .into_iter()
            .flatten()
            .peekable();
        names.peek()?;
        Some(names.any(|name| name == user))
    }
}

// === impl PolicyCheck ===

impl PolicyCheck {
    /// Whether the policy is in force and was checked in the last minute.
    pub fn is_recent(&self, now: Timestamp) -> bool {
        self.state == PolicyState::InForce
            && self
                .checked_at
                .is_some_and(|at| now.duration_since(at).abs() <= CHECK_LASTS)
    }
}
