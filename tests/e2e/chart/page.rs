//! The commands of the pages, as somebody would type them.

use std::os::unix::fs::symlink;
use std::process::Stdio;

use anyhow::{Result, ensure};
use controlplane::{ControlPlane, Options, Tool};
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::{Helm, Program, Scene, run};

const INSTALLING: &str = include_str!("../../../docs/installing.md");
const QUICK_START: &str = include_str!("../../../docs/quick-start.md");
const IDENTITIES: &str = include_str!("../../../docs/identities.md");
const ERRORS: &str = include_str!("../../../docs/errors.md");
/// What a reader replaces.
const NAMES: [(&str, &str); 3] = [
    ("REGISTRY", "registry.example"),
    ("CLIENT_ID", "22222222-0000-4000-8000-000000000001"),
    ("TENANT_ID", "11111111-0000-4000-8000-000000000001"),
];
/// What needs Azure, the Internet, a container daemon, or a node.
const ELSEWHERE: [&str; 4] = ["az ", "curl ", "docker ", "rollout status"];

/// The blocks of a language, in their order.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let blocks = page.split(&*start).skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```"));
    let filled = blocks.map(|(block, _)| {
        NAMES.iter().fold(block.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    });
    filled.collect()
}

/// The blocks of shell that need none of that.
fn runnable(page: &str) -> Vec<String> {
    let blocks = blocks(page, "sh").into_iter();
    blocks
        .filter(|block| !ELSEWHERE.iter().any(|word| block.contains(word)))
        .collect()
}

/// A shell with helm and kubectl as administrator, in the checkout.
struct Shell<'a> {
    control_plane: &'a ControlPlane,
    home: TempDir,
}

impl<'a> Shell<'a> {
    fn new(control_plane: &'a ControlPlane, helm: Tool) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let tools = control_plane.tools();
        symlink(tools.path(helm), home.path().join("helm"))?;
        symlink(tools.path(Tool::Kubectl), home.path().join("kubectl"))?;
        Ok(Self {
            control_plane,
            home,
        })
    }

    /// Runs a script to its end; returns what it printed, and each command before it ran.
    async fn run(&self, script: &str) -> Result<(String, String)> {
        let output = Command::new("/bin/sh")
            .args(["-eux", "-c", script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.home.path().display()),
            )
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let commands = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{commands}");
        Ok((String::from_utf8(output.stdout)?, commands))
    }
}

#[test]
fn every_command_of_installing_works_in_its_order_with_both_versions() {
    run(async {
        let control_plane = ControlPlane::start(Options::default()).await?;
        for version in Helm::VERSIONS {
            let shell = Shell::new(&control_plane, version)?;
            let script = blocks(INSTALLING, "sh").concat();
            let (_, commands) = shell.run(&script).await?;
            assert!(commands.matches("+ helm ").count() >= 4, "{commands}");
            // Takes away what the single file leaves.
            let clean = "kubectl delete --ignore-not-found --filename config/install.yaml";
            shell.run(clean).await?;
        }
        Ok(())
    });
}

#[test]
fn the_quick_start_ends_with_a_credential_and_other_pages_go_on_from_there() {
    run(async {
        // Lives as long as the run, as all that scenes are on.
        let control_plane = Box::leak(Box::new(ControlPlane::start(Options::default()).await?));
        let scene = Scene::with_control_plane(control_plane, "quick-start").await?;
        let contoso = scene.registry("contoso").await?;
        let shell = Shell::new(control_plane, Tool::Helm)?;
        let page = QUICK_START.replace("contoso.azurecr.io", &contoso.server);
        let [issuer, install, create, describe] = &runnable(&page)[..] else {
            anyhow::bail!("other blocks than expected: {:?}", runnable(&page));
        };

        let (printed, _) = shell.run(issuer).await?;
        assert_eq!(printed.trim(), control_plane.issuer());
        let (notes, _) = shell.run(install).await?;
        assert!(notes.contains("STATUS: deployed"), "{notes}");

        // In place of the pod that the chart's Deployment would start on a node.
        let _program = Program::start_with(&scene, |command| {
            let allowed = format!("team-a/{}", contoso.server);
            command.args(["--allow-controller-identity", &allowed]);
            command.args(["--watch-namespaces", "team-a"]);
        })
        .await?;
        let (printed, _) = shell.run(create).await?;
        assert!(printed.contains("Issued"), "{printed}");
        let (described, _) = shell.run(describe).await?;
        assert!(described.contains("Issuer:"), "{described}");

        air_gapped(&scene, &shell).await?;
        identities(&shell).await?;
        let (printed, _) = shell.run(&runnable(ERRORS).concat()).await?;
        assert!(printed.contains(control_plane.issuer()), "{printed}");
        Ok(())
    });
}

/// What the quick start adds in an air-gapped cloud, from the files that its reader has.
async fn air_gapped(scene: &Scene, shell: &Shell<'_>) -> Result<()> {
    let (files, commands) = (blocks(QUICK_START, "json"), blocks(QUICK_START, "console"));
    let ([environment], [commands]) = (&files[..], &commands[..]) else {
        anyhow::bail!("{} files, {} blocks", files.len(), commands.len());
    };
    let dir = scene.dir.path();
    std::fs::write(dir.join("environment.json"), environment)?;
    std::fs::copy(scene.emulator.ca_file(), dir.join("ca-bundle.crt"))?;
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/acrcred");
    let commands = commands.replace("charts/acrcred", chart);
    let there = format!("cd '{}'\n{commands}", dir.display());
    shell.run(&there).await?;
    let look = "kubectl get deployment acrcred --namespace acrcred-system --output yaml";
    let (deployment, _) = shell.run(look).await?;
    for words in ["AZURE_ENVIRONMENT_FILEPATH", "name: trusted-ca"] {
        assert!(deployment.contains(words), "{words}: {deployment}");
    }
    Ok(())
}

/// The page on identities: the rights, a team's objects, what Entra must be told, and a refresh.
async fn identities(shell: &Shell<'_>) -> Result<()> {
    let [grant, look, refresh] = &runnable(IDENTITIES)[..] else {
        anyhow::bail!("other blocks than expected: {:?}", runnable(IDENTITIES));
    };
    shell.run(grant).await?;
    let [objects] = &blocks(IDENTITIES, "yaml")[..] else {
        anyhow::bail!("other manifests than one");
    };
    shell
        .run(&format!(
            "kubectl apply --filename - <<'YAML'\n{}\nYAML",
            dedented(objects)
        ))
        .await?;
    let told = "kubectl wait --namespace team-a acrcredential/payments --timeout=20s \
                --for=jsonpath='{.status.identity.subject}'=system:serviceaccount:team-a:puller";
    shell.run(told).await?;
    let (identity, _) = shell.run(look).await?;
    assert!(
        identity.contains("api://AzureCRTokenExchange"),
        "{identity}"
    );
    let (annotated, _) = shell.run(refresh).await?;
    assert!(annotated.contains("annotated"), "{annotated}");
    Ok(())
}

/// A block of a list, without the list's indentation.
fn dedented(block: &str) -> String {
    let lines = block
        .lines()
        .map(|line| line.strip_prefix("   ").unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}
