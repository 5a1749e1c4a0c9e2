//! The HTTP CONNECT proxy: the only way in, for clients that honour `HTTPS_PROXY`.
//!
//! `CONNECT host:443` for a name that exists in the emulated cloud ends in TLS that is terminated here under that name. Any other name is
//! answered like a failed name look-up, and logged: a test can assert that nobody even tried.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::core::Core;
use crate::serve;

/// Accepts connections until the task is aborted.
pub async fn run(core: Arc<Core>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(Arc::clone(&core), stream));
            }
            Err(error) => {
                tracing::warn!("the proxy cannot accept: {error}");
                // Out of descriptors, most likely: let some close.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(core: Arc<Core>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let core = Arc::clone(&core);
        async move { Ok::<_, Infallible>(connect(core, request)) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!("proxy connection: {error}");
    }
}

fn connect(core: Arc<Core>, mut request: Request<Incoming>) -> Response<Empty<Bytes>> {
    let answer = |status| {
        let mut reply = Response::new(Empty::new());
        *reply.status_mut() = status;
        reply
    };
    let target = request.uri().authority().cloned();
    let (&Method::CONNECT, Some(target)) = (request.method(), target) else {
        // Plain HTTP, such as a look for the metadata service of a virtual machine: it counts as a try, too.
        let uri = request.uri();
        core.journal.add_connect(
            uri.host().unwrap_or_default(),
            uri.port_u16().unwrap_or(80),
            false,
        );
        return answer(StatusCode::METHOD_NOT_ALLOWED);
    };
    let (host, port) = (target.host().to_owned(), target.port_u16().unwrap_or(443));
    let known = port == 443
        && core
            .state
            .read()
            .unwrap()
            .resolves(&host.to_ascii_lowercase());
    core.journal.add_connect(&host, port, known);
    if !known {
        tracing::info!(host, port, "CONNECT refused: no such host");
        return answer(StatusCode::BAD_GATEWAY);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(tunnel(core, host.to_ascii_lowercase(), upgrade));
    answer(StatusCode::OK)
}

/// TLS and HTTP/1.1 inside a tunnel.
async fn tunnel(core: Arc<Core>, host: String, upgrade: OnUpgrade) {
    let served = async {
        let stream = TokioIo::new(upgrade.await?);
        let config = core.authority.server_config(&host)?;
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let name = host.clone();
        let service = service_fn(move |request| {
            let (core, host) = (Arc::clone(&core), name.clone());
            async move { serve::answer(&core, &host, request).await }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
            .await?;
        anyhow::Ok(())
    };
    if let Err(error) = served.await {
        tracing::debug!(host, "connection: {error:#}");
    }
}
