//! The end of the process: orderly at the first signal, at once at the second.

use std::io;

use tokio::signal::unix::{SignalKind, signal as listen};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. The second signal ends the process at
/// once, with the exit code that a shell expects: 143 for SIGTERM, 130 for SIGINT.
///
/// Must be called within a Tokio runtime. The signals count from this call on.
pub fn signal() -> io::Result<CancellationToken> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let next = async move || {
        tokio::select! {
            Some(()) = terminate.recv() => SignalKind::terminate(),
            Some(()) = interrupt.recv() => SignalKind::interrupt(),
            else => std::future::pending().await,
        }
    };
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move { std::process::exit(obey(next, &stop).await) }
    });
    Ok(stop)
}

/// Cancels `stop` at the first signal, and returns the exit code at the second.
async fn obey(mut next: impl AsyncFnMut() -> SignalKind, stop: &CancellationToken) -> i32 {
    let first = next().await;
    tracing::info!(
        signal = first.as_raw_value(),
        "stopping; a second signal ends at once"
    );
    stop.cancel();
    128 + next().await.as_raw_value()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_first_signal_stops_and_the_second_ends() {
        for (second, code) in [
            (SignalKind::terminate(), 143),
            (SignalKind::interrupt(), 130),
        ] {
            let (sender, mut receiver) = mpsc::channel(2);
            let stop = CancellationToken::new();
            let next = async move || match receiver.recv().await {
                Some(kind) => kind,
                None => std::future::pending().await,
            };
            let ended = tokio::spawn({
                let stop = stop.clone();
                async move { obey(next, &stop).await }
            });
            assert!(!stop.is_cancelled());
            sender.send(SignalKind::terminate()).await.unwrap();
            stop.cancelled().await;
            tokio::task::yield_now().await;
            assert!(
                !ended.is_finished(),
                "one signal alone does not end the process"
            );
            sender.send(second).await.unwrap();
            assert_eq!(ended.await.unwrap(), code);
        }
    }
}
