//! The program: how it starts, what it shows, how it stops, and what it never says.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::harness::{CONTROLLER, SOON, Scene, manifest, run, soon};

fn acrcred() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acrcred"));
    command.env_clear().kill_on_drop(true).stdin(Stdio::null());
    command
}

async fn refuses(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().await?;
    let text = String::from_utf8(stderr)?;
    ensure!(!status.success() && stdout.is_empty(), "it started: {text}");
    Ok(text)
}

#[test]
fn a_start_that_cannot_work_ends_with_one_line_that_says_what_to_set() {
    run(async {
        let allow = ["--allow-controller-identity", "demo/*"];
        for (arguments, environment, named) in [
            (&allow[..], &[][..], "AZURE_CLIENT_ID"),
            (
                &["--allow-controller-identity", "demo"],
                &[],
                "--allow-controller-identity",
            ),
            (&["--clouds", "AzureGermanCloud"], &[], "--clouds"),
            (&["--clouds", ""], &[], "--clouds"),
            (&["--refresh-fraction", "2"], &[], "--refresh-fraction"),
            (&["--watch-timeout", "300s"], &[], "--watch-timeout"),
            (
                &[],
                &[("AZURE_AUTHORITY_HOST", "https://login.evil.example/")],
                "AZURE_AUTHORITY_HOST",
            ),
            (&[], &[("KUBECONFIG", "/does/not/exist")], "KUBECONFIG"),
            (&[], &[], "KUBECONFIG"),
        ] {
            let mut command = acrcred();
            // Other programs of this machine may hold the default port.
            command
                .args(arguments)
                .args(["--admin-listen", "127.0.0.1:0"]);
            let text = refuses(command.envs(environment.iter().copied())).await?;
            assert!(
                text.contains(named),
                "{arguments:?} {environment:?}: {text}"
            );
            assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        }
        Ok(())
    });
}

#[test]
fn help_and_version_are_there() {
    run(async {
        let help = String::from_utf8(acrcred().arg("--help").output().await?.stdout)?;
        for word in [
            "--allow-controller-identity",
            "AZURE_FEDERATED_TOKEN_FILE",
            "--clouds",
        ] {
            assert!(help.contains(word), "{help}");
        }
        let version = String::from_utf8(acrcred().arg("--version").output().await?.stdout)?;
        assert_eq!(
            version.trim(),
            format!("acrcred {}", env!("CARGO_PKG_VERSION"))
        );
        Ok(())
    });
}

/// A running program, as a Deployment would run it.
struct Program {
    child: Child,
    admin: String,
}

impl Program {
    async fn start(scene: &Scene) -> Result<Self> {
        let (namespace, name) = CONTROLLER;
        let dir = scene.dir.path().join("pod");
        let kubeconfig = scene
            .control_plane
            .service_account_kubeconfig(namespace, name, &dir)
            .await?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let admin = listener.local_addr()?.to_string();
        drop(listener);
        let child = acrcred()
            .args([
                "--allow-controller-identity",
                &format!("{}/*", scene.namespace),
            ])
            .args([
                "--watch-namespaces",
                &scene.namespace,
                "--log-level",
                "trace",
            ])
            .args(["--admin-listen", &admin])
            .env("KUBECONFIG", kubeconfig)
            .env("AZURE_CLIENT_ID", &scene.client_id)
            .env("AZURE_TENANT_ID", &scene.tenant_id)
            .env("AZURE_FEDERATED_TOKEN_FILE", scene.token_file().await?)
            .env("HTTPS_PROXY", scene.emulator.proxy_url())
            .env("SSL_CERT_FILE", scene.emulator.ca_file())
            .stderr(Stdio::piped())
            .spawn()?;
        let program = Self { child, admin };
        soon("it is ready", async || match program.get("/readyz").await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        Ok(program)
    }

    async fn get(&self, path: &str) -> Result<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client
            .get(format!("http://{}{path}", self.admin))
            .send()
            .await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Stops it as the kubelet does; returns its log.
    async fn terminate(mut self) -> Result<String> {
        let id = self.child.id().context("it runs")?;
        let id = rustix::process::Pid::from_raw(i32::try_from(id)?).context("a process id")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().context("its log")?;
        let (status, _) = tokio::time::timeout(SOON, async {
            tokio::join!(self.child.wait(), stderr.read_to_string(&mut log))
        })
        .await?;
        ensure!(status?.success(), "{log}");
        Ok(log)
    }
}

#[test]
fn it_serves_shows_itself_and_stops_gracefully_without_a_secret_word() {
    run(async {
        let scene = Scene::new("program").await?;
        let contoso = scene.registry("contoso").await?;
        let program = Program::start(&scene).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane
            .pull(&format!("{}/team/app:v1", contoso.server))
            .await?;

        assert_eq!(program.get("/livez").await?.0, 200);
        assert_eq!(program.get("/healthz").await?.0, 200);
        let (status, metrics) = program.get("/metrics").await?;
        assert_eq!(status, 200);
        let namespace = &scene.namespace;
        for line in [
            format!(
                "acrcred_credential_expiration_timestamp_seconds{{namespace=\"{namespace}\",name=\"acr\"}} 1"
            ),
            "acrcred_credentials{state=\"ready\"} 1".to_owned(),
            "acrcred_reconcile_total{result=\"success\"}".to_owned(),
            "acrcred_mint_duration_seconds_count{hop=\"exchange\",outcome=\"success\"} 1"
                .to_owned(),
            "acrcred_refresh_total{outcome=\"success\"} 1".to_owned(),
            "acrcred_queue_oldest_due_seconds 0".to_owned(),
        ] {
            assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
        }

        let token = objects.token("acr", &contoso).await?.context("a token")?;
        let assertion = tokio::fs::read_to_string(scene.token_file().await?).await?;
        let log = program.terminate().await?;
        assert!(
            log.lines().count() > 2 && log.contains("\"stopped\""),
            "{log}"
        );
        for line in log.lines() {
            serde_json::from_str::<serde_json::Value>(line).with_context(|| line.to_owned())?;
        }
        for secret in [&token, &assertion] {
            let signature = secret.rsplit('.').next().context("a signature")?;
            let encoded = base64::engine::general_purpose::STANDARD.encode(secret);
            for piece in [
                &signature[..16],
                &signature[signature.len() - 20..],
                &encoded[..32],
            ] {
                assert!(
                    !log.contains(piece) && !metrics.contains(piece),
                    "a token was told"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn readiness_does_not_depend_on_azure() {
    run(async {
        let scene = Scene::new("no-azure").await?;
        scene
            .emulator
            .update(|state| state.tenants.retain(|t| t.tenant_id != scene.tenant_id))?;
        let closed = scene.empty_registry("azurecr.io", "closed", |_| {})?;
        let program = Program::start(&scene).await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&closed])).await?;
        objects
            .has("acr", "Stalled", "True", "InvalidIdentity")
            .await?;
        assert_eq!(
            (
                program.get("/readyz").await?.0,
                program.get("/livez").await?.0
            ),
            (200, 200)
        );
        let log = tokio::time::timeout(Duration::from_secs(10), program.terminate()).await??;
        assert!(
            log.contains("90002"),
            "the code helps whoever reads the log: {log}"
        );
        Ok(())
    });
}
