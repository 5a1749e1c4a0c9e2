//! The program: what it prints, and that nothing outlives it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use azure_emulator::state::State;
use controlplane::Tool;
use serde_json::{Value, json};

use crate::bed::{ADMIN, Bed, field, http_client, start, tools};

const HOST: &str = "contoso.azurecr.io";
const TENANT: &str = "11111111-0000-4000-8000-000000000000";

/// A running program and what it printed.
struct Program {
    child: Child,
    ready: Value,
    _dir: tempfile::TempDir,
}

impl Program {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = json!({"registries": [{
            "loginServers": [HOST], "tenantId": TENANT,
            "adminUser": {"username": ADMIN.0, "password": ADMIN.1},
        }]});
        let file = dir.path().join("state.json");
        std::fs::write(&file, state.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_azure-emulator"))
            .arg("--exit-on-stdin-close")
            .args(["--state".as_ref(), file.as_os_str()])
            .args(["--ca-out".as_ref(), dir.path().join("ca.pem").as_os_str()])
            .args(["--dir".as_ref(), dir.path().as_os_str()])
            .args([
                "--registry-binary".as_ref(),
                tools().path(Tool::Registry).as_os_str(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap();
        Self {
            child,
            ready,
            _dir: dir,
        }
    }

    fn text(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }

    /// Makes the registry process start, and returns its process id.
    async fn registry_pid(&self) -> u64 {
        let ca = std::fs::read_to_string(self.text("ca")).unwrap();
        let http = http_client(self.text("proxy"), &ca);
        let url = format!("https://{HOST}/oauth2/token?service={HOST}");
        let answer = http
            .get(url)
            .basic_auth(ADMIN.0, Some(ADMIN.1))
            .send()
            .await
            .unwrap();
        let token = field(answer, "access_token").await;
        let ping = http
            .get(format!("https://{HOST}/v2/"))
            .bearer_auth(token)
            .send()
            .await
            .unwrap();
        assert_eq!(ping.status(), 200);
        self.control(&format!("registries/{HOST}/process")).await["pid"]
            .as_u64()
            .unwrap()
    }

    async fn control(&self, path: &str) -> Value {
        let url = format!("{}/{path}", self.text("control"));
        let plain = http_client("", "");
        serde_json::from_slice(&plain.get(url).send().await.unwrap().bytes().await.unwrap())
            .unwrap()
    }
}

/// Whether the process ends within a few seconds.
fn ends(pid: u64) -> bool {
    let limit = Instant::now() + Duration::from_secs(5);
    let proc = format!("/proc/{pid}");
    while Path::new(&proc).exists() {
        if Instant::now() > limit {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[tokio::test]
async fn a_killed_emulator_leaves_no_registry_process() {
    let mut program = Program::start();
    let pid = program.registry_pid().await;
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    assert!(ends(pid));
}

#[tokio::test]
async fn a_dropped_emulator_leaves_no_registry_process_and_no_files() {
    let bed = Bed::on(start().await);
    let refresh = bed.refresh_token().await;
    let token = field(
        bed.token(&refresh, "repository:a:pull").await,
        "access_token",
    )
    .await;
    assert_eq!(bed.v2("", &token).await.status(), 200);
    let pid = bed.emulator.registry_pid(&bed.host).await.unwrap();
    let dir = bed.emulator.ca_file().parent().unwrap().to_owned();
    assert!(dir.exists());
    drop(bed);
    assert!(ends(pid.into()));
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_closed_standard_input_ends_everything() {
    let mut program = Program::start();
    let pid = program.registry_pid().await;
    drop(program.child.stdin.take());
    assert!(program.child.wait().unwrap().success());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn the_control_listener_shows_state_journal_and_connects() {
    let program = Program::start();
    program.registry_pid().await;
    let state: State = serde_json::from_value(program.control("state").await).unwrap();
    assert!(state.registry(HOST).is_some());
    let journal = program
        .control(&format!("journal?host={HOST}&endpoint=v2"))
        .await;
    assert_eq!(journal.as_array().unwrap().len(), 1);
    assert_eq!(journal[0]["status"], 200);
    assert_eq!(
        program.control("connects").await[0],
        json!({
            "time": program.control("connects").await[0]["time"], "host": HOST, "port": 443, "accepted": true,
        })
    );
    assert_eq!(program.control("clock").await["offset_s"], 0);
}
