//! A team's own identity: a `ServiceAccount` of the test's namespace that an application of its own trusts.

use std::collections::BTreeMap;

use acrcred::api::AcrCredential;
use anyhow::Result;
use azure_emulator::roles::Role;
use azure_emulator::state::{FederatedCredential, Identity, RoleAssignment};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{Scene, TestRegistry, manifest};

/// The audience of impersonation unless an operator says otherwise.
const AUDIENCE: &str = "api://AzureCRTokenExchange";

/// `ServiceAccount` `puller`, and the application that trusts it once [`Puller::trust`] is called.
pub struct Puller<'a> {
    pub scene: &'a Scene,
    pub name: String,
    pub client_id: String,
    pub tenant_id: String,
    pub accounts: Api<ServiceAccount>,
}

impl Scene {
    /// Rights to impersonate, an annotated `ServiceAccount`, and an application that trusts it.
    pub async fn puller(&self) -> Result<Puller<'_>> {
        self.allow_impersonation().await?;
        let puller = self.absent_puller();
        puller.create().await?;
        puller.trust()?;
        Ok(puller)
    }

    /// The same with nothing in place.
    pub fn absent_puller(&self) -> Puller<'_> {
        Puller {
            scene: self,
            name: "puller".into(),
            client_id: format!("3{}", &self.client_id[1..]),
            tenant_id: self.tenant_id.clone(),
            accounts: Api::namespaced(self.control_plane.admin(), &self.namespace),
        }
    }
}

impl Puller<'_> {
    /// Creates the `ServiceAccount` with the usual annotations.
    pub async fn create(&self) -> Result<ServiceAccount> {
        let annotations = BTreeMap::from([
            (
                "azure.workload.identity/client-id".to_owned(),
                self.client_id.clone(),
            ),
            (
                "azure.workload.identity/tenant-id".to_owned(),
                self.tenant_id.clone(),
            ),
        ]);
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        Ok(self
            .accounts
            .create(&PostParams::default(), &account)
            .await?)
    }

    pub async fn delete(&self) -> Result<()> {
        self.accounts
            .delete(&self.name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Sets an annotation, or removes it.
    pub async fn annotate(&self, key: &str, value: Option<&str>) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        self.accounts
            .patch(&self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// `sub` of its assertions.
    pub fn subject(&self) -> String {
        format!(
            "system:serviceaccount:{}:{}",
            self.scene.namespace, self.name
        )
    }

    /// Lets the application trust the `ServiceAccount`.
    pub fn trust(&self) -> Result<()> {
        self.trust_subjects(&[&self.subject()])
    }

    /// Lets the application trust just these.
    pub fn trust_subjects(&self, subjects: &[&str]) -> Result<()> {
        let issuer = self.scene.control_plane.issuer();
        let credential = |subject: &&str| FederatedCredential {
            audience: AUDIENCE.into(),
            ..FederatedCredential::new(issuer, *subject)
        };
        self.scene.emulator.add_identity(Identity {
            federated_credentials: subjects.iter().map(credential).collect(),
            ..Identity::app(&self.tenant_id, &self.client_id)
        })
    }

    /// Gives the application the right to pull.
    pub fn assign_role(&self, registry: &TestRegistry) -> Result<()> {
        let role = RoleAssignment::new(&self.client_id, &registry.server, Role::AcrPull);
        self.scene.emulator.assign_role(role)
    }

    /// A registry that only this application may pull from.
    pub async fn registry(&self, name: &str) -> Result<TestRegistry> {
        let registry = self
            .scene
            .image_registry("azurecr.io", name, |_| {})
            .await?;
        self.assign_role(&registry)?;
        Ok(registry)
    }

    /// An `AcrCredential` with this identity.
    pub fn manifest(&self, name: &str, registries: &[&TestRegistry]) -> AcrCredential {
        let mut object = manifest(name, registries);
        object.spec.identity = Some(acrcred::api::ServiceAccountIdentity {
            service_account_name: self.name.clone(),
            client_id: None,
            tenant_id: None,
        });
        object
    }
}
