//! Adding to the state and checking it.

use anyhow::ensure;

use crate::cloud::Cloud;
use crate::state::{
    Cluster, FederatedCredential, Identity, Registry, RoleAssignment, State, Tenant,
};

/// Longest issuer, subject or audience of a federated credential, in characters.
const LONGEST_FIELD: usize = 600;
/// Most federated credentials of one identity.
const MOST_CREDENTIALS: usize = 20;

impl State {
    /// Adds a cloud, or replaces the one with the same name.
    pub fn put_cloud(&mut self, cloud: Cloud) {
        self.clouds.retain(|c| c.name != cloud.name);
        self.clouds.push(cloud);
    }

    /// Adds a cluster, or replaces the one with the same issuer.
    pub fn put_cluster(&mut self, cluster: Cluster) {
        self.clusters.retain(|c| c.issuer != cluster.issuer);
        self.clusters.push(cluster);
    }

    /// Adds a tenant, or replaces the one with the same id.
    pub fn put_tenant(&mut self, tenant: Tenant) {
        self.tenants.retain(|t| t.tenant_id != tenant.tenant_id);
        self.tenants.push(tenant);
    }

    /// Adds an identity, or replaces the one with the same client id.
    pub fn put_identity(&mut self, identity: Identity) {
        self.identities
            .retain(|i| i.client_id != identity.client_id);
        self.identities.push(identity);
    }

    /// Adds a registry, or replaces those with one of its login servers.
    pub fn put_registry(&mut self, registry: Registry) {
        self.registries
            .retain(|r| !r.login_servers.iter().any(|name| registry.serves(name)));
        self.registries.push(registry);
    }

    /// Adds a role assignment unless the same one exists.
    pub fn put_role(&mut self, role: RoleAssignment) {
        if !self.role_assignments.contains(&role) {
            self.role_assignments.push(role);
        }
    }

    /// The tenant that a URL names by GUID or verified domain.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        self.tenants.iter().find(|t| {
            t.tenant_id.eq_ignore_ascii_case(name)
                || t.domains.iter().any(|d| d.eq_ignore_ascii_case(name))
        })
    }

    /// The identity with that client id.
    pub fn identity(&self, client_id: &str) -> Option<&Identity> {
        self.identities
            .iter()
            .find(|i| i.client_id.eq_ignore_ascii_case(client_id))
    }

    /// The registry behind that host.
    pub fn registry(&self, host: &str) -> Option<&Registry> {
        self.registries.iter().find(|r| r.serves(host))
    }

    /// Every cloud that exists.
    pub fn all_clouds(&self) -> impl Iterator<Item = &Cloud> {
        Cloud::national().iter().chain(&self.clouds)
    }

    /// The cloud whose authority answers under that host name.
    pub fn cloud_of_authority(&self, host: &str) -> Option<&Cloud> {
        self.all_clouds()
            .find(|cloud| cloud.authorities.iter().any(|name| name == host))
    }

    /// Whether that host exists, as if by DNS.
    pub fn resolves(&self, host: &str) -> bool {
        self.cloud_of_authority(host).is_some() || self.registry(host).is_some()
    }

    /// Refuses what Azure would refuse to store, and what cannot work here.
    pub fn check(&self) -> anyhow::Result<()> {
        self.check_clouds()?;
        self.identities.iter().try_for_each(check_identity)?;
        for host in self.registries.iter().flat_map(|r| &r.login_servers) {
            ensure!(
                is_host(host) && self.cloud_of_authority(host).is_none(),
                "login server {host:?} is not a lower-case host name"
            );
        }
        self.registries.iter().try_for_each(check_registry)
    }

    fn check_clouds(&self) -> anyhow::Result<()> {
        for host in self.clouds.iter().flat_map(|cloud| &cloud.authorities) {
            let clouds = self.all_clouds();
            let answering = clouds.flat_map(|cloud| &cloud.authorities);
            ensure!(
                is_host(host) && answering.filter(|name| *name == host).count() == 1,
                "authority {host:?} is not a lower-case host name of one cloud"
            );
        }
        for tenant in &self.tenants {
            let named = self.all_clouds().filter(|cloud| cloud.name == tenant.cloud);
            ensure!(
                named.count() == 1,
                "tenant {} is in the cloud {:?}, of which there is not exactly one",
                tenant.tenant_id,
                tenant.cloud
            );
        }
        Ok(())
    }
}

fn check_identity(identity: &Identity) -> anyhow::Result<()> {
    let (id, fics) = (&identity.client_id, &identity.federated_credentials);
    ensure!(
        fics.len() <= MOST_CREDENTIALS,
        "identity {id} has more than {MOST_CREDENTIALS} federated credentials"
    );
    for (i, fic) in fics.iter().enumerate() {
        ensure!(
            short_enough(fic),
            "a federated credential of {id} has a field longer than {LONGEST_FIELD} characters"
        );
        let twice = fics[..i]
            .iter()
            .any(|f| f.issuer == fic.issuer && f.subject == fic.subject);
        ensure!(
            !twice,
            "identity {id} has two federated credentials for {}",
            fic.subject
        );
    }
    Ok(())
}

fn short_enough(fic: &FederatedCredential) -> bool {
    [&fic.issuer, &fic.subject, &fic.audience]
        .iter()
        .all(|field| field.chars().count() <= LONGEST_FIELD)
}

fn check_registry(registry: &Registry) -> anyhow::Result<()> {
    ensure!(
        !registry.login_servers.is_empty(),
        "a registry needs a login server"
    );
    Ok(())
}

fn is_host(text: &str) -> bool {
    text.contains('.')
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-'))
}
