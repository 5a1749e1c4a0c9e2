//! What the API server's audit log says happened: exact counts of who called what.

mod calls;

use std::{
    collections::HashSet,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Config};
use serde::Deserialize;

pub use self::calls::{Call, Calls};
use crate::eventually;

const MARKER_WITHIN: Duration = Duration::from_secs(10);

/// The audit log of a control plane.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    admin: Config,
    /// What has been read so far: each line is parsed once, however often a test asks.
    read: Mutex<Journal>,
}

#[derive(Debug, Default)]
struct Journal {
    offset: u64,
    calls: Vec<Arc<Call>>,
    /// Long calls that were counted when they began, and are not to be counted again when they end.
    begun: HashSet<String>,
}

impl Audit {
    pub(crate) fn new(path: &Path, admin: Config) -> Self {
        Self {
            path: path.to_owned(),
            admin,
            read: Mutex::default(),
        }
    }

    /// Every call logged so far. A call that has just been answered may be missing: see [`Audit::settled`].
    pub fn records(&self) -> Result<Calls> {
        let mut journal = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        journal.read_on(&self.path)?;
        Ok(Calls::new(journal.calls.clone()))
    }

    /// Every call answered before now, so that counts are exact: asks for an object with a name of its own and waits until the
    /// log shows that.
    pub async fn settled(&self) -> Result<Calls> {
        let marker = format!("audit-marker-{:016x}", rand::random::<u64>());
        let client = Client::try_from(self.admin.clone())?;
        Api::<ConfigMap>::namespaced(client, "default")
            .get_opt(&marker)
            .await
            .context("cannot mark the audit log")?;
        eventually(
            MARKER_WITHIN,
            "the audit log shows the marker",
            async || {
                let calls = self.records().map_err(|error| format!("{error:#}"))?;
                // The marker is among the last.
                let found = calls.iter().rev().any(|call| call.name == marker);
                if found {
                    Ok(calls)
                } else {
                    Err(format!(
                        "{} calls, the marker is not among them",
                        calls.len()
                    ))
                }
            },
        )
        .await
    }
}

impl Journal {
    fn read_on(&mut self, path: &Path) -> Result<()> {
        let mut file = File::open(path)
            .with_context(|| format!("cannot open the audit log {}", path.display()))?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut added = Vec::new();
        file.read_to_end(&mut added)?;
        // The last line may be half written.
        let complete = added
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |last| last + 1);
        for line in added[..complete]
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            self.add(serde_json::from_slice(line).context("an unreadable line in the audit log")?);
        }
        self.offset += complete as u64;
        Ok(())
    }

    fn add(&mut self, event: Event) {
        let counted = match event.stage.as_str() {
            "ResponseStarted" => self.begun.insert(event.audit_id.clone()),
            _ => !self.begun.remove(&event.audit_id),
        };
        if counted {
            self.calls.push(Arc::new(Call::from(event)));
        }
    }
}

/// The part of `audit.k8s.io/v1` Event that matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
    request_received_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

impl From<Event> for Call {
    fn from(event: Event) -> Self {
        let (_, query) = event.request_uri.split_once('?').unwrap_or_default();
        let parameter = |wanted: &str| {
            form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == wanted)
                .map(|(_, value)| value.into_owned())
        };
        Self {
            field_manager: parameter("fieldManager").unwrap_or_default(),
            dry_run: parameter("dryRun").is_some(),
            user: event.user.username,
            verb: event.verb,
            group: event.object_ref.api_group,
            resource: event.object_ref.resource,
            subresource: event.object_ref.subresource,
            namespace: event.object_ref.namespace,
            name: event.object_ref.name,
            code: event.response_status.code,
            user_agent: event.user_agent,
            received: event.request_received_timestamp,
            uri: event.request_uri,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    fn line(id: &str, stage: &str, verb: &str, query: &str) -> String {
        let event = json!({
            "kind": "Event", "auditID": id, "stage": stage, "verb": verb, "requestURI": format!("/api/v1/namespaces/a/secrets/x{query}"),
            "user": {"username": "system:serviceaccount:a:b"}, "objectRef": {"resource": "secrets", "namespace": "a", "name": "x"},
            "responseStatus": {"metadata": {}, "code": 200}, "requestReceivedTimestamp": "2026-01-02T03:04:05.678901Z",
        });
        format!("{event}\n")
    }

    #[test]
    fn a_watch_counts_once_and_a_dry_run_is_no_write() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut journal = Journal::default();
        let whole = [
            line("1", "ResponseStarted", "watch", ""),
            line("2", "ResponseComplete", "update", "?dryRun=All"),
            line(
                "3",
                "ResponseComplete",
                "patch",
                "?&force=true&fieldManager=acrcred",
            ),
            line(
                "4",
                "ResponseComplete",
                "patch",
                "?dryRun=All&fieldManager=acrcred",
            ),
            line("1", "ResponseComplete", "watch", ""),
        ]
        .concat();
        let (first, rest) = whole.split_at(whole.len() / 2);
        for part in [first, rest] {
            file.write_all(part.as_bytes()).unwrap();
            journal.read_on(file.path()).unwrap();
        }
        let calls = Calls::new(journal.calls)
            .by_service_account("a", "b")
            .in_namespace("a")
            .on("secrets");
        assert_eq!(calls.len(), 4, "{calls}");
        assert_eq!(calls.writes().len(), 1, "{calls}");
        assert_eq!(
            calls.writes().iter().next().unwrap().field_manager,
            "acrcred"
        );
    }
}
