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
use super::api_call::ApiFailure;
use super::queue::ObjectKey;
use super::tracked::TrackedObjects;
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
            if self.watch_secrets {
                watches.spawn(self.clone().watch_secrets(scope.namespace.clone()));
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
                    listed.insert(self.seen(object, TrackedObjects::update));
                }
                Ok(Event::Apply(object)) => {
                    let update = if self.knows_creations() {
                        TrackedObjects::update_or_create
                    } else {
                        TrackedObjects::update
                    };
                    self.seen(object, update);
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
                    let error = in_own_words(&error);
                    tracing::warn!(error, "watch of AcrCredentials failed; it starts again");
                }
            }
        }
    }

    /// Takes note of an object and looks at it at once. One that cannot be read is skipped: it must not
    /// stop the others.
    fn seen(
        &self,
        object: Guarded,
        update: fn(&TrackedObjects, &ObjectKey, AcrCredential) -> bool,
    ) -> ObjectKey {
        let key = key_of(&object);
        match object.0 {
            Ok(mut object) => {
                object.managed_fields_mut().clear();
                if update(&self.objects, &key, object) {
                    self.queue.schedule(&key, self.clock.now());
                }
            }
            Err(error) => tracing::warn!(
                namespace = key.namespace,
                name = key.name,
                %error,
                "an AcrCredential cannot be read and is left alone",
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

/// The library's own text quotes the answer.
pub(super) fn in_own_words(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => ApiFailure::from(error).to_string(),
        watcher::Error::WatchError(status) => ApiFailure::from(&**status).to_string(),
        watcher::Error::NoResourceVersion => ApiFailure::Unreadable.to_string(),
    }
}

fn key_of(object: &Guarded) -> ObjectKey {
    let metadata = object.meta();
    ObjectKey {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}
