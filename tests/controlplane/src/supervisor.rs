//! What the program `controlplane run` does: start everything, say so, and end everything.

mod children;
mod home;
mod startup;
mod stop;

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
};

use anyhow::{Context, Result};

pub use self::children::become_child;
use self::home::Home;
pub(crate) use self::{children::Children, stop::Stop};
use crate::{Tool, Tools};

/// An issuer of the shape that AKS has: a path and, above all, a trailing slash.
pub const DEFAULT_ISSUER: &str = "https://eastus.oic.prod-aks.example/00000000-0000-0000-0000-0000000000aa/11111111-1111-1111-1111-111111111111/";

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An empty or new folder for everything; absent: a temporary one, removed at the end.
    pub dir: Option<PathBuf>,
    /// Whether to leave the temporary folder behind.
    pub keep: bool,
    /// Custom resource definitions that the controller manager is to know from the start.
    pub crds: Vec<PathBuf>,
    /// Whether the `ServiceAccount` admission plugin is on.
    pub service_account_admission: bool,
    /// Admission plugins to run beside those that are on by default.
    pub admission_plugins: Vec<String>,
    /// The issuer of `ServiceAccount` tokens.
    pub issuer: String,
    /// Controllers to run beside the usual ones.
    pub controllers: Vec<String>,
    /// Whether to run the scheduler.
    pub scheduler: bool,
}

/// Runs a control plane until stdin closes or a signal comes. Fails if one of its programs ends by itself.
pub fn run(settings: Settings) -> Result<()> {
    let tools = Tools::ensure(&Tool::CONTROL_PLANE)?;
    // A program dies with the thread that started it (see `become_child`): with this runtime that is the main thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(supervise(settings, &tools))
}

async fn supervise(settings: Settings, tools: &Tools) -> Result<()> {
    let mut stop = Stop::listen()?;
    let home = Home::create(settings.dir.clone(), settings.keep)?;
    let mut children = Children::default();
    let outcome = tokio::select! {
        outcome = serve(&settings, tools, &home, &mut children) => outcome,
        () = stop.requested() => Ok(()),
    };
    children.end().await;
    outcome
}

/// Ends only by an error.
async fn serve(
    settings: &Settings,
    tools: &Tools,
    home: &Home,
    children: &mut Children,
) -> Result<()> {
    let ready = startup::start(settings, tools, home, children).await?;
    writeln!(stdout(), "{}", serde_json::to_string(&ready)?)
        .context("cannot say that the control plane is ready")?;
    stdout().flush()?;
    Err(children.death().await)
}
