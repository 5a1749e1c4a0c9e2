//! Condition types and the closed list of reasons. Each is documented in `docs/errors.md`.

/// Types of conditions, in the sense of kstatus: `Ready` always, the others only while true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum ConditionType {
    /// The Secret holds a live credential for every registry of the spec.
    Ready,
    /// Not ready yet; acrcred is working on it.
    Reconciling,
    /// Not ready, and a person must act.
    Stalled,
    /// Ready, but the last refresh failed: the old credential still works.
    RefreshFailing,
}

/// Why a condition is what it is, in the order of the documentation. Stable: alerts and health checks may
/// match on them.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    strum::Display,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum Reason {
    /// Every registry has a live credential.
    Issued,
    /// `spec.suspend` is set: nothing is minted.
    Suspended,
    /// The first attempt has not ended yet.
    Progressing,
    /// The object uses a field that this version of acrcred does not serve.
    FieldNotSupported,
    /// The operator's policy does not let this namespace use the controller's identity for the registry.
    ControllerIdentityNotAllowed,
    /// The server is no login server of an enabled cloud.
    RegistryNotAllowed,
    /// A Secret of that name exists and is not ours.
    SecretNotOwned,
    /// The Secret is marked `immutable`.
    SecretImmutable,
    /// The API server, a webhook or an admission policy refuses to write the Secret.
    SecretWriteFailed,
    /// The admission policy that protects Secrets is not in force, so acrcred writes none.
    PolicyNotInForce,
    /// The `ServiceAccount` that the object names does not exist.
    ServiceAccountNotFound,
    /// Neither the object nor its `ServiceAccount` names a client id.
    ClientIdMissing,
    /// A client id, tenant or audience cannot be used, the assertion file is missing or malformed, or Entra
    /// does not know the client or tenant.
    InvalidIdentity,
    /// Entra trusts no such issuer, subject and audience.
    FederationMismatch,
    /// Entra refused for another reason; the code names it.
    EntraRefused,
    /// The registry refused the identity.
    RegistryRefused,
    /// The registry refused a token for another audience than its own; likely authentication-as-arm is
    /// disabled.
    ArmAuthenticationDisabled,
    /// The registry does not let the identity pull every repository that the object names.
    InsufficientScope,
    /// An upstream asked us to wait.
    Throttled,
    /// An upstream cannot be reached or fails.
    UpstreamUnavailable,
    /// An upstream's answer is not what the protocol says.
    MalformedAnswer,
    /// acrcred lacks a right: to write the Secret, or to use the `ServiceAccount`.
    Forbidden,
}

// === impl ConditionType ===

impl ConditionType {
    /// As `status.conditions[].type` has it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

// === impl Reason ===

impl Reason {
    /// As `status.conditions[].reason` has it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
