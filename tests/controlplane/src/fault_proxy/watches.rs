//! Open watches, and what can happen to all of them at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{Stream, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use serde_json::json;
use tokio::sync::watch;

use super::forward::{AnyBody, BoxError};

/// Tells the open watches what to do.
pub(super) struct Watches {
    order: watch::Sender<Order>,
    open: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
enum Order {
    Silence,
    Close,
    BreakOff,
    Expire,
}

/// A watch as long as the client follows it.
struct Open {
    upstream: reqwest::Body,
    orders: watch::Receiver<Order>,
    silent: bool,
    ending: bool,
    counted: Counted,
}

struct Counted(Arc<AtomicUsize>);

// === impl Watches ===

impl Default for Watches {
    fn default() -> Self {
        Self {
            // Never seen by anybody: who subscribes sees later orders only.
            order: watch::Sender::new(Order::Close),
            open: Arc::default(),
        }
    }
}

impl Watches {
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn silence(&self) {
        self.order.send_replace(Order::Silence);
    }

    pub(super) fn close(&self) {
        self.order.send_replace(Order::Close);
    }

    pub(super) fn break_off(&self) {
        self.order.send_replace(Order::BreakOff);
    }

    pub(super) fn expire(&self) {
        self.order.send_replace(Order::Expire);
    }

    /// Passes a watch on until told otherwise.
    pub(super) fn body(&self, upstream: reqwest::Body) -> AnyBody {
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open {
            upstream,
            orders: self.order.subscribe(),
            silent: false,
            ending: false,
            counted: Counted(self.open.clone()),
        };
        StreamBody::new(frames(open)).boxed_unsync()
    }
}

fn frames(open: Open) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> {
    stream::unfold(open, async |mut open| {
        let frame = open.next().await?;
        Some((frame, open))
    })
}

// === impl Open ===

impl Open {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        // Keeps the count right for as long as the stream lives.
        let _ = &self.counted;
        while !self.ending {
            tokio::select! {
                // Without a bias, a busy watch could outrun an order.
                biased;
                order = self.orders.changed() => {
                    order.ok()?;
                    let order = *self.orders.borrow_and_update();
                    match order {
                        Order::Silence => self.silent = true,
                        Order::Close => return None,
                        Order::BreakOff => {
                            self.ending = true;
                            return Some(Err(io::Error::from(io::ErrorKind::ConnectionReset).into()));
                        }
                        Order::Expire => {
                            self.ending = true;
                            return Some(Ok(Frame::data(expired())));
                        }
                    }
                }
                frame = self.upstream.frame() => match frame {
                    // Neither what comes nor the end gets through.
                    Some(Ok(_)) if self.silent => {}
                    _ if self.silent => std::future::pending().await,
                    other => return other.map(|frame| frame.map_err(BoxError::from)),
                },
            }
        }
        None
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the API server sends into a watch whose resource version it has forgotten.
fn expired() -> Bytes {
    let event = json!({"type": "ERROR", "object": {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410,
    }});
    Bytes::from(format!("{event}\n"))
}
