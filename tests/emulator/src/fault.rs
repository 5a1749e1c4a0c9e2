//! Faults: what to answer wrongly, to whom and how often.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::journal::{Endpoint, Entry};

/// Which requests a fault meets; an absent field matches every request.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// Tenant, as the journal names it.
    pub tenant: Option<String>,
    /// Client id, as the journal names it.
    pub client_id: Option<String>,
    /// Login server.
    pub registry: Option<String>,
    /// Assertion subject, as the journal names it.
    pub subject: Option<String>,
}

impl Match {
    /// The requests of one tenant.
    pub fn tenant(tenant: impl Into<String>) -> Self {
        Self {
            tenant: Some(tenant.into()),
            ..Self::default()
        }
    }

    /// The requests of one client id.
    pub fn client(client_id: impl Into<String>) -> Self {
        Self {
            client_id: Some(client_id.into()),
            ..Self::default()
        }
    }

    /// The requests to one login server.
    pub fn registry(login_server: impl Into<String>) -> Self {
        Self {
            registry: Some(login_server.into()),
            ..Self::default()
        }
    }

    fn covers(&self, entry: &Entry) -> bool {
        let same = |asked: &Option<String>, is: Option<&str>| {
            asked
                .as_deref()
                .is_none_or(|asked| is.is_some_and(|is| is.eq_ignore_ascii_case(asked)))
        };
        same(&self.tenant, entry.tenant.as_deref())
            && same(&self.client_id, entry.client_id.as_deref())
            && same(&self.registry, Some(&entry.host))
            && same(&self.subject, entry.subject.as_deref())
    }
}

/// A fault. In JSON the fields of `kind` stand beside `target`:
/// `{"target":"exchange","match":{"registry":"contoso.azurecr.io"},"times":2,"kind":"status","status":503,"body":"html"}`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Fault {
    /// The endpoint that fails: `login`, `exchange`, `token` or `v2`.
    pub target: Endpoint,
    /// Whose requests fail.
    #[serde(rename = "match", default)]
    pub matching: Match,
    /// How many requests fail; absent: all, until the fault is removed.
    #[serde(default)]
    pub times: Option<u32>,
    /// How they fail.
    #[serde(flatten)]
    pub kind: Kind,
}

impl Fault {
    /// A fault that stays until it is removed.
    pub fn new(target: Endpoint, matching: Match, kind: Kind) -> Self {
        Self {
            target,
            matching,
            times: None,
            kind,
        }
    }

    /// Limits the fault to that many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

/// How a request fails.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(
    tag = "kind",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum Kind {
    /// An error status, in place of any work.
    Status {
        /// HTTP status.
        status: u16,
        /// What the body looks like.
        #[serde(default)]
        body: BodyKind,
        /// AADSTS number in an Entra body, or the code in a registry's body.
        #[serde(default)]
        code: Option<String>,
        /// The text in the body, raw: markup, terminal escapes.
        #[serde(default)]
        text: Option<String>,
        /// The HTTP reason phrase.
        #[serde(default)]
        reason: Option<String>,
        /// `Retry-After`, as it is to be written.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// 429 in the shape that the endpoint uses.
    Throttle {
        /// Seconds in `Retry-After`; absent: no such header.
        #[serde(default)]
        retry_after: Option<u32>,
        /// Write `Retry-After` as an HTTP date.
        #[serde(default)]
        http_date: bool,
        /// A JSON body also where Entra sends plain text.
        #[serde(default)]
        json: bool,
    },
    /// The right answer, late.
    Slow {
        /// Milliseconds before anything is done.
        #[serde(default)]
        headers_ms: u64,
        /// Milliseconds between headers and body.
        #[serde(default)]
        body_ms: u64,
    },
    /// The connection is closed.
    Reset {
        /// Only after headers that promise a body.
        #[serde(default)]
        after_headers: bool,
    },
    /// The right answer, spoilt; the request took effect.
    Malformed {
        /// In which way.
        how: Spoil,
    },
    /// 200 with an endless-looking body.
    Huge {
        /// Its size in bytes.
        #[serde(default = "eleven_mebibytes")]
        bytes: usize,
    },
    /// A redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        #[serde(default = "temporary_redirect")]
        status: u16,
        /// Where to; the default is a host that does not exist, so that the CONNECT log shows who follows.
        #[serde(default = "canary")]
        location: String,
    },
    /// A challenge whose realm is the canary host.
    BadRealm,
}

impl Kind {
    /// An error status in the shape that the endpoint uses.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            body: BodyKind::default(),
            code: None,
            text: None,
            reason: None,
            retry_after: None,
        }
    }

    /// The name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Throttle { .. } => "throttle",
            Self::Slow { .. } => "slow",
            Self::Reset { .. } => "reset",
            Self::Malformed { .. } => "malformed",
            Self::Huge { .. } => "huge",
            Self::Redirect { .. } => "redirect",
            Self::BadRealm => "bad_realm",
        }
    }
}

