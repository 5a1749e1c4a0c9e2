//! A stolen token of acrcred reads no byte of a foreign Secret, by whatever request.
//!
//! PUT and POST decode the request into a new object, so their answers quote the request. PATCH decodes the request
//! into the stored object, and the API server quotes that object in its answer if the result is malformed. No
//! admission policy can prevent this, so acrcred must not have `patch`.

mod bodies;
mod encodings;
mod reads;
mod secrets;
mod shapes;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use controlplane::ControlPlane;
use futures::StreamExt as _;
use kube::Client;
use serde_json::{Value, json};

use crate::harness::{CONTROLLER, Scanner, control_plane, run, soon};
use secrets::{Canaries, Foreign, PLACES};
use shapes::{JSON, Shape, YAML, shapes};

/// How many requests are in flight at once.
const SIDE_BY_SIDE: usize = 16;

/// What the API server answered.
struct Answer {
    what: String,
    shape: Shape,
    status: u16,
    /// Headers and body.
    text: String,
}

async fn send(client: &Client, what: String, shape: Shape) -> Result<Answer> {
    let response = client.send(shape.request()?).await.context(what.clone())?;
    let status = response.status().as_u16();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        format!("{name}: {value}\n")
    });
    let mut text: String = headers.collect();
    let body = response.into_body().collect_bytes().await;
    let body = body.with_context(|| format!("the answer to: {what}"))?;
    text += &String::from_utf8_lossy(&body);
    Ok(Answer {
        what,
        shape,
        status,
        text,
    })
}

/// Every shape against every Secret.
async fn answers(client: &Client, foreign: &[Foreign]) -> Result<Vec<Answer>> {
    let requests = foreign.iter().flat_map(|secret| {
        let shapes = shapes(&secret.target()).into_iter();
        shapes.map(|shape| (format!("{}: {}", secret.name(), shape.what), shape))
    });
    let sent = requests.map(|(what, shape)| send(client, what, shape));
    let answers: Vec<Result<Answer>> = futures::stream::iter(sent)
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    answers.into_iter().collect()
}

/// Which places of which Secrets are in the answers.
fn leaks(scanner: &Scanner, answers: &[Answer]) -> Vec<String> {
    let seen = answers.iter().flat_map(|answer| {
        let sightings = scanner.sightings(&answer.text).into_iter();
        sightings.map(|seen| {
            let (place, form) = (PLACES[seen.token], seen.form);
            format!(
                "{}: {} with the {place} ({form})",
                answer.what, answer.status
            )
        })
    });
    seen.collect()
}

/// A client of a `ServiceAccount` that has `patch` too, as acrcred must not.
async fn with_patch(control_plane: &ControlPlane, namespace: &str) -> Result<Client> {
    control_plane
        .create_service_account(namespace, "with-patch", &[])
        .await?;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "with-patch"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "update", "patch"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "with-patch"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "with-patch"},
        "subjects": [{"kind": "ServiceAccount", "name": "with-patch", "namespace": namespace}],
    });
    for object in [role, binding] {
        control_plane
            .apply_in(namespace, object.to_string())
            .await?;
    }
    control_plane
        .service_account_client(namespace, "with-patch")
        .await
}

/// The scanner finds each canary where it is known to be.
async fn positive_controls(
    control_plane: &ControlPlane,
    namespace: &str,
    foreign: &[Foreign],
    scanner: &Scanner,
) -> Result<()> {
    let admin = control_plane.admin();
    for secret in foreign {
        for accept in [JSON, YAML, "application/vnd.kubernetes.protobuf"] {
            let get = Shape::get(&secret.target(), accept);
            let answer = send(&admin, format!("{}, {accept}", secret.name()), get).await?;
            ensure!(answer.status == 200, "{}: {}", answer.what, answer.status);
            let found: BTreeSet<usize> = scanner
                .sightings(&answer.text)
                .iter()
                .map(|seen| seen.token)
                .collect();
            ensure!(found.len() == PLACES.len(), "{}: {found:?}", answer.what);
        }
    }

    let client = with_patch(control_plane, namespace).await?;
    let malformed = json!({"immutable": "x"});
    soon("the API server quotes the Secret", async || {
        let patch = Shape::merge_patch(&foreign[0].target(), &malformed);
        let answer = send(&client, "with patch".into(), patch).await;
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        let found = scanner.sightings(&answer.text);
        if answer.status == 422 && found.iter().any(|seen| PLACES[seen.token] == "data value") {
            Ok(())
        } else {
            Err(format!("{}: {found:?}", answer.status))
        }
    })
    .await
}

