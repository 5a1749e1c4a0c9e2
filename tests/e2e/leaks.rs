//! Nothing leaks: whatever an upstream says or echoes, no token and no word of it comes out anywhere.

mod cases;

use std::path::{Path, PathBuf};

use acrcred::api::AcrCredential;
use anyhow::{Context as _, Result, ensure};
use azure_emulator::fault::{CANARY, Fault, Match};
use azure_emulator::journal::Endpoint;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::harness::{Program, Scanner, Scene, TestRegistry, acrcred, limited, manifest, run};
use cases::{MARKER, exchange_cases, login_cases, token_cases};

/// Long enough to see a rotation, short enough to wait for it.
const SHORT_LIFE_S: i64 = 20;

/// What the program left behind, by place.
type Remains = Vec<(String, String)>;

/// Successes, a rotation, and every fault at each hop. Returns what is to be searched, the log last.
async fn story(scene: &Scene, format: &str) -> Result<Remains> {
    let cwd = scene.dir.path().join("cwd");
    tokio::fs::create_dir(&cwd).await?;
    let program = Program::start_with(scene, |command| {
        command
            // Without shared tokens each object makes calls of its own.
            .args(["--log-format", format, "--token-cache-max-life", "0"])
            .env(
                "RUST_LOG",
                "trace,hyper=trace,reqwest=trace,kube_client=trace,azure_core=trace",
            )
            .current_dir(&cwd);
    })
    .await?;
    let objects = scene.objects();
    let open = |name: &str, life: Option<i64>| -> Result<TestRegistry> {
        let adjust = |registry: &mut azure_emulator::registry::Registry| {
            registry.refresh_token_lifetime_s = life;
        };
        let registry = scene.empty_registry("azurecr.io", name, adjust)?;
        scene.assign_role(&registry)?;
        Ok(registry)
    };
    let healthy = open("healthy", Some(SHORT_LIFE_S))?;
    objects
        .create_ready(&manifest("healthy", &[&healthy]))
        .await?;
    let first = objects
        .token("healthy", &healthy)
        .await?
        .context("a token")?;

    let narrow = open("narrow", None)?;
    objects
        .create_ready(&limited("narrow", &narrow, &["team/app"]))
        .await?;
    for (endpoint, cases) in [
        (Endpoint::Exchange, exchange_cases()),
        (Endpoint::Token, token_cases()),
    ] {
        let name = |number: usize| format!("{endpoint:?}-{number}").to_lowercase();
        for (number, (kind, _)) in cases.iter().enumerate() {
            let registry = open(&format!("{endpoint:?}{number}x").to_lowercase(), None)?;
            let matching = Match::registry(&registry.server);
            scene
                .emulator
                .add_fault(Fault::new(endpoint, matching, kind.clone()));
            let object = match endpoint {
                Endpoint::Token => limited(&name(number), &registry, &["team/app"]),
                _ => manifest(&name(number), &[&registry]),
            };
            objects.create(&object).await?;
        }
        for (number, (kind, reason)) in cases.iter().enumerate() {
            objects
                .has(&name(number), "Ready", "False", reason)
                .await
                .with_context(|| format!("{kind:?}"))?;
        }
    }
    let open = open("open", None)?;
    for (number, (kind, reason)) in login_cases().into_iter().enumerate() {
        let what = format!("{kind:?}");
        let fault = Fault::new(Endpoint::Login, Match::tenant(&scene.tenant_id), kind);
        let fault = scene.emulator.add_fault(fault);
        let name = format!("login-{number}");
        objects.create(&manifest(&name, &[&open])).await?;
        objects
            .has(&name, "Ready", "False", reason)
            .await
            .context(what)?;
        scene.emulator.remove_fault(fault);
    }
    objects.another_token("healthy", &healthy, &first).await?;
    objects.create_ready(&manifest("late", &[&open])).await?;

    let mut remains = of_the_namespace(scene).await?;
    remains.extend(of_the_process(&program).await?);
    ensure!(std::fs::read_dir(&cwd)?.next().is_none(), "it wrote a file");
    remains.push(("the log".into(), program.terminate().await?));
    Ok(remains)
}

/// Events, and objects with all of their metadata; of Secrets all but the payload.
async fn of_the_namespace(scene: &Scene) -> Result<Remains> {
    let (client, namespace) = (scene.control_plane.admin(), &scene.namespace);
    let all = ListParams::default();
    let events = Api::<Event>::namespaced(client.clone(), namespace)
        .list(&all)
        .await?;
    let objects = Api::<AcrCredential>::namespaced(client.clone(), namespace)
        .list(&all)
        .await?;
    let secrets = Api::<Secret>::namespaced(client, namespace)
        .list(&all)
        .await?;
    let metadata: Vec<_> = secrets
        .items
        .iter()
        .map(|secret| &secret.metadata)
        .collect();
    ensure!(
        !events.items.is_empty() && !metadata.is_empty(),
        "nothing to search"
    );
    Ok(vec![
        ("events".into(), json!(events.items).to_string()),
        ("objects".into(), json!(objects.items).to_string()),
        ("Secrets' metadata".into(), json!(metadata).to_string()),
    ])
}

/// What the process shows to its neighbours on the node and to whoever scrapes it.
async fn of_the_process(program: &Program) -> Result<Remains> {
    let mut remains = Remains::new();
    for file in ["cmdline", "environ"] {
        let path = format!("/proc/{}/{file}", program.pid()?.as_raw_nonzero());
        let content = tokio::fs::read(&path).await?;
        ensure!(!content.is_empty(), "{path} is empty");
        remains.push((file.into(), String::from_utf8_lossy(&content).into_owned()));
    }
    for path in ["/metrics", "/readyz", "/livez", "/healthz"] {
        remains.push((path.into(), program.get(path).await?.1));
    }
    Ok(remains)
}

