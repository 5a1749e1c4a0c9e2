//! What the programs `controlplane node` and `controlplane node-programs` do.

use std::{
    env,
    fs::{self, File},
    io::{Write as _, stdout},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tempfile::TempDir;

use super::{NodeReady, cgroups, configuration, packages::Packages, pause};
use crate::{
    Tool, Tools, client_config, eventually,
    supervisor::{Children, Stop},
    tools,
};

const STEP_WITHIN: Duration = Duration::from_mins(1);
/// Where containerd, its shims and the kubelet write however they are configured. The node sees empty folders of its own in their place.
const PRIVATE: [&str; 3] = ["/run/containerd", "/var/log/containers", "/var/lib/kubelet"];
/// How long what is left of a dying namespace may hold on to the folder.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// What a node is made of.
#[derive(Clone, Debug, clap::Args)]
pub struct Machine {
    /// The node's name.
    #[arg(long)]
    pub name: String,
    /// Of an administrator: there is no node authorizer.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// The certificate authority of the API server, PEM.
    #[arg(long)]
    pub kubernetes_ca_file: PathBuf,
    /// The proxy through which containerd pulls.
    #[arg(long)]
    pub https_proxy: String,
    /// The certificate authority of the registries behind it, PEM.
    #[arg(long)]
    pub ca_file: PathBuf,
}

/// Runs a node until stdin closes or a signal comes, and removes what it leaves.
pub fn run(machine: &Machine) -> Result<()> {
    let nodes = File::create(tools::cache()?.join("nodes"))?;
    nodes.lock_shared()?;
    let dir = tempfile::Builder::new().prefix("node-").tempdir()?;
    let outcome = runtime()?.block_on(supervise(machine, dir.path()));
    let removed = remove(dir);
    nodes.unlock()?;
    // The last node of this machine; the next one waits until this is done.
    if nodes.try_lock().is_ok() {
        for folder in PRIVATE {
            // Goes if it is empty: then it was made to be mounted on.
            let _ = fs::remove_dir(folder);
        }
    }
    outcome.and(removed)
}

/// Mounts an empty folder, which this namespace alone sees.
#[cfg(target_os = "linux")]
fn hide(folder: &str) -> std::io::Result<()> {
    use rustix::mount::{MountFlags, mount};
    Ok(mount("tmpfs", folder, "tmpfs", MountFlags::empty(), None)?)
}

#[cfg(not(target_os = "linux"))]
fn hide(_folder: &str) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Runs containerd and the kubelet as the first process of new namespaces, until a signal comes.
pub fn run_programs(machine: &Machine, dir: &Path) -> Result<()> {
    for folder in PRIVATE {
        fs::create_dir_all(folder)?;
        hide(folder).with_context(|| format!("cannot mount an empty folder over {folder}"))?;
    }
    runtime()?.block_on(async {
        let mut stop = Stop::signals()?;
        let (mut containerd, mut kubelet) = (Children::default(), Children::default());
        let outcome = tokio::select! {
            outcome = serve(machine, dir, &mut containerd, &mut kubelet) => outcome,
            () = stop.requested() => Ok(()),
        };
        // In this order, or the kubelet would start again what it misses. The pods end with this process.
        kubelet.end().await;
        containerd.end().await;
        outcome
    })
}

/// A program dies with the thread that started it (see `become_child`): with this runtime that is the main thread.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

async fn supervise(machine: &Machine, dir: &Path) -> Result<()> {
    let mut stop = Stop::listen()?;
    let mut children = Children::default();
    let outcome = tokio::select! {
        outcome = enclose(machine, dir, &mut children) => outcome,
        () = stop.requested() => Ok(()),
    };
    children.end().await;
    outcome
}

/// Starts the programs in namespaces of their own and says when the node has registered. Ends only by an error.
async fn enclose(machine: &Machine, dir: &Path, children: &mut Children) -> Result<()> {
    let packages = Packages::ensure()?;
    configuration::write_containerd(dir, &packages)?;
    configuration::write_kubelet(dir, machine, free_port()?)?;
    pause::write_archive(dir, &packages.busybox())?;

    let this = env::current_exe().context("cannot find this program")?;
    let arguments = [
        "--mount".to_owned(),
        "--pid".into(),
        "--fork".into(),
        // Whatever happens to unshare, nothing outlives it.
        "--kill-child=SIGKILL".into(),
        "--mount-proc".into(),
        this.display().to_string(),
        "node-programs".into(),
        format!("--dir={}", dir.display()),
        format!("--name={}", machine.name),
        format!("--kubeconfig={}", machine.kubeconfig.display()),
        format!(
            "--kubernetes-ca-file={}",
            machine.kubernetes_ca_file.display()
        ),
        format!("--https-proxy={}", machine.https_proxy),
        format!("--ca-file={}", machine.ca_file.display()),
    ];
    children.start("unshare", Path::new("unshare"), &arguments, dir)?;
    tokio::select! {
        outcome = registers(machine) => outcome?,
        death = children.death() => return Err(death),
    }
    let ready = NodeReady {
        name: machine.name.clone(),
        dir: dir.to_owned(),
        pid: children.pids().into_values().next().unwrap_or_default(),
    };
    writeln!(stdout(), "{}", serde_json::to_string(&ready)?)
        .context("cannot say that the node is ready")?;
    stdout().flush()?;
    Err(children.death().await)
}

/// Starts the programs. Ends only by an error.
async fn serve(
    machine: &Machine,
    dir: &Path,
    containerd: &mut Children,
    kubelet: &mut Children,
) -> Result<()> {
    let packages = Packages::ensure()?;
    let tools = Tools::ensure(&[Tool::Kubelet])?;
    containerd.start_with(
        "containerd",
        &packages.containerd(),
        &[format!(
            "--config={}",
            configuration::containerd_file(dir).display()
        )],
        &environment(machine, &packages),
        dir,
    )?;
    tokio::select! {
        outcome = import_pause(dir, &packages) => outcome?,
        death = containerd.death() => return Err(death),
    }
    let arguments = [
        format!("--config={}", configuration::kubelet_file(dir).display()),
        format!("--kubeconfig={}", machine.kubeconfig.display()),
        format!("--root-dir={}", dir.join("kubelet").display()),
        format!("--cert-dir={}", dir.join("kubelet-certificates").display()),
        format!("--hostname-override={}", machine.name),
    ];
    kubelet.start("kubelet", tools.path(Tool::Kubelet), &arguments, dir)?;
    Err(tokio::select! {
        death = containerd.death() => death,
        death = kubelet.death() => death,
    })
}

/// containerd's: it finds its shim by the path, and what it starts finds its libraries.
fn environment(machine: &Machine, packages: &Packages) -> Vec<(&'static str, String)> {
    let path = env::var("PATH").unwrap_or_default();
    let mut environment = vec![
        ("PATH", format!("{}:{path}", packages.programs().display())),
        ("HTTPS_PROXY", machine.https_proxy.clone()),
        ("NO_PROXY", String::new()),
        // For every registry: a hosts.toml would have to name each.
        ("SSL_CERT_FILE", machine.ca_file.display().to_string()),
    ];
    let libraries = packages.libraries();
    environment.extend(libraries.map(|path| ("LD_LIBRARY_PATH", path.display().to_string())));
    environment
}

async fn import_pause(dir: &Path, packages: &Packages) -> Result<()> {
    eventually(STEP_WITHIN, "containerd takes an image", async || {
        let output = tokio::process::Command::new(packages.ctr())
            .arg(format!(
                "--address={}",
                configuration::socket(dir).display()
            ))
            .args(["--namespace=k8s.io", "images", "import"])
            .arg(dir.join(pause::ARCHIVE))
            .output()
            .await
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    })
    .await
}

async fn registers(machine: &Machine) -> Result<()> {
    let client = Client::try_from(client_config(&machine.kubeconfig).await?)?;
    let nodes: Api<Node> = Api::all(client);
    eventually(STEP_WITHIN, "the node registers", async || {
        let node = nodes
            .get_opt(&machine.name)
            .await
            .map_err(|error| error.to_string())?;
        node.map(drop).ok_or_else(|| "no such node".to_owned())
    })
    .await
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address
        .context("cannot find a free port on 127.0.0.1")?
        .port())
}

/// Removes control groups and folder. A killed namespace takes a moment to end, and a process that still ends holds both.
fn remove(dir: TempDir) -> Result<()> {
    let path = dir.keep();
    let containers = cgroups::containers(&configuration::tasks(&path));
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        ensure_unmounted(&path)?;
        let groups_gone = cgroups::remove(&containers);
        let removed = fs::remove_dir_all(&path);
        if groups_gone && !path.exists() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "something of {} is left: {removed:?}, control groups gone: {groups_gone}",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Mounts in the namespace cannot be seen here; one that can would make the removal reach further than the folder.
fn ensure_unmounted(path: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let path = path.display().to_string();
    ensure!(
        !mounts.contains(&path),
        "something is still mounted below {path}; unmount it, then remove the folder"
    );
    Ok(())
}
