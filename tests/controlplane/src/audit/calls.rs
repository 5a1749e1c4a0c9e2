//! Calls as the audit log tells them, and questions about them.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

/// One request to the API server. Fields that do not apply are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who asked, such as `system:serviceaccount:acrcred-system:acrcred`.
    pub user: String,
    /// Kubernetes' verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource in plural, such as `secrets`.
    pub resource: String,
    /// The subresource, such as `status` or `token`.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// `fieldManager` of the request.
    pub field_manager: String,
    /// Whether the request was not to change anything.
    pub dry_run: bool,
    /// The HTTP status of the answer.
    pub code: u16,
    /// The client's `User-Agent`.
    pub user_agent: String,
    /// Path and query.
    pub uri: String,
    /// When the server received it.
    pub received: Timestamp,
}

impl Call {
    /// Whether it asked for a change (granted or not): a create, update, patch or delete that is no dry run.
    /// A token request counts: its verb is `create`.
    pub fn is_write(&self) -> bool {
        let changes = matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        );
        changes && !self.dry_run
    }

    /// Whether it was refused with 403.
    pub fn is_forbidden(&self) -> bool {
        self.code == 403
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} by {}",
            self.code, self.verb, self.uri, self.user
        )
    }
}

/// Calls, in the order of the log; filters give the calls that remain.
#[derive(Clone, Debug, Default)]
pub struct Calls(Vec<Arc<Call>>);

impl Calls {
    pub(super) fn new(calls: Vec<Arc<Call>>) -> Self {
        Self(calls)
    }

    /// The calls for which `predicate` holds.
    #[must_use]
    pub fn matching(&self, predicate: impl Fn(&Call) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .filter(|call| predicate(call))
                .cloned()
                .collect(),
        )
    }

    /// How many calls `predicate` holds for.
    pub fn count(&self, predicate: impl Fn(&Call) -> bool) -> usize {
        self.iter().filter(|call| predicate(call)).count()
    }

    /// Calls by a user.
    #[must_use]
    pub fn by_user(&self, user: &str) -> Self {
        self.matching(|call| call.user == user)
    }

    /// Calls by a `ServiceAccount`.
    #[must_use]
    pub fn by_service_account(&self, namespace: &str, name: &str) -> Self {
        self.by_user(&format!("system:serviceaccount:{namespace}:{name}"))
    }

    /// Calls on objects of a namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        self.matching(|call| call.namespace == namespace)
    }

    /// Calls on a resource such as `secrets`, or a subresource such as `serviceaccounts/token`.
    #[must_use]
    pub fn on(&self, resource: &str) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.matching(|call| call.resource == resource && call.subresource == subresource)
    }

    /// Calls received at or after an instant.
    #[must_use]
    pub fn since(&self, instant: Timestamp) -> Self {
        self.matching(|call| call.received >= instant)
    }

    /// Calls that asked for a change: [`Call::is_write`].
    #[must_use]
    pub fn writes(&self) -> Self {
        self.matching(Call::is_write)
    }

    /// Calls refused with 403.
    #[must_use]
    pub fn forbidden(&self) -> Self {
        self.matching(Call::is_forbidden)
    }

    /// The calls.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Call> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One call a line, for the message of a failed assertion.
impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|call| writeln!(f, "{call}"))
    }
}
