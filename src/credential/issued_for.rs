//! A credential, and what it is issued for.

use std::fmt;

use jiff::Timestamp;

use super::identity::{Identity, Principal};
use super::{Digest, Lifetime, LoginServer, Scope, Token};

/// What to mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintRequest {
    /// Who asks. Everything that Entra would check is part of the cache key.
    pub identity: Identity,
    /// Where to.
    pub server: LoginServer,
    /// What for.
    pub scope: Scope,
    /// A cached credential counts only if its life began after this.
    pub newer_than: Option<Timestamp>,
    /// A cached credential counts only if it was received after this.
    pub received_after: Option<Timestamp>,
}

/// A hash of what a credential was issued for: identity, server and scope. The status carries it, so that a
/// new process can compare without knowing the token.
///
/// Text form: `controller:IDENTITY:SCOPE` or `serviceaccount:IDENTITY:SCOPE`, each hash 32 characters of
/// lower-case hex (the first half of a SHA-256).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuedFor {
    principal: Principal,
    identity: String,
    scope: String,
}

/// An ACR token and when it works. The user name is always the zero GUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The refresh token, or a token limited to repositories.
    pub token: Token,
    /// When it works.
    pub lifetime: Lifetime,
    /// When it came, which its `iat` may put otherwise.
    pub received_at: Timestamp,
}

// === impl MintRequest ===

impl MintRequest {
    /// What its credential is issued for.
    pub fn issued_for(&self) -> IssuedFor {
        IssuedFor::new(&self.identity, &self.server, &self.scope)
    }
}

// === impl IssuedFor ===

impl IssuedFor {
    /// The UID of the `ServiceAccount` is left out: Entra does not see it, and a reinstalled acrcred must not
    /// replace every credential.
    pub fn new(identity: &Identity, server: &LoginServer, scope: &Scope) -> Self {
        let parts = [
            server.authority().as_str(),
            identity.tenant_id.as_str(),
            identity.client_id.as_str(),
            server.audience().as_str(),
            &identity.subject.name,
            server.as_str(),
        ];
        Self {
            principal: identity.principal,
            identity: half(&Digest::of_parts(parts)),
            scope: Self::hash_of(scope),
        }
    }

    /// Reads the text form; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let [principal, identity, scope] = text.split(':').collect::<Vec<_>>()[..] else {
            return None;
        };
        let principal = principal.parse().ok()?;
        let is_hash = |text: &str| {
            text.len() == HALF && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        (is_hash(identity) && is_hash(scope)).then(|| Self {
            principal,
            identity: identity.to_owned(),
            scope: scope.to_owned(),
        })
    }

    /// Whose identity it was issued to.
    pub fn principal(&self) -> Principal {
        self.principal
    }

    /// Whether it was issued for just this scope.
    pub fn is_of_scope(&self, scope: &Scope) -> bool {
        self.scope == Self::hash_of(scope)
    }

    fn hash_of(scope: &Scope) -> String {
        half(&Digest::of_parts(scope.names()))
    }
}

impl fmt::Display for IssuedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.principal, self.identity, self.scope)
    }
}

/// Characters of a shortened hash: 128 bits.
const HALF: usize = 32;

fn half(digest: &Digest) -> String {
    digest.as_str().chars().take(HALF).collect()
}
