//! The optional watch of Secrets by name: what another client changes is repaired in seconds instead of at the next
//! resync. Needs the rights of `config/watch-secrets`.

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
use super::tracked::owner_annotation;
use super::watch::failure_of;
use crate::api::FIELD_MANAGER;

type SecretMeta = PartialObjectMeta<Secret>;

// === impl Controller ===

impl Controller {
    /// Watches the metadata of the Secrets of one name, in a namespace or in all. RBAC can limit a watch to a name only
    /// with this field selector.
    pub(super) async fn watch_secrets(self: Arc<Self>, namespace: Option<String>, name: String) {
        let api: Api<SecretMeta> = match &namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let seconds = u32::try_from(self.watch_timeout.as_secs()).unwrap_or(u32::MAX);
        let config = watcher::Config::default()
            .fields(&format!("metadata.name={name}"))
            .timeout(seconds);
        self.metrics.watches("secrets");
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(secret)) => listed.extend(self.secret_seen(&secret, false)),
                Ok(Event::Apply(secret)) => {
                    self.secret_seen(&secret, false);
                }
                Ok(Event::Delete(secret)) => {
                    self.secret_seen(&secret, true);
                }
                Ok(Event::InitDone) => {
                    for key in self.objects.missing_from(namespace.as_deref(), &listed) {
                        self.secret_changed(&key, Some(&name), None, None);
                    }
                    listed.clear();
                }
                Err(error) => {
                    self.metrics.watch_failed("secrets");
                    let failure = failure_of(error);
                    tracing::warn!(%failure, name, "watch of a Secret failed; it starts again");
                }
            }
        }
    }

    fn secret_seen(&self, secret: &SecretMeta, is_deleted: bool) -> Option<ObjectKey> {
        let (namespace, name) = (secret.namespace()?, secret.name_any());
        let key = self
            .objects
            .owner_of(&namespace, &name, owner_annotation(secret))?;
        let version = secret.resource_version().filter(|_| !is_deleted);
        self.secret_changed(&key, Some(&name), version.as_deref(), last_manager(secret));
        Some(key)
    }

    fn secret_changed(
        &self,
        key: &ObjectKey,
        name: Option<&str>,
        version: Option<&str>,
        by: Option<String>,
    ) {
        if self.objects.secret_changed(key, name, version, by) {
            self.queue.schedule(key, self.clock.now());
        }
    }
}

/// The field manager, other than acrcred, that wrote last.
fn last_manager(secret: &SecretMeta) -> Option<String> {
    let others = secret
        .managed_fields()
        .iter()
        .filter(|fields| fields.manager.as_deref() != Some(FIELD_MANAGER));
    let last = others.max_by_key(|fields| fields.time.as_ref().map(|time| time.0))?;
    last.manager.clone()
}
