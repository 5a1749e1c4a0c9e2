//! The control listener: plain HTTP on loopback, for tests in other processes and for people with curl.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::core::Core;
use crate::fault::Fault;
use crate::journal::{Connect, Counter, Entry, Filter, Listener};
use crate::keys::KeyName;
use crate::serve::finish;
use crate::state;

type Shared = State<Arc<Core>>;

/// A refusal with its reason.
struct Refused(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, format!("{:#}\n", self.0)).into_response()
    }
}

/// The routes.
pub fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/state", get(read_state).put(put_state))
        .route("/journal", get(journal))
        .route("/connects", get(connects))
        .route("/counters", get(counters))
        .route("/clock", get(clock).post(set_clock))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/keys/rotate", post(rotate))
        .route("/registries/{name}/epoch", post(epoch))
        .route(
            "/registries/{name}/process",
            get(process).post(start).delete(stop),
        )
        .layer(middleware::from_fn_with_state(Arc::clone(&core), note))
        .with_state(core)
}

async fn note(State(core): Shared, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = next.run(request).await;
    let mut entry = Entry::new(Listener::Control, "control", method.as_str(), &path);
    entry.status = answer.status().as_u16();
    finish(&core, entry, begin);
    answer
}

async fn read_state(State(core): Shared) -> Json<state::State> {
    Json(core.state.read().unwrap().clone())
}

async fn put_state(State(core): Shared, Json(next): Json<state::State>) -> Result<(), Refused> {
    Ok(core.update(|state| *state = next)?)
}

async fn journal(State(core): Shared, Query(filter): Query<Filter>) -> Json<Vec<Entry>> {
    Json(core.journal.entries(&filter))
}

async fn connects(State(core): Shared) -> Json<Vec<Connect>> {
    Json(core.journal.connects())
}

async fn counters(State(core): Shared) -> Json<Vec<Counter>> {
    Json(core.journal.counters())
}

async fn clock(State(core): Shared) -> Json<Value> {
    Json(json!({"offset_s": core.clock.offset().as_secs(), "now": core.clock.timestamp()}))
}

#[derive(Deserialize)]
struct Offset {
    offset_s: i64,
}

async fn set_clock(state: Shared, Json(offset): Json<Offset>) -> Json<Value> {
    state
        .0
        .clock
        .set_offset(SignedDuration::from_secs(offset.offset_s));
    clock(state).await
}

async fn faults(State(core): Shared) -> Json<Vec<Fault>> {
    Json(core.faults.active())
}

async fn add_fault(State(core): Shared, Json(fault): Json<Fault>) -> Json<Value> {
    Json(json!({"id": core.faults.add(fault)}))
}

async fn clear_faults(State(core): Shared) {
    core.faults.clear();
}

#[derive(Deserialize)]
struct Rotation {
    key: KeyName,
    #[serde(default)]
    keep_old: bool,
}

async fn rotate(State(core): Shared, Json(rotation): Json<Rotation>) -> Result<(), Refused> {
    Ok(core.keys.rotate(rotation.key, rotation.keep_old).await?)
}

async fn epoch(State(core): Shared, Path(name): Path<String>) -> Result<Json<Value>, Refused> {
    Ok(Json(json!({"credentialEpoch": core.raise_epoch(&name)?})))
}

async fn process(State(core): Shared, Path(name): Path<String>) -> Json<Value> {
    Json(json!({"pid": core.distributions.pid(&name).await}))
}

async fn start(State(core): Shared, Path(name): Path<String>) {
    core.distributions.allow(&name).await;
}

async fn stop(State(core): Shared, Path(name): Path<String>) -> Result<(), Refused> {
    Ok(core.distributions.stop(&name).await?)
}
