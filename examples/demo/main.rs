//! The whole job on this machine, for real: a control plane, Azure's part, a registry, acrcred, and
//! proofs at every step that it is so.
//!
//! ```text
//! demo ─► etcd, kube-apiserver, kube-controller-manager ◄── acrcred, as its ServiceAccount
//!      ─► azure-emulator (in this process) ◄─────────────── acrcred, crane: by HTTPS_PROXY
//!            └► registry, one for each login server
//! ```
//!
//! Every part is ended by dropping it, so that a failed step and Ctrl-C clean up the same way.

mod azure;
mod checkout;
mod cluster;
mod crane;
mod folder;
mod hand;
mod identities;
mod image;
mod node;
mod play;
mod pod;
mod proofs;
mod rotation;
mod secret;
mod setup;
mod shell;
mod stop;
mod story;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::azure::Azure;
use crate::cluster::Cluster;
use crate::folder::Folder;
use crate::image::Image;
use crate::pod::Pod;
use crate::stop::{Signal, Stop};
use crate::story::Story;

/// Shows the whole job of acrcred on this machine, and proves each step.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// End after the last step, instead of leaving everything running to play with.
    #[arg(long)]
    once: bool,
    /// Tell it on a real node: acrcred as a pod from its own image, installed by the chart. Needs root and Debian.
    #[arg(long)]
    node: bool,
    /// Leave the private folder with all files and logs behind.
    #[arg(long)]
    keep: bool,
}

/// Everything that runs. The fields are dropped in this order.
pub struct Cast {
    pod: Pod,
    azure: Azure,
    cluster: Cluster,
    /// In contoso, in fabrikam, and another in contoso.
    images: Vec<Image>,
}

/// How the demo ended, if no step failed.
enum Ending {
    Told,
    Interrupted(Signal),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // kube and reqwest may each bring a provider; the process names one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("demo: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(&arguments));
    // A build of a tool that Ctrl-C interrupted may still hold a thread.
    runtime.shutdown_background();
    code
}

async fn run(arguments: &Arguments) -> ExitCode {
    let mut story = Story::begin();
    let folder = match Folder::create(arguments.keep) {
        Ok(folder) => folder,
        Err(error) => return story.failed(&error, ""),
    };
    let outcome = tell(&mut story, &folder, arguments).await;
    let code = match outcome {
        Ok(Ending::Told) => story.told(),
        Ok(Ending::Interrupted(signal)) => story.interrupted(signal),
        Err(error) => story.failed(&error, &folder.end_of_acrcreds_log()),
    };
    folder.close(&story);
    code
}

async fn tell(story: &mut Story, folder: &Folder, arguments: &Arguments) -> Result<Ending> {
    let mut stop = Stop::listen()?;
    if arguments.node {
        return Box::pin(node::tell(story, folder, arguments.once, &mut stop)).await;
    }
    let mut cast = tokio::select! {
        cast = perform(story, folder) => cast?,
        signal = stop.requested() => return Ok(Ending::Interrupted(signal)),
    };
    if !arguments.once {
        play::until_stopped(story, folder, &mut cast, &mut stop).await?;
    }
    end(story, cast)?;
    Ok(Ending::Told)
}

/// The points that the demo is about, up to the one where it is the user's turn.
async fn perform(story: &mut Story, folder: &Folder) -> Result<Cast> {
    setup::build(story, &setup::TOOLS).await?;
    let (cluster, azure) = setup::start(story, folder).await?;
    let images = setup::push(story, folder, &azure, &cluster).await?;
    let pod = setup::install(story, folder, &azure, &cluster).await?;
    let cast = Cast {
        pod,
        azure,
        cluster,
        images,
    };
    proofs::credential(story, &cast).await?;
    proofs::pulls(story, folder, &cast).await?;
    proofs::audiences(story, &cast).await?;
    proofs::policy(story, &cast).await?;
    identities::own(story, folder, &cast).await?;
    identities::repositories(story, folder, &cast).await?;
    rotation::watch(story, folder, &cast).await?;
    Ok(cast)
}

fn end(story: &mut Story, mut cast: Cast) -> Result<()> {
    story.step("Clean up");
    cast.pod.stop()?;
    story.proved("acrcred obeyed SIGTERM and ended with exit code 0");
    let Cast { azure, cluster, .. } = cast;
    drop(azure);
    drop(cluster);
    story.proved("emulator, registries and control plane have ended");
    Ok(())
}
