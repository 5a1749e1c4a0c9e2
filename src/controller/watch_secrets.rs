//! The optional watch of our Secrets' metadata: what somebody changes is put right in seconds instead of
//! at the next sweep. Needs the rights of `config/watch-secrets`.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};

use super::Controller;
use super::queue::ObjectKey;
use super::watch::in_own_words;
use crate::api::{FIELD_MANAGER, GROUP, KIND, MANAGED_BY_LABEL};

type SecretMeta = PartialObjectMeta<Secret>;

// === impl Controller ===

impl Controller {
    /// Watches the Secrets that carry our label in a namespace, or in all. One that loses the label is told
    /// as deleted, and looked at like any other that changed.
    pub(super) async fn watch_secrets(self: Arc<Self>, namespace: Option<String>) {
        let api: Api<SecretMeta> = match &namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let seconds = u32::try_from(self.watch_timeout.as_secs()).unwrap_or(u32::MAX);
        let config = watcher::Config::default()
            .labels(&format!("{MANAGED_BY_LABEL}={FIELD_MANAGER}"))
            .timeout(seconds);
        self.metrics.watches("secrets");
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(secret)) => listed.extend(self.secret_seen(&secret)),
                Ok(Event::Apply(secret) | Event::Delete(secret)) => {
                    self.secret_seen(&secret);
                }
                Ok(Event::InitDone) => {
                    for key in self.objects.missing_from(namespace.as_deref(), &listed) {
                        if self.objects.secret_is_gone(&key) {
                            self.queue.schedule(&key, self.clock.now());
                        }
                    }
                    listed.clear();
                }
                Err(error) => {
                    self.metrics.watch_failed("secrets");
                    let error = in_own_words(&error);
                    tracing::warn!(error, "watch of Secrets failed; it starts again");
                }
            }
        }
    }

    fn secret_seen(&self, secret: &SecretMeta) -> Option<ObjectKey> {
        let key = self.keeper(secret)?;
        let version = secret.resource_version().unwrap_or_default();
        if self.objects.secret_is_at(&key, &version) {
            self.queue.schedule(&key, self.clock.now());
        }
        Some(key)
    }

    /// The object that the owner reference names, else, where that was lost, the one that keeps a Secret of
    /// this name. Whether the Secret is really its own is for the reconcile to judge.
    fn keeper(&self, secret: &SecretMeta) -> Option<ObjectKey> {
        let namespace = secret.namespace()?;
        let name = secret.name_any();
        let owner = secret
            .owner_references()
            .iter()
            .find(|owner| owner.kind == KIND && owner.api_version.split('/').next() == Some(GROUP));
        let owner = owner.map(|owner| ObjectKey {
            namespace: namespace.clone(),
            name: owner.name.clone(),
        });
        owner
            .filter(|key| self.objects.keeps(key, &name))
            .or_else(|| self.objects.keeper_of(&namespace, &name))
    }
}
