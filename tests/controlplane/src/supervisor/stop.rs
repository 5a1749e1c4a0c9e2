//! When to end: whoever started us is gone, or a signal came.

use std::{io::Read as _, thread};

use anyhow::Result;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

pub(crate) struct Stop {
    signals: [Signal; 3],
    /// None where stdin says nothing.
    stdin_closed: Option<oneshot::Receiver<()>>,
}

impl Stop {
    /// Listens to signals alone.
    pub(crate) fn signals() -> Result<Self> {
        let signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        Ok(Self {
            signals,
            stdin_closed: None,
        })
    }

    /// Listens to signals and to the end of stdin.
    pub(crate) fn listen() -> Result<Self> {
        let (sender, stdin_closed) = oneshot::channel();
        // A thread, because a pending read of tokio's stdin keeps a runtime from ending.
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while std::io::stdin()
                .read(&mut buffer)
                .is_ok_and(|length| length > 0)
            {}
            let _ = sender.send(());
        });
        Ok(Self {
            stdin_closed: Some(stdin_closed),
            ..Self::signals()?
        })
    }

    pub(crate) async fn requested(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = closed(&mut self.stdin_closed) => {}
        }
    }
}

async fn closed(stdin: &mut Option<oneshot::Receiver<()>>) {
    match stdin {
        Some(stdin) => drop(stdin.await),
        None => std::future::pending().await,
    }
}
