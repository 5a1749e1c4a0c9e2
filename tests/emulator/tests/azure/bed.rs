//! A tenant, a cluster, an identity and a registry for one test, on an emulator that all tests share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use azure_emulator::cloud::REGISTRY_AUDIENCE;
use azure_emulator::jwt::SigningKey;
use azure_emulator::roles::Role;
use azure_emulator::state::{
    Cluster, DEFAULT_FEDERATION_AUDIENCE, Identity, JwksSource, Registry, RoleAssignment, Tenant,
};
use azure_emulator::{Emulator, Options};
use controlplane::{Tool, Tools};
use reqwest::{Proxy, Response, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// The cluster's signing key, shared by all tests since making one takes time.
pub static CLUSTER_KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());
/// A key that no cluster has.
pub static FOREIGN_KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());
/// The scope that a registry client should ask for.
pub const REGISTRY_SCOPE: &str = "https://containerregistry.azure.net/.default";
/// The scope that older clients ask for, as MSAL for Go writes it.
pub const ARM_SCOPE: &str =
    "https://management.core.windows.net//.default openid offline_access profile";
/// Login of the admin user, who pushes images.
pub const ADMIN: (&str, &str) = ("pusher", "a-password-of-the-test");

static SHARED: OnceCell<Arc<Emulator>> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Paths of the programs; built on first use.
pub fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| Tools::ensure(&[Tool::Registry, Tool::Crane]).unwrap())
}

/// A new emulator, for tests that move the clock.
pub async fn start() -> Arc<Emulator> {
    let registry_binary = tokio::task::spawn_blocking(|| tools().path(Tool::Registry).to_owned());
    let options = Options {
        registry_binary: registry_binary.await.unwrap(),
        ..Options::default()
    };
    Arc::new(Emulator::start(options).await.unwrap())
}

/// One test's part of an emulator.
pub struct Bed {
    pub emulator: Arc<Emulator>,
    pub tenant: String,
    pub client_id: String,
    pub issuer: String,
    pub subject: String,
    pub host: String,
    pub http: reqwest::Client,
    dir: tempfile::TempDir,
}

impl Bed {
    /// On the shared emulator: an app with `AcrPull` that trusts one `ServiceAccount` of one cluster.
    pub async fn new() -> Self {
        let shared = SHARED.get_or_init(start).await;
        Self::on(Arc::clone(shared))
    }

    /// The same on an emulator of one's own.
    pub fn on(emulator: Arc<Emulator>) -> Self {
        let n = NEXT.fetch_add(1, Ordering::SeqCst);
        let bed = Self {
            http: http_client(&emulator.proxy_url(), emulator.ca_pem()),
            emulator,
            tenant: format!("{n:08x}-0000-4000-8000-00000000aaaa"),
            client_id: format!("{n:08x}-0000-4000-8000-00000000bbbb"),
            issuer: format!("https://oidc.example/{n}/"),
            subject: format!("system:serviceaccount:team-{n}:puller"),
            host: format!("test{n}-a1b2.azurecr.io"),
            dir: tempfile::tempdir().unwrap(),
        };
        bed.populate();
        bed
    }

    fn populate(&self) {
        let jwks = self.dir.path().join("jwks.json");
        let keys = json!({"keys": [CLUSTER_KEY.public()]});
        std::fs::write(&jwks, keys.to_string()).unwrap();
        let cluster = Cluster {
            issuer: self.issuer.clone(),
            jwks: JwksSource::File {
                file: jwks.to_str().unwrap().to_owned(),
            },
            jwks_cache_seconds: 0,
        };
        let tenant = Tenant {
            tenant_id: self.tenant.clone(),
            ..Tenant::default()
        };
        let identity =
            Identity::app(&self.tenant, &self.client_id).trusting(&self.issuer, &self.subject);
        let registry = Registry::new(&self.tenant, &self.host).with_admin(ADMIN.0, ADMIN.1);
        self.emulator.add_cluster(cluster).unwrap();
        self.emulator.add_tenant(tenant).unwrap();
        self.emulator.add_identity(identity).unwrap();
        self.emulator.add_registry(registry).unwrap();
        let role = RoleAssignment::new(&self.client_id, &self.host, Role::AcrPull);
        self.emulator.assign_role(role).unwrap();
    }

    /// Changes this test's registry.
    pub fn change_registry(&self, change: impl FnOnce(&mut Registry)) {
        let host = &self.host;
        let find = |state: &mut azure_emulator::state::State| {
            change(
                state
                    .registries
                    .iter_mut()
                    .find(|r| r.serves(host))
                    .unwrap(),
            );
        };
        self.emulator.update(find).unwrap();
    }

