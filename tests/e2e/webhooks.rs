//! Admission that is not acrcred's own stands between it and its Secrets: a webhook that is down, one that refuses, and a policy
//! that refuses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result, ensure};
use azure_emulator::journal::Endpoint;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use controlplane::Call;
use jiff::SignedDuration;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::harness::{
    CONTROLLER, Objects, REFRESH, Scene, TestRegistry, condition, manifest, run, soon,
};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// How long after its cause is gone a failure may last, and how much of it a test waits for in real time.
const RECOVERY: SignedDuration = SignedDuration::from_secs(60);
const REAL: SignedDuration = SignedDuration::from_secs(5);
/// What acrcred's own policy says of a Secret that is another's.
const NOT_OWNED: &str = "the stored Secret is not owned by this AcrCredential";
/// So many objects that one with the longest delay is among them.
const OBJECTS: usize = 6;

impl Scene {
    /// Registers a fail-closed webhook for the Secrets of the test's namespace.
    async fn add_webhook(&self, name: &str, url: &str, ca: Option<&[u8]>) -> Result<()> {
        let operations = ["CREATE", "UPDATE"];
        self.add_webhook_of("ValidatingWebhookConfiguration", &operations, name, url, ca)
            .await
    }

    async fn add_webhook_of(
        &self,
        kind: &str,
        operations: &[&str],
        name: &str,
        url: &str,
        ca: Option<&[u8]>,
    ) -> Result<()> {
        let manifest = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": self.namespace},
            "webhooks": [{
                "name": name,
                "clientConfig": {"url": url, "caBundle": ca.map(|ca| STANDARD.encode(ca))},
                "failurePolicy": "Fail",
                "timeoutSeconds": 2,
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"],
                    "operations": operations,
                }],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        });
        self.control_plane.apply(manifest.to_string()).await?;
        self.refuses_everybody(name).await
    }

    /// The positive control: nobody can write a Secret, for this reason.
    async fn refuses_everybody(&self, name: &str) -> Result<()> {
        soon("it stands in everybody's way", async || {
            match self.probe().await {
                Err(kube::Error::Api(status)) if status.message.contains(name) => Ok(()),
                other => Err(format!("{:?}", other.map(|_| "accepted"))),
            }
        })
        .await
    }

    async fn remove_webhook(&self) -> Result<()> {
        let hooks: Api<ValidatingWebhookConfiguration> = Api::all(self.control_plane.admin());
        hooks
            .delete(&self.namespace, &DeleteParams::default())
            .await?;
        self.refuses_nobody().await
    }

    async fn refuses_nobody(&self) -> Result<()> {
        soon("Secrets can be written", async || {
            self.probe()
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await
    }

    /// Somebody else's Secret, without effect.
    async fn probe(&self) -> kube::Result<Secret> {
        let mut secret = Secret::default();
        secret.metadata.name = Some("probe".to_owned());
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        self.objects().secrets.create(&dry_run, &secret).await
    }

    /// How often acrcred has tried to write the Secret of this name, in vain.
    async fn refusals(&self, name: &str) -> Result<usize> {
        let calls = self.calls().await?.on("secrets");
        let in_vain = |call: &Call| call.name == name && call.code >= 400;
        Ok(calls.count(in_vain))
    }

    fn exchanges(&self) -> usize {
        self.journal(Endpoint::Exchange).len()
    }
}

/// An address where nobody listens.
fn nowhere() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(format!("https://{}/", listener.local_addr()?))
}

fn told<'a>(object: &'a AcrCredential, kind: &str) -> Result<&'a str> {
    Ok(&condition(object, kind).context("a condition")?.message)
}

async fn fails(objects: &Objects, name: &str) -> Result<AcrCredential> {
    objects
        .has(name, "RefreshFailing", "True", "SecretWriteFailed")
        .await
}