/// Body of an injected error status.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    /// Entra's JSON at the login endpoint, the registry's elsewhere.
    #[default]
    Native,
    /// Entra's JSON.
    EntraJson,
    /// The registry's JSON.
    AcrJson,
    /// Plain text.
    Text,
    /// An HTML page.
    Html,
    /// Nothing.
    Empty,
    /// The request's whole form in the body, and its token in the reason phrase and in headers that clients read (`Retry-After`,
    /// `Location`, correlation ids) or do not: nothing of it may leave the client.
    Echo,
}

/// Ways to spoil a JSON answer.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spoil {
    /// Cut in the middle.
    Truncated,
    /// A list instead of an object.
    Array,
    /// `expires_in` as a text.
    ExpiresAsText,
    /// `expires_in` of 0.
    ExpiresZero,
    /// `expires_in` below zero.
    ExpiresNegative,
    /// No token.
    MissingToken,
    /// An empty token.
    EmptyToken,
    /// The token is a number.
    TokenAsNumber,
    /// The token is no JWT.
    NotJwt,
    /// The token's claims have no `exp`.
    NoExp,
    /// The token's `exp` is a thousand years away.
    FarExp,
    /// The token's middle part has base64 padding.
    Padded,
    /// Fields that nobody knows.
    ExtraFields,
    /// The access token allows pulling a repository that nobody asked for.
    ExtraRepository,
    /// The access token allows pushing as well.
    ExtraAction,
    /// The access token has no list of what it allows.
    NoAccess,
    /// A byte order mark in front.
    Bom,
}

const fn eleven_mebibytes() -> usize {
    11 << 20
}

const fn temporary_redirect() -> u16 {
    307
}

/// A host that never exists here: whoever asks for it followed a redirect or a realm.
pub const CANARY: &str = "canary.example";

fn canary() -> String {
    format!("https://{CANARY}/leak")
}

/// Names a fault so that it can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FaultId(
    /// Counted from 1.
    pub u64,
);

/// The faults in force.
#[derive(Debug, Default)]
pub struct Faults {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    active: Vec<(FaultId, Fault)>,
}

impl Faults {
    /// Puts a fault in force.
    pub fn add(&self, fault: Fault) -> FaultId {
        let mut inner = self.inner.lock().unwrap();
        inner.last += 1;
        let id = FaultId(inner.last);
        inner.active.push((id, fault));
        id
    }

    /// Ends one fault; nothing happens if it has run out.
    pub fn remove(&self, id: FaultId) {
        self.inner.lock().unwrap().active.retain(|(i, _)| *i != id);
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.inner.lock().unwrap().active.clear();
    }

    /// The faults that have not run out.
    pub fn active(&self) -> Vec<Fault> {
        let inner = self.inner.lock().unwrap();
        inner
            .active
            .iter()
            .map(|(_, fault)| fault.clone())
            .collect()
    }

    /// The oldest fault that meets this request, counted as used and noted in the entry.
    pub fn take(&self, entry: &mut Entry) -> Option<Kind> {
        let mut inner = self.inner.lock().unwrap();
        let meets = |(_, f): &(FaultId, Fault)| {
            f.target == entry.endpoint && f.times != Some(0) && f.matching.covers(entry)
        };
        let at = inner.active.iter().position(meets)?;
        let fault = &mut inner.active[at].1;
        let kind = fault.kind.clone();
        if let Some(times) = &mut fault.times {
            *times -= 1;
            if *times == 0 {
                inner.active.remove(at);
            }
        }
        entry.fault = Some(kind.name());
        Some(kind)
    }
}