    /// Changes this test's identity.
    pub fn change_identity(&self, change: impl FnOnce(&mut Identity)) {
        let id = &self.client_id;
        let find = |state: &mut azure_emulator::state::State| {
            change(
                state
                    .identities
                    .iter_mut()
                    .find(|i| &i.client_id == id)
                    .unwrap(),
            );
        };
        self.emulator.update(find).unwrap();
    }

    /// The claims of a good assertion.
    pub fn claims(&self) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({
            "iss": self.issuer, "sub": self.subject, "aud": [DEFAULT_FEDERATION_AUDIENCE],
            "iat": now, "nbf": now, "exp": now + 600,
        })
    }

    /// Asks Entra with these claims, signed by the cluster.
    pub async fn entra(&self, claims: &Value) -> Response {
        self.entra_with(
            &self.tenant,
            &self.client_id,
            REGISTRY_SCOPE,
            &CLUSTER_KEY.sign(claims),
        )
        .await
    }

    /// Asks Entra with everything spelt out.
    pub async fn entra_with(
        &self,
        tenant: &str,
        client_id: &str,
        scope: &str,
        assertion: &str,
    ) -> Response {
        let public = "login.microsoftonline.com";
        self.entra_at(public, tenant, client_id, scope, assertion)
            .await
    }

    /// Asks the authority of another cloud.
    pub async fn entra_at(
        &self,
        authority: &str,
        tenant: &str,
        client_id: &str,
        scope: &str,
        assertion: &str,
    ) -> Response {
        let form = [
            ("client_id", client_id),
            ("scope", scope),
            ("grant_type", "client_credentials"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", assertion),
        ];
        let url = format!("https://{authority}/{tenant}/oauth2/v2.0/token");
        self.http.post(url).form(&form).send().await.unwrap()
    }

    /// An Entra token for that scope.
    pub async fn entra_token(&self, scope: &str) -> String {
        let assertion = CLUSTER_KEY.sign(&self.claims());
        let answer = self
            .entra_with(&self.tenant, &self.client_id, scope, &assertion)
            .await;
        field(answer, "access_token").await
    }

    /// Exchanges an Entra token.
    pub async fn exchange(&self, token: &str) -> Response {
        self.exchange_for(&self.host, token).await
    }

    /// Exchanges an Entra token, naming that service.
    pub async fn exchange_for(&self, service: &str, token: &str) -> Response {
        let form = [
            ("grant_type", "access_token"),
            ("service", service),
            ("access_token", token),
        ];
        let url = format!("https://{}/oauth2/exchange", self.host);
        self.http.post(url).form(&form).send().await.unwrap()
    }

    /// A refresh token, all the way from an assertion.
    pub async fn refresh_token(&self) -> String {
        let entra = self
            .entra_token(&format!("{REGISTRY_AUDIENCE}/.default"))
            .await;
        field(self.exchange(&entra).await, "refresh_token").await
    }

    /// Asks the registry's token endpoint with a refresh token.
    pub async fn token(&self, refresh: &str, scope: &str) -> Response {
        let form = [
            ("grant_type", "refresh_token"),
            ("service", self.host.as_str()),
            ("scope", scope),
            ("refresh_token", refresh),
        ];
        let url = format!("https://{}/oauth2/token", self.host);
        self.http.post(url).form(&form).send().await.unwrap()
    }

    /// Asks the registry's token endpoint as docker does.
    pub async fn token_basic(&self, user: &str, password: &str, scope: &str) -> Response {
        let url = format!(
            "https://{0}/oauth2/token?service={0}&scope={scope}",
            self.host
        );
        let request = self.http.get(url).basic_auth(user, Some(password));
        request.send().await.unwrap()
    }

    /// Asks the registry itself.
    pub async fn v2(&self, path: &str, bearer: &str) -> Response {
        let url = format!("https://{}/v2/{path}", self.host);
        self.http.get(url).bearer_auth(bearer).send().await.unwrap()
    }

    /// A file or folder of this test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A client of the proxy (if there is one) that trusts that CA alone and follows nothing.
pub fn http_client(proxy: &str, ca_pem: &str) -> reqwest::Client {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(ca.unwrap()).unwrap();
    }
    let tls =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(Duration::from_secs(30));
    if !proxy.is_empty() {
        builder = builder.proxy(Proxy::all(proxy).unwrap());
    }
    builder.build().unwrap()
}

/// The JSON body of an answer.
pub async fn body(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// A text in the JSON body of a good answer.
pub async fn field(answer: Response, name: &str) -> String {
    assert_eq!(answer.status(), 200);
    body(answer).await[name].as_str().unwrap().to_owned()
}

/// Status and AADSTS number of a refusal by Entra.
pub async fn refusal(answer: Response) -> (u16, u64) {
    let status = answer.status().as_u16();
    let content = body(answer).await;
    let number = content["error_codes"][0].as_u64().unwrap();
    let text = content["error_description"].as_str().unwrap();
    assert!(text.starts_with(&format!("AADSTS{number}: ")), "{text}");
    (status, number)
}
