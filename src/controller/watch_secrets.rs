//! The optional watch of Secrets by name: what another client changes is repaired in seconds instead of at the next
//! resync. Needs the rights of `config/watch-secrets`.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::watcher;

use super::Controller;
use super::queue::ObjectKey;
use super::tracked::owner_annotation;
use super::watch::Change;
use super::watched::WatchedSecret;

// === impl Controller ===

impl Controller {
    /// Watches the metadata of the Secrets of one name, in a namespace or in all. RBAC can limit a watch to a name only
    /// with this field selector.
    pub(super) async fn watch_secrets(self: Arc<Self>, namespace: Option<String>, name: String) {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let on_change = |change: Change<WatchedSecret>| match change {
            Change::Seen(secret, _) => {
                let version = secret.resource_version();
                self.secret_seen(&secret, version.as_deref())
            }
            Change::Deleted(secret) => self.secret_seen(&secret, None),
            Change::Missing(key) => {
                self.secret_changed(&key, &name, None, None);
                None
            }
            Change::Listed => None,
        };
        self.follow("secrets", namespace.as_deref(), config, on_change)
            .await;
    }

    fn secret_seen(&self, secret: &WatchedSecret, version: Option<&str>) -> Option<ObjectKey> {
        let (namespace, name) = (secret.namespace()?, secret.name_any());
        let owner = owner_annotation(secret);
        let last = secret.managed_fields().first();
        let last = last.and_then(|last| last.manager.clone());
        let key = self.objects.owner_of(&namespace, &name, owner)?;
        self.secret_changed(&key, &name, version, last);
        Some(key)
    }

    fn secret_changed(
        &self,
        key: &ObjectKey,
        name: &str,
        version: Option<&str>,
        by: Option<String>,
    ) {
        if self.objects.secret_changed(key, name, version, by) {
            self.queue.schedule(key, self.clock.now());
        }
    }
}
