//! Azure's part: the emulator with two identities and four registries.

use anyhow::Result;
use azure_emulator::fault::{Fault, FaultId, Kind, Match};
use azure_emulator::journal::{Endpoint, Entry, Listener};
use azure_emulator::registry::{ArmAuth, Registry};
use azure_emulator::roles::Role;
use azure_emulator::state::{
    Cluster as Issuer, FederatedCredential, Identity, JwksSource, RoleAssignment, State, Tenant,
};
use azure_emulator::{Emulator, Options};
use controlplane::Tool;

use crate::cluster::Cluster;
use crate::folder::Folder;
use crate::pod;
use crate::stop::{in_one_piece, wait};

/// The tenant that `config/samples` names.
pub const TENANT: &str = "00000000-0000-4000-8000-000000000002";
pub const CLIENT: &str = "3f9a7c21-5b8e-4d60-8c1f-a2b4c6d8e0f1";
/// The identity of a team, with its `ServiceAccount`, as `config/samples/service-account-identity.yaml` names them.
pub const TEAM_CLIENT: &str = "00000000-0000-4000-8000-000000000001";
const TEAM_SUBJECT: &str = "system:serviceaccount:demo:puller";
const TEAM_AUDIENCE: &str = "api://AzureCRTokenExchange";
/// Its authentication-as-arm is disabled, as it should be.
pub const CONTOSO: &str = "contoso.azurecr.io";
/// Its authentication-as-arm is enabled, which is Azure's default.
pub const FABRIKAM: &str = "fabrikam.azurecr.io";
/// Nobody asks for it before the policy is put to the test.
pub const NORTHWIND: &str = "northwind.azurecr.io";
/// Everybody may pull from it: acrcred's own image cannot wait for acrcred.
pub const PUBLIC: &str = "adventureworks.azurecr.io";
/// Who pushes: the registries' admin user.
pub const PUSHER: (&str, &str) = ("pusher", "for-pushing-only");
/// Life of a credential, in seconds, where Azure has three hours: so that a rotation can be watched.
pub const TOKEN_LIFE: i64 = 40;

/// The running emulator; ends when dropped, and its registry processes with it.
pub struct Azure(Option<Emulator>);

/// What acrcred and others have asked of Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub requests: usize,
    pub connections: usize,
}

impl Azure {
    pub async fn start(folder: &Folder, cluster: &Cluster) -> Result<Self> {
        let registry_binary = cluster
            .control_plane
            .tools()
            .path(Tool::Registry)
            .to_owned();
        let options = Options {
            dir: Some(folder.folder("azure")?),
            registry_binary,
            state: state(cluster),
            ..Options::default()
        };
        Ok(Self(Some(in_one_piece(Emulator::start(options)).await?)))
    }

    pub fn proxy(&self) -> String {
        self.emulator().proxy_url()
    }

    pub fn ca_file(&self) -> String {
        self.emulator().ca_file().display().to_string()
    }

    pub fn ca(&self) -> &[u8] {
        self.emulator().ca_pem().as_bytes()
    }

    /// Whether a registry takes Resource Manager tokens, as the emulator has it.
    pub fn arm_auth(&self, server: &str) -> Option<ArmAuth> {
        let state = self.emulator().state();
        state
            .registries
            .iter()
            .find(|registry| registry.serves(server))
            .map(|found| found.arm_auth)
    }

    /// All that Azure was asked for, except at the two registries whose tokens rotate all the time.
    pub fn traffic(&self) -> Traffic {
        let rotates = |host: &str| host == CONTOSO || host == FABRIKAM;
        let journal = self.emulator().journal();
        let requests = journal
            .iter()
            .filter(|entry| entry.listener != Listener::Control);
        Traffic {
            requests: requests.filter(|entry| !rotates(&entry.host)).count(),
            connections: self
                .emulator()
                .connects()
                .iter()
                .filter(|c| !rotates(&c.host))
                .count(),
        }
    }

    /// Exchanges that a registry was asked for.
    pub fn exchanges(&self, server: &str) -> Vec<Entry> {
        let mut journal = self.emulator().journal();
        journal.retain(|entry| entry.host == server && entry.endpoint == Endpoint::Exchange);
        journal
    }

    /// Lets Entra and a registry's token service answer 503, until the answer is dropped.
    pub fn break_down(&self, server: &str) -> BrokenDown<'_> {
        let faults = [
            Fault::new(Endpoint::Login, Match::tenant(TENANT), Kind::status(503)),
            Fault::new(
                Endpoint::Exchange,
                Match::registry(server),
                Kind::status(503),
            ),
        ];
        let emulator = self.emulator();
        BrokenDown {
            emulator,
            faults: faults.map(|fault| emulator.add_fault(fault)),
        }
    }

    fn emulator(&self) -> &Emulator {
        self.0.as_ref().expect("taken by drop only")
    }
}

/// While it lives, Azure is out of order.
pub struct BrokenDown<'a> {
    emulator: &'a Emulator,
    faults: [FaultId; 2],
}

impl Drop for BrokenDown<'_> {
    fn drop(&mut self) {
        for fault in self.faults {
            self.emulator.remove_fault(fault);
        }
    }
}

impl Drop for Azure {
    fn drop(&mut self) {
        if let Some(emulator) = self.0.take() {
            // It waits for the registry processes, whose folder is removed next.
            let _ = wait(emulator.shutdown());
        }
    }
}

fn state(cluster: &Cluster) -> State {
    let control_plane = &cluster.control_plane;
    let jwks = control_plane.jwks();
    let issuer = Issuer {
        issuer: control_plane.issuer().to_owned(),
        jwks: JwksSource::Url {
            url: jwks.url.clone(),
            ca_file: Some(jwks.ca_file.display().to_string()),
            bearer_token_file: Some(jwks.bearer_token_file.display().to_string()),
        },
        jwks_cache_seconds: 0,
    };
    let identity = Identity::app(TENANT, CLIENT).trusting(control_plane.issuer(), pod::subject());
    let team = Identity {
        federated_credentials: vec![FederatedCredential {
            audience: TEAM_AUDIENCE.into(),
            ..FederatedCredential::new(control_plane.issuer(), TEAM_SUBJECT)
        }],
        ..Identity::app(TENANT, TEAM_CLIENT)
    };
    let role = |(client, server)| RoleAssignment::new(client, server, Role::AcrPull);
    let roles = [
        (CLIENT, CONTOSO),
        (CLIENT, FABRIKAM),
        (CLIENT, NORTHWIND),
        (TEAM_CLIENT, CONTOSO),
    ];
    State {
        clusters: vec![issuer],
        tenants: vec![Tenant {
            tenant_id: TENANT.into(),
            ..Tenant::default()
        }],
        identities: vec![identity, team],
        registries: vec![
            registry(CONTOSO, ArmAuth::Disabled, Some(TOKEN_LIFE)),
            registry(FABRIKAM, ArmAuth::Enabled, Some(TOKEN_LIFE)),
            registry(NORTHWIND, ArmAuth::Disabled, None),
            Registry {
                anonymous_pull: true,
                ..registry(PUBLIC, ArmAuth::Disabled, None)
            },
        ],
        role_assignments: roles.map(role).into(),
        ..State::default()
    }
}

fn registry(server: &str, arm_auth: ArmAuth, life: Option<i64>) -> Registry {
    let (user, password) = PUSHER;
    let mut registry = Registry::new(TENANT, server).with_admin(user, password);
    registry.arm_auth = arm_auth;
    registry.refresh_token_lifetime_s = life;
    registry
}
