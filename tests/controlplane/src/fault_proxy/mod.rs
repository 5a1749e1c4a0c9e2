//! A proxy in front of the API server that fails on demand.
//!
//! It speaks plain HTTP on loopback and forwards to the API server over TLS, with the client's own `Authorization`, so that the API server
//! sees, judges and logs the client as it would without it. [`Rule`]s say which requests fail and how; open watches can be cut, silenced or
//! ended with an error; and everything can be refused, as if the API server were down.

mod forward;
mod request;
mod rule;
mod watches;

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result};
use http::{HeaderMap, Method};
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub use self::{
    request::{Seen, Verb},
    rule::{Fault, Match, Moment, Rule, RuleId},
};
use self::{rule::Rules, watches::Watches};

/// A running proxy; ends when dropped, and with it every connection.
pub struct FaultProxy {
    address: SocketAddr,
    core: Arc<Core>,
    task: JoinHandle<()>,
}

/// What the connections share.
struct Core {
    upstream: String,
    client: reqwest::Client,
    rules: Rules,
    watches: Watches,
    seen: Mutex<Vec<Seen>>,
    held: Mutex<Vec<Held>>,
    refusing: watch::Sender<bool>,
    refused: AtomicUsize,
}

/// A request that is held back.
#[derive(Clone)]
struct Held {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

// === impl FaultProxy ===

impl FaultProxy {
    /// Starts a proxy in front of the API server at `url`, whose certificates `ca_file` vouches for.
    pub async fn start(url: &str, ca_file: &Path) -> Result<Self> {
        let pem =
            fs::read(ca_file).with_context(|| format!("cannot read {}", ca_file.display()))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?)
            .build()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let core = Arc::new(Core {
            upstream: url.trim_end_matches('/').to_owned(),
            client,
            rules: Rules::default(),
            watches: Watches::default(),
            seen: Mutex::default(),
            held: Mutex::default(),
            refusing: watch::Sender::new(false),
            refused: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(core.clone(), listener));
        Ok(Self {
            address,
            core,
            task,
        })
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule; of several that match a request, the oldest counts.
    pub fn add(&self, rule: Rule) -> RuleId {
        self.core.rules.add(rule)
    }

    /// Removes a rule; one that is used up or gone already does no harm.
    pub fn remove(&self, id: RuleId) {
        self.core.rules.remove(id);
    }

    /// How many requests a rule has hit so far.
    pub fn hits(&self, id: RuleId) -> usize {
        self.core.rules.hits(id)
    }

    /// Every request so far that came through, in order, whatever became of it.
    pub fn seen(&self) -> Vec<Seen> {
        self.core
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many requests matched so far.
    pub fn count(&self, matching: &Match) -> usize {
        self.seen()
            .iter()
            .filter(|seen| matching.fits(seen))
            .count()
    }

    /// How many requests are held back by [`Fault::Late`] and [`Fault::Twice`].
    pub fn held(&self) -> usize {
        self.core
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Lets the API server have what is held back, in order, whether or not somebody still waits for an answer; the HTTP status of each.
    pub async fn deliver(&self) -> Result<Vec<u16>> {
        Ok(self.core.deliver().await?)
    }

    /// Closes every connection, and every new one at once, as if nobody served.
    pub fn refuse_everything(&self) {
        self.core.refusing.send_replace(true);
    }

    /// Ends [`FaultProxy::refuse_everything`].
    pub fn serve_again(&self) {
        self.core.refusing.send_replace(false);
    }

    /// How many connections were refused.
    pub fn refused(&self) -> usize {
        self.core.refused.load(Ordering::SeqCst)
    }

    /// How many watches are open, the silenced ones included.
    pub fn open_watches(&self) -> usize {
        self.core.watches.open()
    }

    /// From now on, the watches that are open deliver nothing, not even their end.
    pub fn silence_watches(&self) {
        self.core.watches.silence();
    }

    /// Ends every open watch, in the way that the API server does at a watch's timeout.
    pub fn close_watches(&self) {
        self.core.watches.close();
    }

    /// Breaks every open watch off in the middle.
    pub fn break_watches(&self) {
        self.core.watches.break_off();
    }

    /// Tells every open watch that its resource version is too old, and ends it.
    pub fn expire_watches(&self) {
        self.core.watches.expire();
    }
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultProxy")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.core.refusing.send_replace(true);
    }
}

async fn accept(core: Arc<Core>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        if *core.refusing.borrow() {
            core.refused.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        tokio::spawn(connection(core.clone(), stream));
    }
}

async fn connection(core: Arc<Core>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut refusing = core.refusing.subscribe();
    let service = service_fn(move |request| core.clone().answer(request));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // What a client sees of a failure is the closed connection.
    tokio::select! {
        _ = served => {}
        _ = refusing.wait_for(|refusing| *refusing) => {}
    }
}

// === impl Core ===

impl Core {
    fn note(&self, seen: Seen) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(seen);
    }
}