/// Every token of the story: those that the emulator saw or issued, and acrcred's own at the API server.
async fn tokens(scene: &Scene) -> Result<Vec<String>> {
    let is_jwt = |token: &String| token.starts_with("eyJ") && token.split('.').count() == 3;
    let mut tokens: Vec<String> = scene.emulator.tokens().into_iter().filter(is_jwt).collect();
    let (mut entra, mut acr) = (0, 0);
    for claims in tokens.iter().filter_map(|token| claims(token)) {
        let audience = claims["aud"].as_str().unwrap_or_default();
        entra += usize::from(audience == "https://containerregistry.azure.net");
        acr += usize::from(audience.ends_with(".azurecr.io"));
    }
    ensure!(
        entra >= 3 && acr >= 3,
        "{entra} Entra tokens, {acr} tokens of registries"
    );
    let mut held = vec![tokio::fs::read_to_string(scene.token_path()).await?];
    for name in ["healthy", "narrow"] {
        let config = scene.objects().docker_config(name).await?;
        let config: Value = serde_json::from_slice(&config)?;
        let auths = config["auths"].as_object().context("entries")?;
        let passwords = auths.values().filter_map(|a| a["password"].as_str());
        held.extend(passwords.map(str::to_owned));
    }
    for token in held {
        ensure!(tokens.contains(&token), "the emulator kept not every token");
    }
    // Its kubeconfig names a file beside it with a token for the API server.
    let all = tokens.len();
    for pod in glob(scene.dir.path(), "pod-")? {
        let files = glob(&pod, "")?
            .into_iter()
            .filter_map(|file| std::fs::read_to_string(file).ok());
        tokens.extend(files.map(|text| text.trim().to_owned()).filter(is_jwt));
    }
    ensure!(tokens.len() > all, "no token for the API server");
    Ok(tokens)
}

fn glob(dir: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    let named = entries
        .into_iter()
        .filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
    Ok(named.map(|entry| entry.path()).collect())
}

fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&json).ok()
}

async fn nothing_leaks(format: &str) -> Result<()> {
    let scene = Scene::with_own_time("leaks").await?;
    let remains = story(&scene, format).await?;
    let scanner = Scanner::new(&tokens(&scene).await?);
    for (place, text) in &remains {
        assert_eq!(scanner.sightings(text), [], "a token was told in {place}");
        for word in [MARKER, "forged", "[2J", CANARY] {
            assert!(
                !text.contains(word),
                "{word} of an upstream came out in {place}"
            );
        }
    }
    // The faults did happen, and where the tokens belong the scanner sees them.
    for (endpoint, cases) in [
        (Endpoint::Login, login_cases().len()),
        (Endpoint::Exchange, exchange_cases().len()),
        (Endpoint::Token, token_cases().len()),
    ] {
        let faults = scene
            .journal(endpoint)
            .iter()
            .filter(|entry| entry.fault.is_some())
            .count();
        assert!(faults >= cases, "{faults} faults at {endpoint:?}");
    }
    for name in ["healthy", "narrow"] {
        let secret = json!(scene.objects().secret(name).await?).to_string();
        let seen = scanner.sightings(&secret);
        assert!(!seen.is_empty(), "the scanner is blind");
    }
    assert!(
        !scene
            .emulator
            .connects()
            .iter()
            .any(|connect| connect.host == CANARY)
    );
    let (_, log) = remains.last().context("a log")?;
    log_is_sound(log, format)
}

fn log_is_sound(log: &str, format: &str) -> Result<()> {
    ensure!(
        log.contains("700213") && log.contains("has a problem"),
        "a log of another story: {log}"
    );
    ensure!(!log.contains("panicked"), "{log}");
    for line in log.lines() {
        let odd = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!line.contains(odd), "{line:?}");
        if format == "json" {
            let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let target = event["target"].as_str().context("a target")?;
            assert!(target.starts_with("acrcred"), "{line}");
        } else {
            let (time, rest) = line.split_once(' ').context("a time")?;
            assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
            assert!(rest.contains(" acrcred"), "{line}");
        }
    }
    Ok(())
}

// Both wait for a rotation, which comes 10 s after the first token at the earliest.
#[test]
fn nothing_leaks_with_a_json_log() {
    run(nothing_leaks("json"));
}

#[test]
fn nothing_leaks_with_a_text_log() {
    run(nothing_leaks("text"));
}

#[test]
fn no_level_for_another_crate_is_taken() {
    run(async {
        for (arguments, variable) in [
            (&["--log-level", "kube_client=trace"][..], None),
            (&["--log-level", "trace,hyper=trace"], None),
            (&["--log-level", "trace,azure_core::http=debug"], None),
            (&[], Some(("ACRCRED_LOG_LEVEL", "reqwest=trace"))),
            (&[], Some(("RUST_LOG", "info,kube_client::client=warn"))),
            (&[], Some(("RUST_LOG", "[reconcile]=trace"))),
        ] {
            let mut command = acrcred();
            command
                .args(arguments)
                .args(["--admin-listen", "127.0.0.1:0"])
                .envs(variable);
            let output = command.output().await?;
            let text = String::from_utf8(output.stderr)?;
            ensure!(!output.status.success(), "{arguments:?} {variable:?}");
            let named = variable.map_or("--log-level", |(name, _)| name);
            assert!(
                text.contains(named) && text.contains("only targets of acrcred"),
                "{text}"
            );
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        Ok(())
    });
}
