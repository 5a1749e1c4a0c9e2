//! Signals that end the demo, and work that they do not cut short.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::task::{JoinHandle, block_in_place};

/// Ctrl-C, SIGTERM and the end of the terminal.
pub struct Stop([(Signal, unix::Signal); 3]);

/// Why the demo ends early.
#[derive(Clone, Copy)]
pub enum Signal {
    Interrupt,
    Terminate,
    HangUp,
}

impl Signal {
    fn kind(self) -> SignalKind {
        match self {
            Self::Interrupt => SignalKind::interrupt(),
            Self::Terminate => SignalKind::terminate(),
            Self::HangUp => SignalKind::hangup(),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "Ctrl-C",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "The terminal was closed",
        }
    }

    /// As a shell expects it.
    pub fn exit_code(self) -> ExitCode {
        let code = 128 + self.kind().as_raw_value();
        ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
    }
}

impl Stop {
    /// From now on these signals no longer end the process by themselves.
    pub fn listen() -> Result<Self> {
        let listen = |one: Signal| anyhow::Ok((one, signal(one.kind())?));
        Ok(Self([
            listen(Signal::Interrupt)?,
            listen(Signal::Terminate)?,
            listen(Signal::HangUp)?,
        ]))
    }

    pub async fn requested(&mut self) -> Signal {
        let [(a, one), (b, two), (c, three)] = &mut self.0;
        tokio::select! {
            _ = one.recv() => *a,
            _ = two.recv() => *b,
            _ = three.recv() => *c,
        }
    }
}

/// Runs `work` to its end even if the caller is dropped meanwhile: what it started is then dropped in
/// good order, instead of being left behind half started.
pub async fn in_one_piece<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    struct Piece<T>(Option<JoinHandle<Result<T>>>);
    impl<T> Drop for Piece<T> {
        fn drop(&mut self) {
            if let Some(handle) = self.0.take() {
                let _ = wait(handle);
            }
        }
    }
    let mut piece = Piece(Some(tokio::spawn(work)));
    let handle = piece.0.as_mut().context("just put there")?;
    let result = handle.await;
    piece.0 = None;
    result?
}

/// Waits from code that is not async, such as `drop`.
pub fn wait<F: Future>(future: F) -> F::Output {
    block_in_place(|| Handle::current().block_on(future))
}
