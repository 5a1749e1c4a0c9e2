//! The calls about a Secret that acrcred may make, and what their answers mean.
//!
//! A write carries the UID and the resource version that acrcred believes in, so that one that comes late or twice
//! has no effect (ADR 20). acrcred never reads a Secret.

use std::collections::BTreeMap;
use std::fmt;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;

use super::entry::Issued;
use super::problem::Problem;
use crate::credential::Digest;

/// One call. Its name is for the log.
#[derive(Clone, Debug, PartialEq, strum::IntoStaticStr)]
pub enum SecretCall {
    /// A PUT without effect (`dryRun`): the answer shows the version of what is stored, if that is ours. With the UID,
    /// if it is known.
    Find(Box<Secret>),
    /// A PUT without effect (`dryRun`) of this version: a conflict shows that another client changed the Secret.
    Verify(Box<Secret>),
    /// A POST.
    Create(SecretWrite),
    /// A PUT of the version that it carries.
    Replace(SecretWrite),
}

/// A Secret as it should be.
#[derive(Clone, PartialEq)]
pub struct SecretWrite {
    /// The whole object.
    pub secret: Box<Secret>,
    /// The credentials in it, by login server.
    pub entries: BTreeMap<String, Issued>,
    /// Of its labels, annotations and owner references.
    pub metadata: Digest,
}

/// One version of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretVersion {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`: a positive number (KEP-5504).
    resource_version: u64,
}

/// What an answer to a [`SecretCall`] means.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretAnswer {
    /// The Secret is stored in this version.
    Stored(SecretVersion),
    /// It was deleted, and only a finalizer of another client kept it, in this version.
    Going(SecretVersion),
    /// There is none.
    Missing,
    /// It is there, and not in the version that was sent.
    Conflict,
    /// It was refused, and a person must act; what to report.
    Refused(Refusal, Problem),
    /// The namespace is gone or going.
    NamespaceGone,
    /// Anything else, or no answer. A write may have had effect, or may have it yet.
    Failed {
        /// What to report; `None`: nothing that a user could act on.
        problem: Option<Problem>,
        /// How long the API server asked to wait.
        retry_after: SignedDuration,
    },
}

/// Why a person must act before a Secret can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is there, and not ours.
    NotOwned,
    /// It is ours, and marked `immutable`.
    Immutable,
    /// The API server refuses the owner reference, or to change the one that is stored.
    OwnerReference,
}

// === impl SecretCall ===

impl SecretCall {
    /// What it writes, if it does.
    pub fn write(&self) -> Option<&SecretWrite> {
        match self {
            Self::Create(write) | Self::Replace(write) => Some(write),
            Self::Find(_) | Self::Verify(_) => None,
        }
    }

    /// Whether it carries the UID of the Secret that it is about.
    pub fn sends_uid(&self) -> bool {
        self.secret().metadata.uid.is_some()
    }

    /// The object that it sends.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Create(write) | Self::Replace(write) => &write.secret,
            Self::Find(secret) | Self::Verify(secret) => secret,
        }
    }
}

// === impl SecretVersion ===

impl SecretVersion {
    /// Nothing unless the version is a positive number: another text makes the API server fail, and 0 would write
    /// whatever is stored.
    pub fn new(uid: &str, resource_version: &str) -> Option<Self> {
        let is_plain = resource_version.bytes().all(|b| b.is_ascii_digit());
        let number = resource_version
            .parse()
            .ok()
            .filter(|number| *number > 0 && is_plain)?;
        (!uid.is_empty()).then(|| Self {
            uid: uid.to_owned(),
            resource_version: number,
        })
    }

    /// The resource version, which grows with each change.
    pub fn number(&self) -> u64 {
        self.resource_version
    }
}

// === impl SecretWrite ===

/// The payload holds tokens.
impl fmt::Debug for SecretWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SecretWrite");
        debug
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}
