//! Real registry processes (CNCF distribution), one for each login server, since its `service` is single-valued.
//!
//! A process starts at the login server's first `/v2/` request that carries a Bearer, on a free loopback port that it chooses itself and
//! names in its log. Aliases of one registry share a storage directory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::sync::Mutex;

use crate::core::Core;
use crate::exchange::ISSUER;
use crate::keys::KeyName;
use crate::leash::Leashed;

/// The registry processes and the client that talks to them.
#[derive(Debug)]
pub struct Distributions {
    dir: PathBuf,
    binary: PathBuf,
    client: Client<HttpConnector, Incoming>,
    slots: std::sync::Mutex<HashMap<String, Arc<Mutex<Slot>>>>,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    NotStarted,
    Running(Box<Leashed>, SocketAddr),
    Stopped,
}

impl Distributions {
    /// None started yet; files go below `dir`.
    pub fn new(dir: PathBuf, binary: PathBuf) -> Self {
        Self {
            dir,
            binary,
            client: Client::builder(TokioExecutor::new()).build_http(),
            slots: std::sync::Mutex::default(),
        }
    }

    /// The client for all of them.
    pub fn client(&self) -> &Client<HttpConnector, Incoming> {
        &self.client
    }

    fn slot(&self, host: &str) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap();
        Arc::clone(slots.entry(host.to_owned()).or_default())
    }

    /// Where the login server's process listens; starts it the first time.
    pub async fn address(&self, core: &Core, host: &str) -> anyhow::Result<SocketAddr> {
        let slot = self.slot(host);
        let mut slot = slot.lock().await;
        match &*slot {
            Slot::Running(_, address) => Ok(*address),
            Slot::Stopped => bail!("stopped"),
            Slot::NotStarted => {
                let (process, address) = self.start(core, host).await?;
                *slot = Slot::Running(Box::new(process), address);
                Ok(address)
            }
        }
    }

    /// Ends the login server's process, and keeps it ended until [`Self::allow`].
    pub async fn stop(&self, host: &str) -> anyhow::Result<()> {
        let slot = self.slot(host);
        let mut slot = slot.lock().await;
        match std::mem::replace(&mut *slot, Slot::Stopped) {
            Slot::Running(process, _) => process.stop().await,
            Slot::NotStarted | Slot::Stopped => Ok(()),
        }
    }

    /// Lets the next request start the login server's process again, on the same storage.
    pub async fn allow(&self, host: &str) {
        let slot = self.slot(host);
        let mut slot = slot.lock().await;
        if matches!(*slot, Slot::Stopped) {
            *slot = Slot::NotStarted;
        }
    }

    /// Process id of the login server's process, if it was started.
    pub async fn pid(&self, host: &str) -> Option<u32> {
        let slot = self.slot(host);
        let slot = slot.lock().await;
        match &*slot {
            Slot::Running(process, _) => Some(process.pid()),
            Slot::NotStarted | Slot::Stopped => None,
        }
    }

    /// Ends all of them.
    pub async fn stop_all(&self) {
        let hosts: Vec<String> = self.slots.lock().unwrap().keys().cloned().collect();
        for host in hosts {
            if let Err(error) = self.stop(&host).await {
                tracing::warn!(host, "registry process did not end: {error:#}");
            }
        }
    }

    async fn start(&self, core: &Core, host: &str) -> anyhow::Result<(Leashed, SocketAddr)> {
        let storage = {
            let state = core.state.read().unwrap();
            let registry = state.registry(host).context("no such registry")?;
            self.dir.join(&registry.login_servers[0]).join("storage")
        };
        let dir = self.dir.join(host);
        tokio::fs::create_dir_all(&dir).await?;
        let config = write_config(core, host, &dir, &storage).await?;
        let (process, first_line) = Leashed::start(
            &self.binary,
            &["serve".as_ref(), config.as_os_str()],
            &dir.join("registry.log"),
            "listening on ",
        )
        .await
        .with_context(|| format!("registry process for {host}"))?;
        let address =
            listening_on(&first_line).with_context(|| format!("no address in {first_line:?}"))?;
        tracing::info!(host, %address, pid = process.pid(), "registry process started");
        Ok((process, address))
    }
}

async fn write_config(
    core: &Core,
    host: &str,
    dir: &Path,
    storage: &Path,
) -> anyhow::Result<PathBuf> {
    let jwks = dir.join("access-key.json");
    let keys = json!({"keys": core.keys.public(KeyName::Access)});
    tokio::fs::write(&jwks, keys.to_string()).await?;
    // JSON is YAML, too.
    let config = json!({
        "version": 0.1,
        "log": {"level": "info", "formatter": "text", "accesslog": {"disabled": true}},
        "storage": {
            "filesystem": {"rootdirectory": storage},
            "delete": {"enabled": true},
            "maintenance": {"uploadpurging": {"enabled": false}},
        },
        "http": {"addr": "127.0.0.1:0", "secret": crate::random::guid()},
        "auth": {"token": {
            "realm": format!("https://{host}/oauth2/token"),
            "service": host,
            "issuer": ISSUER,
            "jwks": jwks,
            "signingalgorithms": ["RS256"],
        }},
    });
    let file = dir.join("config.yml");
    tokio::fs::write(&file, config.to_string()).await?;
    Ok(file)
}

fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ':'));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_log_line() {
        let line = r#"time="2026-01-02T03:04:05Z" level=info msg="listening on 127.0.0.1:41234" version=v3"#;
        assert_eq!(listening_on(line), Some(([127, 0, 0, 1], 41234).into()));
        assert_eq!(listening_on("level=info msg=\"debug server\""), None);
    }
}
