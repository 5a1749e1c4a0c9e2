//! Brings a control plane up, as much of it at the same time as can be.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use tokio::{net::TcpStream, task::spawn_blocking};

use super::{
    Settings,
    children::Children,
    home::{self, ADMIN, CONTROLLER_MANAGER, Home, Tokens},
};
use crate::{
    Jwks, Ready, Tool, Tools, client_config, eventually,
    kubeconfig::{Kubeconfig, Token},
    manifests,
};

/// Another process can take a port between our choice and the program's bind.
const ATTEMPTS: usize = 5;
const BIND_FAILURE: &str = "address already in use";
const STEP_WITHIN: Duration = Duration::from_mins(1);

const CONTROLLERS: [&str; 4] = [
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    // The default roles view, edit and admin are empty without it.
    "clusterrole-aggregation-controller",
];

/// Starts everything and returns when it serves.
pub(super) async fn start(
    settings: &Settings,
    tools: &Tools,
    home: &Home,
    children: &mut Children,
) -> Result<Ready> {
    let began = Instant::now();
    let tokens = Tokens::create(home)?;
    home::write_audit_policy(&home.file("audit-policy.yaml"))?;
    let (private, public) = (home.file("sa.key"), home.file("sa.pub"));
    let signing_key = spawn_blocking(move || home::write_signing_key(&private, &public));

    let plane = Plane {
        settings,
        tools,
        home,
        tokens,
    };
    let url = plane.serve(children, signing_key).await?;
    let admin = Client::try_from(client_config(&home.file("kubeconfig")).await?)?;
    // The garbage collector looks for new kinds only every 30 s, so it starts when they are there.
    let crds = settings
        .crds
        .iter()
        .map(|path| manifests::apply(&admin, path.as_path(), "default"));
    alive(children, try_join_all(crds)).await?;
    plane.start_controllers(children, &url)?;
    alive(children, controllers_work(&admin)).await?;
    if settings.scheduler {
        plane.start_scheduler(children)?;
    }

    Ok(Ready {
        kubeconfig: home.file("kubeconfig"),
        dir: home.path().to_owned(),
        issuer: settings.issuer.clone(),
        ca_file: home.file(CERTIFICATE),
        jwks: Jwks {
            url: format!("{url}/openid/v1/jwks"),
            ca_file: home.file(CERTIFICATE),
            bearer_token_file: home.file("key-reader.token"),
        },
        audit_log: home.file("audit.log"),
        pids: children.pids(),
        startup_millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        url,
    })
}

/// Written by the API server itself: its own certificate and the authority that signed it.
const CERTIFICATE: &str = "certs/apiserver.crt";

struct Plane<'a> {
    settings: &'a Settings,
    tools: &'a Tools,
    home: &'a Home,
    tokens: Tokens,
}

struct Ports {
    etcd: u16,
    etcd_peers: u16,
    api_server: u16,
}

