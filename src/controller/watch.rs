//! Watches: each with its own task, backoff and idle limit, all feeding the one queue.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use futures::StreamExt as _;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Resource, ResourceExt as _};
use tokio::task::JoinSet;

use super::Controller;
use super::answer::ApiFailure;
use super::queue::ObjectKey;
use crate::api::AcrCredential;
use crate::process::{Readiness, ReadinessHandle};

type Guarded = DeserializeGuard<AcrCredential>;

/// One watch: a namespace, or all of them.
pub(super) struct Scope {
    namespace: Option<String>,
    ready: ReadinessHandle,
}

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
        let scopes =
            std::mem::take(&mut *self.scopes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut watches = JoinSet::new();
        for scope in scopes {
            for name in &self.watch_secrets {
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
        let Scope { namespace, ready } = scope;
        let api: Api<Guarded> = match &namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let seconds = u32::try_from(self.watch_timeout.as_secs()).unwrap_or(u32::MAX);
        let config = watcher::Config::default()
            .labels(&self.selector)
            .timeout(seconds);
        self.metrics.watches("credentials");
        let mut events = watch(api, config).default_backoff().boxed();
        let mut ready = Some(ready);
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(self.seen(object));
                }
                Ok(Event::Apply(object)) => {
                    self.seen(object);
                }
                Ok(Event::Delete(object)) => self.gone(&key_of(&object)),
                Ok(Event::InitDone) => {
                    for key in self.objects.missing_from(namespace.as_deref(), &listed) {
                        self.gone(&key);
                    }
                    listed.clear();
                    if let Some(ready) = ready.take() {
                        ready.ready();
                    }
                }
                Err(error) => {
                    self.metrics.watch_failed("credentials");
                    let failure = failure_of(error);
                    tracing::warn!(%failure, "watch of AcrCredentials failed; it starts again");
                }
            }
        }
    }

    /// Takes note of an object, and schedules it if it is news. One that cannot be parsed is skipped: it must not stop
    /// the others.
    fn seen(&self, object: Guarded) -> ObjectKey {
        let key = key_of(&object);
        match object.0 {
            Ok(mut object) => {
                object.managed_fields_mut().clear();
                let now = self.clock.now();
                if self.objects.update(&key, object, self.known_cluster(), now) {
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
pub(super) fn failure_of(error: watcher::Error) -> ApiFailure {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => ApiFailure::from(error),
        watcher::Error::WatchError(status) => ApiFailure::Refused(status),
        watcher::Error::NoResourceVersion => ApiFailure::Unreadable,
    }
}

fn key_of(object: &Guarded) -> ObjectKey {
    let metadata = object.meta();
    ObjectKey {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}
