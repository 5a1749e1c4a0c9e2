//! The admin server: `/livez` (alias `/healthz`), `/readyz` and `/metrics`, over plain HTTP/1.1.
//!
//! A connection serves one request and has ten seconds for it, so that a client which sends or reads
//! slowly holds nothing for long.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Metrics;

/// From this lateness of due work on, the process counts as stuck.
const MAX_LATENESS: Duration = Duration::from_mins(2);

const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 64;
/// The least that hyper allows: a request of ours has no body and few headers.
const READ_BUFFER: usize = 8 * 1024;
/// Out of file descriptors, `accept` fails at once and would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin server shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Whether the process has started.
    pub readiness: Readiness,
    /// What it counted, and whether it makes progress.
    pub metrics: Metrics,
}

/// What is awaited before the process counts as ready. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<&'static str>>>);

/// One thing that is awaited. Dropped without a word, it is awaited forever.
#[derive(Debug)]
#[must_use = "the process is not ready until this is"]
pub struct ReadinessHandle {
    readiness: Readiness,
    what: &'static str,
}

// === impl Admin ===

impl Admin {
    /// Serves until `stop` is cancelled, and then what was asked before.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        self.serve_within(CONNECTION_LIMIT, listener, stop).await;
    }

    async fn serve_within(self, limit: Duration, listener: TcpListener, stop: CancellationToken) {
        let service = TowerToHyperService::new(self.router());
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        let accept = async || {
            // The semaphore is never closed, so there always is a permit in the end.
            let permit = Arc::clone(&slots).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        while let Some((permit, accepted)) = stop.run_until_cancelled(accept()).await {
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(READ_BUFFER)
                .serve_connection(TokioIo::new(stream), service.clone());
            connections.spawn(async move {
                // A client that is slow, gone or makes no sense is no concern of ours.
                let _ = tokio::time::timeout(limit, connection).await;
                drop(permit);
            });
        }
        connections.close();
        connections.wait().await;
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", get(livez))
            .route("/healthz", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

/// Due work that nobody starts means that the process makes no progress. Nothing outside of the process counts,
/// or an outage elsewhere would restart every pod.
async fn livez(State(admin): State<Admin>) -> impl IntoResponse {
    let late = admin.metrics.backlog().oldest;
    let why = format!(
        "due work has waited for {} s without being started",
        late.as_secs()
    );
    answer((late >= MAX_LATENESS).then_some(why))
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let awaited = admin.readiness.awaited();
    let why = format!("waiting for {}", awaited.join(", "));
    answer((!awaited.is_empty()).then_some(why))
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let content_type = [(CONTENT_TYPE, Metrics::CONTENT_TYPE)];
    (content_type, admin.metrics.encode())
}

fn answer(trouble: Option<String>) -> (StatusCode, String) {
    match trouble {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

// === impl Readiness ===

impl Readiness {
    /// Awaits `what`. Ask for every handle before the server starts: with none, the process is ready.
    pub fn awaits(&self, what: &'static str) -> ReadinessHandle {
        self.0.lock().push(what);
        ReadinessHandle {
            readiness: self.clone(),
            what,
        }
    }

    /// What is awaited still.
    pub fn awaited(&self) -> Vec<&'static str> {
        self.0.lock().clone()
    }
}

impl ReadinessHandle {
    /// It is there.
    pub fn ready(self) {
        let mut awaited = self.readiness.0.lock();
        if let Some(found) = awaited.iter().position(|what| *what == self.what) {
            awaited.remove(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::process::Backlog;

    struct Running {
        addr: SocketAddr,
        late: Arc<AtomicU64>,
        readiness: Readiness,
        stop: CancellationToken,
        server: JoinHandle<()>,
    }

    async fn start() -> Running {
        start_within(CONNECTION_LIMIT).await
    }

    async fn start_within(limit: Duration) -> Running {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let late = Arc::new(AtomicU64::new(0));
        let readiness = Readiness::default();
        let stop = CancellationToken::new();
        let metrics = Metrics::new("1.2.3", true);
        metrics.watch_queue({
            let late = Arc::clone(&late);
            move || Backlog {
                items: 1,
                oldest: Duration::from_secs(late.load(Ordering::Relaxed)),
            }
        });
        let admin = Admin {
            readiness: readiness.clone(),
            metrics,
        };
        let server = tokio::spawn(admin.serve_within(limit, listener, stop.clone()));
        Running {
            addr,
            late,
            readiness,
            stop,
            server,
        }
    }

    async fn send(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    /// Status and body.
    async fn fetch(addr: SocketAddr, path: &str) -> (u16, String) {
        let response = send(addr, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    #[tokio::test]
    async fn work_that_nobody_starts_ends_liveness() {
        let running = start().await;
        for path in ["/livez", "/healthz"] {
            running.late.store(119, Ordering::Relaxed);
            assert_eq!(fetch(running.addr, path).await, (200, "ok\n".to_owned()));
            running.late.store(120, Ordering::Relaxed);
            let stuck = "due work has waited for 120 s without being started\n".to_owned();
            assert_eq!(fetch(running.addr, path).await, (503, stuck));
        }
    }

    #[tokio::test]
    async fn readiness_names_what_is_awaited() {
        let running = start().await;
        let credentials = running.readiness.awaits("AcrCredentials");
        let accounts = running.readiness.awaits("ServiceAccounts");
        let waiting = |what: &str| (503, format!("waiting for {what}\n"));
        assert_eq!(
            fetch(running.addr, "/readyz").await,
            waiting("AcrCredentials, ServiceAccounts")
        );
        credentials.ready();
        assert_eq!(
            fetch(running.addr, "/readyz").await,
            waiting("ServiceAccounts")
        );
        accounts.ready();
        assert_eq!(
            fetch(running.addr, "/readyz").await,
            (200, "ok\n".to_owned())
        );
        drop(running.readiness.awaits("a task that died"));
        assert_eq!(
            fetch(running.addr, "/readyz").await,
            waiting("a task that died")
        );
    }

    #[tokio::test]
    async fn metrics_come_as_openmetrics() {
        let running = start().await;
        let response = send(running.addr, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(
            response.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{response}"
        );
        assert!(response.contains("acrcred_build_info"), "{response}");
        assert!(response.ends_with("# EOF\n"), "{response}");
        assert_eq!(fetch(running.addr, "/").await.0, 404);
        assert!(
            send(running.addr, "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .contains(" 405 ")
        );
    }

    #[tokio::test]
    async fn a_head_without_end_is_cut_off() {
        let running = start().await;
        let endless = format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(READ_BUFFER * 2));
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        let _ = stream.write_all(endless.as_bytes()).await;
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response).await;
        assert!(!String::from_utf8_lossy(&response).contains(" 200 "));
    }

    #[tokio::test]
    async fn silent_clients_neither_block_others_nor_the_end() {
        let running = start_within(Duration::from_millis(200)).await;
        let mut silent = Vec::new();
        for _ in 0..=MAX_CONNECTIONS {
            silent.push(TcpStream::connect(running.addr).await.unwrap());
        }
        assert_eq!(fetch(running.addr, "/livez").await.0, 200);
        running.stop.cancel();
        running.server.await.unwrap();
    }
}
