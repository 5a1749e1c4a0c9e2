//! The way to the API server through the proxy that the kubeconfig names.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Program, Scene, manifest, run};

/// A CONNECT proxy (RFC 9110, 9.3.6), and how many connections it has made.
async fn connect_proxy() -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(tunnel(client));
        }
    });
    Ok((url, count))
}

async fn tunnel(client: TcpStream) -> Result<()> {
    let mut client = BufReader::new(client);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        ensure!(client.read_line(&mut request).await? > 0, "{request}");
    }
    let target = request.split(' ').nth(1).context("a target")?;
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[test]
fn the_api_server_is_reached_through_the_proxy_of_the_kubeconfig() {
    run(async {
        let scene = Scene::new("kube-proxy-url").await?;
        let contoso = scene.registry("contoso").await?;
        let (url, connections) = connect_proxy().await?;
        let _program = Program::start_with(&scene, |command| {
            let variables = command.as_std().get_envs();
            let path = variables
                .into_iter()
                .find_map(|(name, value)| value.filter(|_| name == "KUBECONFIG"))
                .expect("a kubeconfig")
                .to_owned();
            let text = fs::read_to_string(&path).expect("it can be read");
            let mut config: Value = serde_saphyr::from_str(&text).expect("YAML");
            config["clusters"][0]["cluster"]["proxy-url"] = url.clone().into();
            fs::write(&path, config.to_string()).expect("it can be written");
        })
        .await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let count = connections.load(Ordering::Relaxed);
        ensure!(count > 0, "nothing went through the proxy");
        Ok(())
    });
}