#[test]
fn a_stolen_token_reads_no_byte_of_a_foreign_secret() {
    run(async {
        let control_plane = control_plane().await?;
        let namespace = control_plane.create_namespace("stolen").await?;
        let canaries = Canaries::of(&namespace);
        let scanner = Scanner::new(&canaries.0);
        let foreign = Foreign::create_all(&control_plane.admin(), &namespace, &canaries).await?;

        let (account_namespace, account) = CONTROLLER;
        let thief = control_plane
            .service_account_client(account_namespace, account)
            .await?;
        let answers = answers(&thief, &foreign).await?;
        let leaks = leaks(&scanner, &answers);
        assert!(leaks.is_empty(), "{} leaks: {leaks:#?}", leaks.len());

        // Only POST finds something to do: a new Secret.
        let taken = answers.iter().filter(|answer| answer.status < 300);
        let mut wrong = taken.filter(|answer| !answer.shape.is_post());
        assert!(wrong.next().is_none_or(|answer| panic!("{}", answer.what)));
        for secret in &foreign {
            secret.is_unchanged(&control_plane.admin()).await?;
        }

        // The requests are many, and each part of the API server answered some.
        let each: BTreeSet<&str> = answers.iter().map(|answer| &*answer.shape.what).collect();
        assert!(each.len() >= 400, "{} shapes", each.len());
        assert_eq!(
            answers.len(),
            each.len() * foreign.len(),
            "a shape is there twice"
        );
        let mut count: BTreeMap<u16, usize> = BTreeMap::new();
        for answer in &answers {
            *count.entry(answer.status).or_default() += 1;
        }
        for status in [201, 400, 403, 406, 409, 415, 422] {
            assert!(count.contains_key(&status), "{status}: {count:?}");
        }
        positive_controls(control_plane, &namespace, &foreign, &scanner).await
    });
}

/// Of its own Secrets too, it learns only what it sends.
#[test]
fn the_answer_to_an_update_of_its_own_secret_has_no_byte_that_was_stored() {
    run(async {
        let control_plane = control_plane().await?;
        let namespace = control_plane.create_namespace("own").await?;
        let canaries = Canaries::of(&namespace);
        let scanner = Scanner::new(&canaries.0);
        let admin = control_plane.admin();
        let own = Foreign::create(&admin, &namespace, "own", &canaries, |secret| {
            secret["metadata"]["annotations"]["acrcred.dev/owner"] = bodies::OWNER.into();
            secret["type"] = bodies::TYPE.into();
        })
        .await?;
        let (account_namespace, account) = CONTROLLER;
        let thief = control_plane
            .service_account_client(account_namespace, account)
            .await?;
        for query in ["?dryRun=All", ""] {
            let body = bodies::plain(&own.target());
            let put = Shape::put(&own.target(), query, &body);
            let answer = send(&thief, format!("PUT {query}"), put).await?;
            assert_eq!(answer.status, 200, "{}", answer.text);
            let values = scanner.sightings(&answer.text);
            assert_eq!(values, [], "{}", answer.what);
            let answer: Value = serde_json::from_str(
                answer
                    .text
                    .rsplit('\n')
                    .find(|line| line.starts_with('{'))
                    .context("JSON")?,
            )?;
            assert_eq!(answer["data"], body["data"]);
        }
        Ok(())
    });
}