#[test]
fn while_a_webhook_is_down_it_is_named_expiry_is_reported_and_recovery_is_quick() {
    run(async {
        let scene = Scene::with_own_time("webhook-down").await?;
        let contoso = scene.registry("contoso").await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        let names: Vec<String> = (0..OBJECTS).map(|number| format!("acr-{number}")).collect();
        for name in &names {
            objects.create_ready(&manifest(name, &[&contoso])).await?;
        }
        let before = scene.exchanges();
        scene
            .add_webhook("down.policy.example", &nowhere()?, None)
            .await?;

        scene.advance(REFRESH);
        for name in &names {
            let object = fails(&objects, name).await?;
            let message = told(&object, "RefreshFailing")?;
            ensure!(message.contains("down.policy.example"), "{message}");
            ensure!(condition(&object, "Ready").is_some_and(|c| c.status == "True"));
            ensure!(
                condition(&object, "Stalled").is_none(),
                "it may pass by itself"
            );
        }
        let minted = scene.exchanges();
        ensure!(minted > before, "it did not even try");
        // An hour of attempts: what is in hand is not due.
        for _ in 0..12 {
            let tries = scene.refusals("acr-0").await?;
            scene.advance(5 * MINUTE);
            soon("another attempt is in vain", async || {
                match scene.refusals("acr-0").await {
                    Ok(now) if now > tries => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        acrcred.catches_up().await?;
        ensure!(
            scene.exchanges() == minted,
            "{} mints more",
            scene.exchanges() - minted
        );

        // What the Secret holds ends, and the object says so.
        scene.advance(40 * MINUTE);
        for name in &names {
            let object = objects
                .has(name, "Ready", "False", "SecretWriteFailed")
                .await?;
            ensure!(
                condition(&object, "Reconciling").is_some(),
                "{:?}",
                object.status
            );
        }
        let statuses = scene.calls().await?.writes().on("acrcredentials/status");
        let statuses = statuses.count(|call| call.name == "acr-0");
        ensure!(
            statuses == 3,
            "{statuses} status writes: ready, failing, expired"
        );

        // The longest delay from here on.
        for _ in 0..3 {
            let tries = scene.refusals("acr-0").await?;
            scene.advance(2 * MINUTE);
            soon("another attempt is in vain", async || {
                match scene.refusals("acr-0").await {
                    Ok(now) if now > tries => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        acrcred.catches_up().await?;
        scene.remove_webhook().await?;
        let gone = Instant::now();
        scene.advance(RECOVERY - REAL);
        for name in &names {
            objects.ready(name).await?;
        }
        let took = gone.elapsed();
        ensure!(took < Duration::try_from(REAL)?, "another {took:?}");
        Ok(())
    });
}

#[test]
fn a_first_credential_waits_in_hand_for_a_webhook_that_is_down() {
    run(async {
        let scene = Scene::with_own_time("webhook-first").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects
            .create_ready(&manifest("control", &[&contoso]))
            .await?;
        scene
            .add_webhook("down.policy.example", &nowhere()?, None)
            .await?;
        objects.create(&manifest("acr", &[&contoso])).await?;
        let object = objects
            .has("acr", "Reconciling", "True", "SecretWriteFailed")
            .await?;
        let message = told(&object, "Ready")?;
        ensure!(message.contains("down.policy.example"), "{message}");
        let minted = scene.exchanges();
        for _ in 0..5 {
            let tries = scene.refusals("acr").await?;
            scene.advance(MINUTE + SignedDuration::from_secs(15));
            soon("another attempt is in vain", async || {
                match scene.refusals("acr").await {
                    Ok(now) if now > tries => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        ensure!(scene.exchanges() == minted, "minted again");
        scene.remove_webhook().await?;
        scene.advance(MINUTE);
        objects.ready("acr").await?;
        ensure!(scene.exchanges() == minted, "minted again");
        Ok(())
    });
}

/// That a refusal is told as what it is, for a Secret that is there and for one that is not.
async fn is_named(scene: &Scene, contoso: &TestRegistry, name: &str) -> Result<()> {
    let objects = scene.objects();
    let before = objects.secret("acr").await?.data;
    scene.advance(REFRESH);
    let object = fails(&objects, "acr").await?;
    let message = told(&object, "RefreshFailing")?;
    ensure!(message.contains(name), "{message}");
    objects.create(&manifest("new", &[contoso])).await?;
    let object = objects
        .has("new", "Stalled", "True", "SecretWriteFailed")
        .await?;
    let message = told(&object, "Ready")?;
    ensure!(message.contains(name), "{message}");
    // Of its own words, nothing is repeated.
    let status = format!("{:?}", object.status);
    ensure!(!status.contains("canary"), "{status}");
    ensure!(objects.secret("acr").await?.data == before);
    Ok(())
}

async fn recovers(scene: &Scene) -> Result<()> {
    scene.advance(MINUTE);
    for name in ["acr", "new"] {
        scene.objects().ready(name).await?;
    }
    Ok(())
}

#[test]
fn a_webhook_that_refuses_is_named_and_the_secret_is_still_ours() {
    run(async {
        let scene = Scene::with_own_time("webhook-denies").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let (url, ca) = denying(&scene)?;
        scene
            .add_webhook("denies.policy.example", &url, Some(&ca))
            .await?;
        is_named(&scene, &contoso, "denies.policy.example").await?;
        scene.remove_webhook().await?;
        recovers(&scene).await
    });
}

#[test]
fn a_policy_of_somebody_else_that_refuses_is_named_and_the_secret_is_still_ours() {
    run(async {
        let scene = Scene::with_own_time("policy-denies").await?;
        let contoso = scene.registry("contoso").await?;
        let _acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let name = format!("denies-{}", scene.namespace);
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"],
                    "operations": ["CREATE", "UPDATE"],
                }]},
                // acrcred's own checks of its policy must show whose the refusal is.
                "validations": [{"expression": "false", "message": "canary: not today"}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}},
            },
        });
        for object in [policy, binding] {
            scene.control_plane.apply(object.to_string()).await?;
        }
        scene.refuses_everybody(&name).await?;
        is_named(&scene, &contoso, &name).await?;
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(scene.control_plane.admin());
        bindings.delete(&name, &DeleteParams::default()).await?;
        scene.refuses_nobody().await?;
        recovers(&scene).await
    });
}

/// A webhook that refuses everything, in the words of acrcred's own policy; its address, and whom to trust. It serves as long as
/// the process lives.
fn denying(scene: &Scene) -> Result<(String, Vec<u8>)> {
    // The API server trusts its own certificate, which is for this address.
    let certificates = scene.control_plane.dir().join("certs");
    let certificate = certificates.join("apiserver.crt");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            CertificateDer::pem_file_iter(&certificate)?.collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_file(certificates.join("apiserver.key"))?,
        )?;
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0")?);
    let url = format!("https://{}/", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            // A caller that goes away is its own concern.
            std::thread::spawn(move || deny(stream, config));
        }
    });
    Ok((url, std::fs::read(&certificate)?))
}

/// Answers one request.
fn deny(stream: TcpStream, config: Arc<ServerConfig>) -> Result<()> {
    let mut tls = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    let mut length = 0;
    loop {
        let mut line = String::new();
        tls.read_line(&mut line)?;
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    tls.read_exact(&mut body)?;
    let review: Value = serde_json::from_slice(&body)?;
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"], "allowed": false,
            "status": {"code": 403, "message": format!("canary: {NOT_OWNED}")},
        },
    })
    .to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    let stream = tls.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(answer.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

#[test]
fn a_check_of_the_policy_that_gets_no_answer_is_repeated_after_a_delay() {
    run(async {
        let scene = Scene::with_own_time("webhook-check").await?;
        let contoso = scene.registry("contoso").await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        // A mutating webhook runs before any policy, so the check learns nothing.
        let kind = "MutatingWebhookConfiguration";
        let name = "down.policy.example";
        scene
            .add_webhook_of(kind, &["CREATE"], name, &nowhere()?, None)
            .await?;
        // acrcred may replace a Secret that another client changed only after a recent check.
        let foreign = json!({"metadata": {"labels": {"by": "another"}}});
        let merge = Patch::Merge(&foreign);
        objects
            .secrets
            .patch("acr", &PatchParams::default(), &merge)
            .await?;
        scene.advance(REFRESH);
        let checks = async || {
            let calls = scene.control_plane.audit().settled().await?;
            let (namespace, name) = CONTROLLER;
            let calls = calls
                .by_service_account(namespace, name)
                .in_namespace(&scene.namespace);
            anyhow::Ok(calls.count(|call| call.verb == "create" && call.dry_run))
        };
        let before = checks().await?;
        let some = soon("a check fails", async || {
            let made = checks().await.map_err(|error| error.to_string())?;
            (made > before + 1).then_some(made).ok_or(format!("{made}"))
        })
        .await?;
        let began = Instant::now();
        acrcred.catches_up().await?;
        soon("some seconds have passed", async || {
            let passed = began.elapsed();
            (passed > Duration::from_secs(3))
                .then_some(())
                .ok_or(format!("{passed:?}"))
        })
        .await?;
        let made = checks().await? - some;
        ensure!(made <= 4, "{made} checks in 3 s");

        // The positive control: once the check gets an answer, the Secret is replaced.
        let hooks: Api<MutatingWebhookConfiguration> = Api::all(scene.control_plane.admin());
        hooks
            .delete(&scene.namespace, &DeleteParams::default())
            .await?;
        scene.refuses_nobody().await?;
        scene.advance(MINUTE);
        objects.another_token("acr", &contoso, &token).await?;
        Ok(())
    });
}
