//! Images, pushed and pulled by crane through the proxy.

use std::path::Path;
use std::process::{Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use controlplane::Tool;
use serde_json::json;
use tokio::process::Command;

use crate::bed::{ADMIN, Bed, tools};

const ZERO_GUID: &str = "00000000-0000-0000-0000-000000000000";

/// Runs crane with a Docker configuration of one credential.
async fn crane(bed: &Bed, (user, password): (&str, &str), args: &[&str]) -> Output {
    let config = tempfile::tempdir().unwrap();
    let auth = STANDARD.encode(format!("{user}:{password}"));
    let auths =
        json!({"auths": {&bed.host: {"username": user, "password": password, "auth": auth}}});
    std::fs::write(config.path().join("config.json"), auths.to_string()).unwrap();
    Command::new(tools().path(Tool::Crane))
        .args(args)
        .env("HTTPS_PROXY", bed.emulator.proxy_url())
        .env("SSL_CERT_FILE", bed.emulator.ca_file())
        .env("DOCKER_CONFIG", config.path())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

/// Pushes a small image and returns its name.
async fn push(bed: &Bed) -> String {
    let layer = bed.file("layer.tar");
    write_tar(&layer);
    let image = format!("{}/team/app:v1", bed.host);
    let args = [
        "append",
        "--new_layer",
        layer.to_str().unwrap(),
        "--new_tag",
        &image,
    ];
    let pushed = crane(bed, ADMIN, &args).await;
    assert!(
        pushed.status.success(),
        "{}",
        String::from_utf8_lossy(&pushed.stderr)
    );
    image
}

/// A tar archive of one empty file: a header block and two blocks of zeros.
fn write_tar(path: &Path) {
    let mut header = [0_u8; 512];
    header[..5].copy_from_slice(b"hello");
    header[100..107].copy_from_slice(b"0000644");
    for field in [108, 116] {
        header[field..field + 7].copy_from_slice(b"0000000");
    }
    header[124..135].copy_from_slice(b"00000000000");
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let archive = [header.as_slice(), &[0; 1024]].concat();
    std::fs::write(path, archive).unwrap();
}

async fn pulls(bed: &Bed, password: &str, image: &str) -> bool {
    let to = bed.file("pulled.tar");
    let args = ["pull", image, to.to_str().unwrap()];
    crane(bed, (ZERO_GUID, password), &args)
        .await
        .status
        .success()
}

#[tokio::test]
async fn an_image_is_pushed_and_pulled_with_a_refresh_token_and_a_flipped_byte_fails() {
    let bed = Bed::new().await;
    let image = push(&bed).await;
    let refresh = bed.refresh_token().await;
    assert!(pulls(&bed, &refresh, &image).await);
    let mut flipped = refresh.into_bytes();
    let middle = flipped.len() - 100;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    assert!(!pulls(&bed, &String::from_utf8(flipped).unwrap(), &image).await);
}

#[tokio::test]
async fn a_reader_cannot_push() {
    let bed = Bed::new().await;
    let image = push(&bed).await;
    let refresh = bed.refresh_token().await;
    assert!(pulls(&bed, &refresh, &image).await);
    let elsewhere = format!("{}/team/other:v1", bed.host);
    let copied = crane(&bed, (ZERO_GUID, &refresh), &["copy", &image, &elsewhere]).await;
    assert!(!copied.status.success());
}

#[tokio::test]
async fn a_stopped_registry_process_makes_pulls_fail_until_it_starts_again() {
    let bed = Bed::new().await;
    let image = push(&bed).await;
    let refresh = bed.refresh_token().await;
    assert!(pulls(&bed, &refresh, &image).await);
    let first = bed.emulator.registry_pid(&bed.host).await.unwrap();
    bed.emulator.stop_registry(&bed.host).await.unwrap();
    assert!(!Path::new(&format!("/proc/{first}")).exists());
    assert!(!pulls(&bed, &refresh, &image).await);
    bed.emulator.start_registry(&bed.host).await.unwrap();
    assert!(pulls(&bed, &refresh, &image).await);
}
