//! What was asked of the emulator: one entry a request, one a CONNECT, never a token.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::jwt::sha256;
use crate::tap::Tap;

/// Entries kept; the oldest go first.
const MOST_ENTRIES: usize = 200_000;

/// Which side of the emulator was asked.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    /// An Entra authority.
    Login,
    /// A registry.
    Registry,
    /// The control listener.
    Control,
}

/// Which endpoint was asked; the first four are what faults can aim at.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// Entra's token endpoint.
    Login,
    /// A registry's `/oauth2/exchange`.
    Exchange,
    /// A registry's `/oauth2/token`.
    Token,
    /// A registry's `/v2/`.
    V2,
    /// Entra's discovery documents.
    Discovery,
    /// The control listener, and paths that do not exist.
    Other,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Place in the journal, counted from 0.
    pub seq: u64,
    /// Real time at which the answer was ready.
    pub time: Timestamp,
    /// Emulator time less real time, in seconds.
    pub clock_offset_s: i64,
    /// Time it took until the answer's headers were ready, in milliseconds.
    pub millis: u64,
    /// Which side was asked.
    pub listener: Listener,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Host name of the request.
    pub host: String,
    /// HTTP method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Names of the query's parameters, in order.
    pub query_keys: Vec<String>,
    /// Names of the form's fields, in order.
    pub form_keys: Vec<String>,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
    /// `grant_type`.
    pub grant_type: Option<String>,
    /// Scopes asked for, joined by blanks.
    pub scope: Option<String>,
    /// Tenant: of the URL (login) or of the token presented (registry).
    pub tenant: Option<String>,
    /// Client id: of the form (login) or of the token presented (registry).
    pub client_id: Option<String>,
    /// Object id of the identity that was matched.
    pub identity: Option<String>,
    /// Subject of the assertion, at a registry that of the assertion it all began with.
    pub subject: Option<String>,
    /// What the assertion claims; it need not have been valid.
    pub assertion: Option<Assertion>,
    /// HTTP status; 0 where the connection was closed without an answer.
    pub status: u16,
    /// Code of a refusal: `AADSTS…`, or the registry's code.
    pub error: Option<String>,
    /// Kind of the fault that was injected.
    pub fault: Option<&'static str>,
    /// SHA-256 of the tokens presented.
    pub presented: Vec<String>,
    /// SHA-256 of the tokens issued.
    pub issued: Vec<String>,
    /// Where the tokens themselves go, while the request is answered; none in the journal.
    #[serde(skip)]
    pub(crate) tap: Option<Tap>,
}

/// The claims of an assertion that matter.
#[derive(Clone, Debug, Serialize)]
pub struct Assertion {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `aud`, always as a list.
    pub audience: Vec<String>,
    /// `exp` less `iat`, in seconds.
    pub lifetime_s: i64,
    /// UID of the Kubernetes `ServiceAccount`.
    pub service_account_uid: Option<String>,
}

impl Entry {
    /// An entry of which only the place is known.
    pub fn new(listener: Listener, host: &str, method: &str, path: &str) -> Self {
        Self {
            seq: 0,
            time: Timestamp::now(),
            clock_offset_s: 0,
            millis: 0,
            listener,
            endpoint: Endpoint::Other,
            host: host.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            query_keys: Vec::new(),
            form_keys: Vec::new(),
            user_agent: None,
            grant_type: None,
            scope: None,
            tenant: None,
            client_id: None,
            identity: None,
            subject: None,
            assertion: None,
            status: 0,
            error: None,
            fault: None,
            presented: Vec::new(),
            issued: Vec::new(),
            tap: None,
        }
    }

    /// Notes that this token was presented.
    pub fn presents(&mut self, token: &str) {
        self.presented.push(sha256(token));
        self.keep(token);
    }

    /// Notes that this token was issued.
    pub fn issues(&mut self, token: &str) {
        self.issued.push(sha256(token));
        self.keep(token);
    }

    fn keep(&self, token: &str) {
        if let Some(tap) = &self.tap {
            tap.keep(token);
        }
    }
}

