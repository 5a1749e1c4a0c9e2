//! The emulator as a program: for demos, and for clients in other languages.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use azure_emulator::state::State;
use azure_emulator::{Emulator, Options};
use clap::Parser;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Emulates Microsoft Entra and Azure Container Registry behind an HTTP CONNECT proxy.
///
/// Prints one line of JSON when it serves: {"proxy":…,"control":…,"ca":…}. Clients take the proxy from their proxy settings (mostly the
/// environment variable for https), and the CA file as what they trust.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address of the CONNECT proxy; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    proxy_listen: SocketAddr,
    /// Address of the control listener, which has no authentication; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    control_listen: SocketAddr,
    /// JSON file with clouds, clusters, tenants, identities, registries and role assignments.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Where to write the CA's certificate.
    #[arg(long)]
    ca_out: Option<PathBuf>,
    /// The CNCF distribution registry program.
    #[arg(long, env = "ACRCRED_REGISTRY_BINARY", default_value = "registry")]
    registry_binary: PathBuf,
    /// Directory for images and logs; a temporary one where absent.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// End when standard input closes, so that it never outlives the process that started it.
    #[arg(long)]
    exit_on_stdin_close: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let state = match &args.state {
        Some(file) => read_state(file)?,
        None => State::default(),
    };
    // Before the line that says it serves: a signal sent upon that line must find its handler.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let emulator = Emulator::start(Options {
        proxy_listen: args.proxy_listen,
        control_listen: args.control_listen,
        dir: args.dir,
        registry_binary: args.registry_binary,
        ca_out: args.ca_out,
        state,
        keep_tokens: false,
    })
    .await?;
    announce(&emulator)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = stdin_closed(), if args.exit_on_stdin_close => {}
    }
    emulator.shutdown().await?;
    // A blocking read of standard input cannot be called off, and would keep the runtime alive.
    std::process::exit(0)
}

fn read_state(file: &PathBuf) -> anyhow::Result<State> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("state file {}", file.display()))
}

fn announce(emulator: &Emulator) -> anyhow::Result<()> {
    let line = json!({
        "proxy": emulator.proxy_url(),
        "control": emulator.control_url(),
        "ca": std::path::absolute(emulator.ca_file())?,
    });
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut scrap = [0; 256];
    while matches!(stdin.read(&mut scrap).await, Ok(n) if n > 0) {}
}
