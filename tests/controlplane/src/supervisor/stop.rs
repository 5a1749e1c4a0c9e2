//! When to end: whoever started us is gone, or a signal came.

use std::{io::Read as _, thread};

use anyhow::Result;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

pub(super) struct Stop {
    signals: [Signal; 3],
    stdin_closed: oneshot::Receiver<()>,
}

impl Stop {
    pub(super) fn listen() -> Result<Self> {
        let signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
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
            signals,
            stdin_closed,
        })
    }

    pub(super) async fn requested(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = &mut self.stdin_closed => {}
        }
    }
}
