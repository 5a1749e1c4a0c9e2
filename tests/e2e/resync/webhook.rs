//! A policy engine that changes each Secret as it is written: a mutating admission webhook over TLS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::harness::{Scene, soon};

/// The label that it puts on each Secret.
pub const LABEL: &str = "policy.example/checked";

/// It serves as long as the process lives.
pub struct Webhook {
    seen: Arc<AtomicUsize>,
}

impl Webhook {
    /// Starts it, for the Secrets of the test's namespace.
    pub async fn start(scene: &Scene) -> Result<Self> {
        let plane = scene.control_plane;
        // The API server trusts its own certificate, which is for this address.
        let certificates = plane.dir().join("certs");
        let certificate = certificates.join("apiserver.crt");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                CertificateDer::pem_file_iter(&certificate)?.collect::<Result<_, _>>()?,
                PrivateKeyDer::from_pem_file(certificates.join("apiserver.key"))?,
            )?;
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0")?);
        let port = listener.local_addr()?.port();
        let seen = Arc::<AtomicUsize>::default();
        let count = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, count) = (config.clone(), count.clone());
                // A caller that goes away is its own concern.
                std::thread::spawn(move || answer(stream, config, &count));
            }
        });
        let name = format!("label-{}", scene.namespace);
        let manifest = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": "label.policy.example",
                "clientConfig": {
                    "url": format!("https://127.0.0.1:{port}/"),
                    "caBundle": STANDARD.encode(std::fs::read(&certificate)?),
                },
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"],
                    "operations": ["CREATE", "UPDATE"],
                }],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        });
        plane.apply(manifest.to_string()).await?;
        let webhook = Self { seen };
        let secrets: Api<Secret> = Api::namespaced(plane.admin(), &scene.namespace);
        let probe: Secret = serde_json::from_value(json!({"metadata": {"generateName": "x-"}}))?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        soon("the webhook is called", async || {
            let answer = secrets.create(&dry_run, &probe).await;
            let labels = answer.map_err(|error| error.to_string())?.metadata.labels;
            let is_labelled = labels.is_some_and(|labels| labels.contains_key(LABEL));
            is_labelled
                .then_some(())
                .ok_or_else(|| "not yet".to_owned())
        })
        .await?;
        Ok(webhook)
    }

    /// How many writes it has seen.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

/// Answers one request.
fn answer(stream: TcpStream, config: Arc<ServerConfig>, seen: &AtomicUsize) -> Result<()> {
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
    let request = &review["request"];
    let uid = request["uid"].as_str().context("a uid")?;
    let path = format!("/metadata/labels/{}", LABEL.replace('/', "~1"));
    let mut operations = vec![json!({"op": "add", "path": path, "value": "yes"})];
    if request["object"]["metadata"]["labels"].is_null() {
        operations.insert(
            0,
            json!({"op": "add", "path": "/metadata/labels", "value": {}}),
        );
    }
    seen.fetch_add(1, Ordering::SeqCst);
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": uid, "allowed": true, "patchType": "JSONPatch",
            "patch": STANDARD.encode(json!(operations).to_string()),
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