/// One CONNECT to the proxy.
#[derive(Clone, Debug, Serialize)]
pub struct Connect {
    /// Real time.
    pub time: Timestamp,
    /// Host asked for, as it was written.
    pub host: String,
    /// Port asked for.
    pub port: u16,
    /// Whether such a host exists here; otherwise the answer was 502, like a failed name look-up.
    pub accepted: bool,
}

/// Which entries to look at; an absent field matches everything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Tenant.
    pub tenant: Option<String>,
    /// Host: a login server or an authority.
    pub host: Option<String>,
    /// Client id.
    pub client_id: Option<String>,
    /// Assertion subject.
    pub subject: Option<String>,
    /// Endpoint.
    pub endpoint: Option<Endpoint>,
    /// Only entries with this `seq` or a higher one.
    pub since: u64,
}

impl Filter {
    /// Whether the entry is one of those.
    pub fn matches(&self, entry: &Entry) -> bool {
        let same = |asked: &Option<String>, is: Option<&str>| {
            asked
                .as_deref()
                .is_none_or(|asked| is.is_some_and(|is| is.eq_ignore_ascii_case(asked)))
        };
        entry.seq >= self.since
            && same(&self.tenant, entry.tenant.as_deref())
            && same(&self.host, Some(&entry.host))
            && same(&self.client_id, entry.client_id.as_deref())
            && same(&self.subject, entry.subject.as_deref())
            && self
                .endpoint
                .is_none_or(|endpoint| endpoint == entry.endpoint)
    }
}

/// How often the same thing was asked with the same outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Counter {
    /// Endpoint.
    pub endpoint: Endpoint,
    /// Host.
    pub host: String,
    /// Tenant.
    pub tenant: Option<String>,
    /// Client id.
    pub client_id: Option<String>,
    /// Assertion subject.
    pub subject: Option<String>,
    /// HTTP status.
    pub status: u16,
    /// Number of requests.
    pub count: u64,
}

/// The journal and the CONNECT log.
#[derive(Debug, Default)]
pub struct Journal {
    entries: Mutex<Entries>,
    connects: Mutex<Vec<Connect>>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    kept: VecDeque<Entry>,
}

impl Journal {
    /// Adds an entry and gives it its place.
    pub fn add(&self, mut entry: Entry) {
        let mut entries = self.entries.lock().unwrap();
        entry.seq = entries.next;
        entries.next += 1;
        if entries.kept.len() == MOST_ENTRIES {
            entries.kept.pop_front();
        }
        entries.kept.push_back(entry);
    }

    /// Adds a CONNECT.
    pub fn add_connect(&self, host: &str, port: u16, accepted: bool) {
        self.connects.lock().unwrap().push(Connect {
            time: Timestamp::now(),
            host: host.to_owned(),
            port,
            accepted,
        });
    }

    /// The entries that match.
    pub fn entries(&self, filter: &Filter) -> Vec<Entry> {
        let entries = self.entries.lock().unwrap();
        let matching = entries.kept.iter().filter(|entry| filter.matches(entry));
        matching.cloned().collect()
    }

    /// The whole CONNECT log.
    pub fn connects(&self) -> Vec<Connect> {
        self.connects.lock().unwrap().clone()
    }

    /// The entries counted by endpoint, place, identity and outcome; the control listener's own are left out.
    pub fn counters(&self) -> Vec<Counter> {
        let mut counts = BTreeMap::new();
        for e in &self.entries.lock().unwrap().kept {
            if e.listener == Listener::Control {
                continue;
            }
            let key = (
                e.endpoint,
                e.host.clone(),
                e.tenant.clone(),
                e.client_id.clone(),
                e.subject.clone(),
                e.status,
            );
            *counts.entry(key).or_insert(0) += 1;
        }
        let counter = |((endpoint, host, tenant, client_id, subject, status), count)| Counter {
            endpoint,
            host,
            tenant,
            client_id,
            subject,
            status,
            count,
        };
        counts.into_iter().map(counter).collect()
    }
}
