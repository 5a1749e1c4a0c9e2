//! Watches: each with its own task, backoff and idle limit, all feeding the one queue.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::Controller;
use super::answer::ApiFailure;
use super::queue::ObjectKey;
use super::watched::WatchedCredential;
use crate::process::{Readiness, ReadinessHandle};

/// One watch: a namespace, or all of them.
pub(super) struct Scope {
    namespace: Option<String>,
    ready: ReadinessHandle,
}

/// What a watch reports.
pub(super) enum Change<K> {
    /// This is there; from a list or not.
    Seen(K, bool),
    /// This object was deleted.
    Deleted(K),
    /// A whole list has nothing for this object.
    Missing(ObjectKey),
    /// A whole list was read.
    Listed,
}

/// So many objects of a list are in memory as text at once: each may have 1 MiB and more.
const PAGE: u32 = 50;

// === impl Scope ===

impl Scope {
    /// Every namespace, or just those that are named.
    pub fn of(namespaces: &[String], readiness: &Readiness) -> Vec<Self> {
        let scope = |namespace| Self {
            namespace,
            ready: readiness.awaits("the first list of AcrCredentials"),
        };
        if namespaces.is_empty() {
            return vec![scope(None)];
        }
        namespaces.iter().cloned().map(Some).map(scope).collect()
    }
}

// === impl Controller ===

impl Controller {
    /// Watches every scope. Ends only if a watch does.
    pub(super) async fn watch_all(self: Arc<Self>) {
        let scopes = std::mem::take(&mut *self.scopes.lock());
        let mut watches = JoinSet::new();
        for scope in scopes {
            for name in &self.options.watch_secrets {
                let watch = self
                    .clone()
                    .watch_secrets(scope.namespace.clone(), name.clone());
                watches.spawn(watch);
            }
            watches.spawn(self.clone().watch(scope));
        }
        // The others are aborted as the set drops.
        watches.join_next().await;
    }

    async fn watch(self: Arc<Self>, scope: Scope) {
        let config = watcher::Config::default().labels(&self.options.selector);
        let mut ready = Some(scope.ready);
        let on_change = |change: Change<WatchedCredential>| match change {
            Change::Seen(object, is_listed) => Some(self.seen(object, is_listed)),
            Change::Deleted(object) => {
                self.gone(&key_of(&object));
                None
            }
            Change::Missing(key) => {
                self.gone(&key);
                None
            }
            Change::Listed => {
                if let Some(ready) = ready.take() {
                    ready.ready();
                }
                None
            }
        };
        let namespace = scope.namespace.as_deref();
        self.follow("credentials", namespace, config, on_change)
            .await;
    }

    /// Watches one kind in a namespace, or in all. `on_change` names the object that something was seen for; those that
    /// a whole list names none for are [`Change::Missing`]. Ends only if the watch does.
    pub(super) async fn follow<K>(
        &self,
        kind: &'static str,
        namespace: Option<&str>,
        config: watcher::Config,
        mut on_change: impl FnMut(Change<K>) -> Option<ObjectKey>,
    ) where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let api: Api<K> = match namespace {
            Some(namespace) => Api::namespaced(self.options.client.clone(), namespace),
            None => Api::all(self.options.client.clone()),
        };
        let seconds = u32::try_from(self.options.watch_timeout.as_secs()).unwrap_or(u32::MAX);
        let config = config.timeout(seconds).page_size(PAGE);
        self.metrics.watches(kind);
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.extend(on_change(Change::Seen(object, true)));
                }
                Ok(Event::Apply(object)) => _ = on_change(Change::Seen(object, false)),
                Ok(Event::Delete(object)) => _ = on_change(Change::Deleted(object)),
                Ok(Event::InitDone) => {
                    for key in self.objects.missing_from(namespace, &listed) {
                        on_change(Change::Missing(key));
                    }
                    listed.clear();
                    on_change(Change::Listed);
                }
                Err(error) => {
                    self.metrics.watch_failed(kind);
                    let failure = failure_of(error);
                    tracing::warn!(%failure, kind, "watch failed; restarting it");
                }
            }
        }
    }

    /// Takes note of an object, and schedules it if it is news. One whose spec cannot be read is skipped.
    fn seen(&self, object: WatchedCredential, is_listed: bool) -> ObjectKey {
        let key = key_of(&object);
        match object.object() {
            Ok(object) => {
                let now = self.clock.now();
                let cluster = self.known_cluster();
                if self.objects.update(&key, object, is_listed, cluster, now) {
                    self.queue.schedule(&key, now);
                }
            }
            Err(error) => tracing::warn!(
                namespace = key.namespace,
                name = key.name,
                %error,
                "cannot parse an AcrCredential, skipping it",
            ),
        }
        key
    }

    fn gone(&self, key: &ObjectKey) {
        self.objects.remove(key);
        self.queue.remove(key);
        self.metrics.object_is_gone(&key.namespace, &key.name);
    }
}

/// Why a watch failed. The library's own text quotes the answer.
fn failure_of(error: watcher::Error) -> ApiFailure {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => ApiFailure::from(error),
        watcher::Error::WatchError(status) => ApiFailure::Refused(status),
        watcher::Error::NoResourceVersion => ApiFailure::Unreadable,
    }
}

fn key_of(object: &impl Resource) -> ObjectKey {
    ObjectKey {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}