impl Plane<'_> {
    /// Starts etcd and the API server, with other ports if somebody was quicker.
    async fn serve(
        &self,
        children: &mut Children,
        signing_key: tokio::task::JoinHandle<Result<()>>,
    ) -> Result<String> {
        let mut signing_key = Some(signing_key);
        for attempt in 1.. {
            match self.try_serve(children, &mut signing_key).await {
                Err(error) if attempt < ATTEMPTS && error.to_string().contains(BIND_FAILURE) => {
                    children.end().await;
                    self.forget()?;
                }
                outcome => return outcome,
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn try_serve(
        &self,
        children: &mut Children,
        signing_key: &mut Option<tokio::task::JoinHandle<Result<()>>>,
    ) -> Result<String> {
        let ports = Ports::choose()?;
        let logs = self.home.path();
        children.start(
            "etcd",
            self.tools.path(Tool::Etcd),
            &self.etcd_flags(&ports),
            logs,
        )?;
        // The API server looks for etcd once a second: better to come when it is there.
        alive(children, accepts(ports.etcd)).await?;
        if let Some(signing_key) = signing_key.take() {
            signing_key.await??;
        }
        children.start(
            "kube-apiserver",
            self.tools.path(Tool::KubeApiserver),
            &self.api_server_flags(&ports),
            logs,
        )?;
        let url = format!("https://127.0.0.1:{}", ports.api_server);
        self.write_kubeconfig("kubeconfig", &url, ADMIN, &self.tokens.admin)?;
        alive(
            children,
            serves(&self.home.file(CERTIFICATE), &self.home.file("kubeconfig")),
        )
        .await?;
        Ok(url)
    }

    /// Removes what a failed attempt left.
    fn forget(&self) -> Result<()> {
        for name in ["etcd", "certs"] {
            match fs::remove_dir_all(self.home.file(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        for log in ["etcd.log", "kube-apiserver.log"] {
            fs::rename(
                self.home.file(log),
                self.home.file(&format!("{log}.failed")),
            )
            .or_else(|error| {
                if error.kind() == std::io::ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
        }
        Ok(())
    }

    fn start_controllers(&self, children: &mut Children, url: &str) -> Result<()> {
        self.write_kubeconfig(
            "controller-manager.kubeconfig",
            url,
            CONTROLLER_MANAGER,
            &self.tokens.controller_manager,
        )?;
        let program = self.tools.path(Tool::KubeControllerManager);
        children.start(
            "kube-controller-manager",
            program,
            &self.controller_manager_flags(),
            self.home.path(),
        )
    }

    /// With the administrator's rights: a test measures acrcred's, not the scheduler's.
    fn start_scheduler(&self, children: &mut Children) -> Result<()> {
        let flags = [
            format!("--kubeconfig={}", self.home.flag("kubeconfig")),
            "--leader-elect=false".into(),
            // It need not be asked anything, so it needs no port.
            "--secure-port=0".into(),
        ];
        children.start(
            "kube-scheduler",
            self.tools.path(Tool::KubeScheduler),
            &flags,
            self.home.path(),
        )
    }

    fn write_kubeconfig(&self, file: &str, server: &str, user: &str, token: &str) -> Result<()> {
        let ca_file = &self.home.file(CERTIFICATE);
        Kubeconfig {
            server,
            ca_file,
            user,
            token: Token::Inline(token),
        }
        .write(&self.home.file(file))
    }

    fn etcd_flags(&self, ports: &Ports) -> Vec<String> {
        let (clients, peers) = (
            format!("http://127.0.0.1:{}", ports.etcd),
            format!("http://127.0.0.1:{}", ports.etcd_peers),
        );
        vec![
            format!("--data-dir={}", self.home.flag("etcd")),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            "--unsafe-no-fsync".into(),
            "--log-level=error".into(),
        ]
    }

    fn api_server_flags(&self, ports: &Ports) -> Vec<String> {
        let mut flags = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
            format!("--secure-port={}", ports.api_server),
            "--bind-address=127.0.0.1".into(),
            // Else the server looks for a default route, and does not start on a machine without a network.
            "--advertise-address=127.0.0.1".into(),
            "--endpoint-reconciler-type=none".into(),
            format!("--cert-dir={}", self.home.flag("certs")),
            format!("--token-auth-file={}", self.home.flag("tokens.csv")),
            "--authorization-mode=RBAC".into(),
            format!("--service-account-issuer={}", self.settings.issuer),
            format!("--service-account-key-file={}", self.home.flag("sa.pub")),
            format!(
                "--service-account-signing-key-file={}",
                self.home.flag("sa.key")
            ),
            "--api-audiences=https://kubernetes.default.svc".into(),
            "--service-cluster-ip-range=10.99.0.0/24".into(),
            format!(
                "--audit-policy-file={}",
                self.home.flag("audit-policy.yaml")
            ),
            format!("--audit-log-path={}", self.home.flag("audit.log")),
            // In megabytes: a log that turns over would lose counts.
            "--audit-log-maxsize=100000".into(),
            "--max-requests-inflight=2000".into(),
            "--max-mutating-requests-inflight=1000".into(),
        ];
        if !self.settings.service_account_admission {
            flags.push("--disable-admission-plugins=ServiceAccount".into());
        }
        if !self.settings.admission_plugins.is_empty() {
            let plugins = self.settings.admission_plugins.join(",");
            flags.push(format!("--enable-admission-plugins={plugins}"));
        }
        flags
    }

    fn controller_manager_flags(&self) -> Vec<String> {
        let extra = self.settings.controllers.iter().map(String::as_str);
        let controllers: Vec<_> = CONTROLLERS.into_iter().chain(extra).collect();
        vec![
            format!(
                "--kubeconfig={}",
                self.home.flag("controller-manager.kubeconfig")
            ),
            format!(
                "--service-account-private-key-file={}",
                self.home.flag("sa.key")
            ),
            format!("--root-ca-file={}", self.home.flag(CERTIFICATE)),
            "--leader-elect=false".into(),
            format!("--controllers={}", controllers.join(",")),
            // It need not be asked anything, so it needs no port.
            "--secure-port=0".into(),
            // The defaults (20 and 30) would make a test of 1,000 objects wait for the garbage collector.
            "--kube-api-qps=1000".into(),
            "--kube-api-burst=2000".into(),
        ]
    }
}

impl Ports {
    /// Three that are free now.
    fn choose() -> Result<Self> {
        // Held together, so that they differ.
        let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let mut ports = listeners.iter().map(|listener| match listener {
            Ok(listener) => Ok(listener.local_addr()?.port()),
            Err(error) => Err(std::io::Error::from(error.kind())),
        });
        let mut next = || {
            ports
                .next()
                .expect("there are three")
                .context("cannot find a free port on 127.0.0.1")
        };
        Ok(Self {
            etcd: next()?,
            etcd_peers: next()?,
            api_server: next()?,
        })
    }
}

/// `work`, unless one of `children` dies first.
async fn alive<T>(children: &mut Children, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        outcome = work => outcome,
        death = children.death() => Err(death),
    }
}

async fn accepts(port: u16) -> Result<()> {
    eventually(STEP_WITHIN, "etcd accepts connections", async || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await
}

async fn serves(certificate: &Path, kubeconfig: &Path) -> Result<()> {
    eventually(STEP_WITHIN, "the API server is ready", async || {
        // Half a certificate is an error of the configuration, and tried again.
        if !certificate.exists() {
            return Err("it has no certificate yet".to_owned());
        }
        let config = client_config(kubeconfig)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let client = Client::try_from(config).map_err(|error| error.to_string())?;
        let request = http::Request::get("/readyz")
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        client
            .request_text(request)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await
}

/// Waits for what a controller makes: the namespace's `ServiceAccount`.
async fn controllers_work(admin: &Client) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    eventually(STEP_WITHIN, "the controller manager works", async || {
        let account = accounts
            .get_opt("default")
            .await
            .map_err(|error| error.to_string())?;
        account
            .map(drop)
            .ok_or_else(|| "no ServiceAccount `default` yet".to_owned())
    })
    .await
}
