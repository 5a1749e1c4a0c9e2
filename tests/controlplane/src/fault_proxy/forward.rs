//! One request: forwarded, or not.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{
    HeaderMap, Request, Response,
    header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING},
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use serde_json::json;

use super::{
    Core, Held,
    request::{Seen, Verb},
    rule::{Fault, Moment},
};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type AnyBody = UnsyncBoxBody<Bytes, BoxError>;
type Answer = Result<Response<AnyBody>, BoxError>;
type Hook = Arc<dyn Fn() + Send + Sync>;

/// How long a client on the same machine may need to read an answer that was written to its socket.
const DELIVERED: Duration = Duration::from_millis(50);

// === impl Core ===

impl Core {
    /// Answers; an error closes the connection without an answer.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let seen = Seen::of(request.method(), request.uri());
        self.note(seen.clone());
        match self.rules.fault(&seen) {
            None => self.forward(&seen, request).await,
            Some(Fault::Answer(status)) => Ok(failure(status, None)),
            Some(Fault::Throttle(seconds)) => Ok(failure(429, Some(seconds))),
            Some(Fault::DropBefore) => Err("dropped before forwarding".into()),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Late) => {
                self.hold(request).await?;
                std::future::pending().await
            }
            Some(Fault::Twice) => {
                let request = self.hold(request).await?;
                let answer: Response<reqwest::Body> = self.send(request).await?.into();
                let (mut parts, body) = answer.into_parts();
                parts.headers = end_to_end(parts.headers);
                let body = body.map_err(BoxError::from).boxed_unsync();
                Ok(Response::from_parts(parts, body))
            }
            Some(Fault::AnswerAfterCommit(status)) => {
                self.commit(&seen, request).await?;
                Ok(failure(status, None))
            }
            Some(Fault::DropAfter) => {
                self.commit(&seen, request).await?;
                Err("dropped after commit".into())
            }
            Some(Fault::Call(Moment::BeforeForwarding, hook)) => {
                hook();
                Err("dropped before forwarding".into())
            }
            Some(Fault::Call(Moment::AfterCommit, hook)) => {
                self.commit(&seen, request).await?;
                hook();
                Err("dropped after commit".into())
            }
            Some(Fault::Call(Moment::AfterAnswer, hook)) => {
                let answer = self.forward(&seen, request).await?;
                Ok(answer.map(|body| {
                    CallAtEnd {
                        body,
                        hook: Some(hook),
                    }
                    .boxed_unsync()
                }))
            }
        }
    }

    async fn forward(&self, seen: &Seen, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let forwarded = self
            .client
            .request(parts.method, format!("{}{path}", self.upstream))
            .headers(end_to_end(parts.headers))
            .body(body.collect().await?.to_bytes());
        let answer: Response<reqwest::Body> = forwarded.send().await?.into();
        let (mut parts, body) = answer.into_parts();
        parts.headers = end_to_end(parts.headers);
        let body = if seen.verb == Verb::Watch && parts.status.is_success() {
            self.watches.body(body)
        } else {
            body.map_err(BoxError::from).boxed_unsync()
        };
        Ok(Response::from_parts(parts, body))
    }

    /// Keeps a request for [`Core::deliver`]; a copy of it.
    async fn hold(&self, request: Request<Incoming>) -> Result<Held, BoxError> {
        let (parts, body) = request.into_parts();
        let held = Held {
            method: parts.method,
            path: parts
                .uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
            headers: end_to_end(parts.headers),
            body: body.collect().await?.to_bytes(),
        };
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(held.clone());
        Ok(held)
    }

    async fn send(&self, held: Held) -> reqwest::Result<reqwest::Response> {
        self.client
            .request(held.method, format!("{}{}", self.upstream, held.path))
            .headers(held.headers)
            .body(held.body)
            .send()
            .await
    }

    /// Sends what was held back, in order; the HTTP status of each answer, which nobody else gets.
    pub(super) async fn deliver(&self) -> reqwest::Result<Vec<u16>> {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        let mut codes = Vec::with_capacity(held.len());
        for request in held {
            let answer = self.send(request).await?;
            codes.push(answer.status().as_u16());
            answer.bytes().await?;
        }
        Ok(codes)
    }

    /// Forwards and waits for the whole answer, which then is lost.
    async fn commit(&self, seen: &Seen, request: Request<Incoming>) -> Result<(), BoxError> {
        let answer = self.forward(seen, request).await?;
        answer.into_body().collect().await?;
        Ok(())
    }
}

/// Without what speaks of one connection only.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers
}

/// A failure as the API server words it.
fn failure(status: u16, retry_after: Option<u32>) -> Response<AnyBody> {
    let reason = match status {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status,
        "reason": reason, "message": "the fault proxy says so",
        "details": {"retryAfterSeconds": retry_after.unwrap_or_default()},
    });
    let body = Full::from(body.to_string())
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status.try_into().expect("an HTTP status");
    answer.headers_mut().insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// An answer whose end is followed by a call.
struct CallAtEnd {
    body: AnyBody,
    hook: Option<Hook>,
}

impl Body for CallAtEnd {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CallAtEnd {
    fn drop(&mut self) {
        let Some(hook) = self.hook.take() else { return };
        // The server is done with the body, but has yet to write the last of it to the socket.
        tokio::spawn(async move {
            tokio::time::sleep(DELIVERED).await;
            hook();
        });
    }
}
