//! The core story against real Azure: an `AcrCredential`, its Secret, a pull, and nothing left behind.
//!
//! ```text
//! this program ─► the cluster of KUBECONFIG ◄── acrcred, as its ServiceAccount
//!              ─► the registry              ◄── acrcred ─► Entra
//! ```
//!
//! Opt-in: `make test-azure`. What must be there first: `docs/testing-against-azure.md`. `HTTPS_PROXY` and `SSL_CERT_FILE` count here
//! too, and so `make test` runs it against the emulator.

mod cluster;
mod program;
mod pull;
mod setting;

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};

use crate::cluster::{Cluster, Home};
use crate::program::Program;
use crate::setting::Setting;

fn main() -> ExitCode {
    // kube and reqwest may each bring a provider; the process names one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match tell() {
        Ok(()) => {
            println!("All of it worked.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("test-azure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn tell() -> Result<()> {
    let setting = Setting::from_environment()?;
    let cluster = Cluster::connect(&setting.kubeconfig).await?;
    let home = cluster.create_home().await?;
    done(&format!("namespace {} is there", home.namespace));
    let outcome = tokio::select! {
        outcome = story(&setting, &cluster, &home) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    // Also after a failure, which then is what counts.
    let cleaned = home.delete().await;
    outcome.and(cleaned)?;
    done("the namespace is deleted");
    Ok(())
}

async fn story(setting: &Setting, cluster: &Cluster, home: &Home) -> Result<()> {
    let mut acrcred = Program::start(setting, cluster, &home.namespace).await?;
    home.create_credential(&setting.server).await?;
    let credential = home.until_ready(&mut acrcred).await?;
    done(&format!(
        "the AcrCredential is ready, with a credential until {}",
        credential.expires_at
    ));
    if let Ok(pulled) = pull::digest(setting, None).await {
        bail!(
            "{} can be pulled without a credential ({pulled}), so a pull with one proves nothing",
            setting.image
        );
    }
    let config = home.docker_config().await?;
    let digest = pull::digest(setting, Some(&config)).await?;
    done(&format!("{} is {digest}, and private", setting.image));
    match pull::digest_by_crane(setting, &config).await? {
        Some(seen) => {
            ensure!(seen == digest, "crane sees {seen}");
            done("crane says the same");
        }
        None => println!("not tried: crane is not on the PATH"),
    }
    acrcred.stop().await?;
    done("acrcred ended when it was told to");
    home.delete_credential().await?;
    done("the AcrCredential took its Secret along");
    Ok(())
}

fn done(what: &str) {
    println!("ok: {what}");
}
