//! The program: how it starts, what it shows, how it stops, and what it never says.

use std::time::Duration;

use anyhow::Context as _;

use crate::harness::{Program, Scanner, Scene, acrcred, manifest, refuses, run};

#[test]
fn a_start_that_cannot_work_ends_with_one_line_that_says_what_to_set() {
    run(async {
        let allow = ["--allow-controller-identity", "demo/*"];
        for (arguments, environment, named) in [
            (&allow[..], &[][..], "AZURE_CLIENT_ID"),
            (
                &["--allow-controller-identity", "demo"],
                &[],
                "--allow-controller-identity",
            ),
            (&["--clouds", "AzureGermanCloud"], &[], "--clouds"),
            (&["--clouds", ""], &[], "--clouds"),
            (&["--refresh-fraction", "2"], &[], "--refresh-fraction"),
            (&["--watch-timeout", "300s"], &[], "--watch-timeout"),
            (
                &[],
                &[("AZURE_AUTHORITY_HOST", "https://login.evil.example/")],
                "AZURE_AUTHORITY_HOST",
            ),
            (&[], &[("KUBECONFIG", "/does/not/exist")], "KUBECONFIG"),
            (&[], &[], "KUBECONFIG"),
        ] {
            let mut command = acrcred();
            // Other programs of this machine may hold the default port.
            command
                .args(arguments)
                .args(["--admin-listen", "127.0.0.1:0"]);
            let text = refuses(command.envs(environment.iter().copied())).await?;
            assert!(
                text.contains(named),
                "{arguments:?} {environment:?}: {text}"
            );
            assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        }
        Ok(())
    });
}

#[test]
fn help_and_version_are_there() {
    run(async {
        let help = String::from_utf8(acrcred().arg("--help").output().await?.stdout)?;
        for word in [
            "--allow-controller-identity",
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_ENVIRONMENT_FILEPATH",
            "--clouds",
        ] {
            assert!(help.contains(word), "{help}");
        }
        let version = String::from_utf8(acrcred().arg("--version").output().await?.stdout)?;
        assert_eq!(
            version.trim(),
            format!("acrcred {}", env!("CARGO_PKG_VERSION"))
        );
        Ok(())
    });
}

#[test]
fn it_serves_shows_itself_and_stops_gracefully_without_a_secret_word() {
    run(async {
        let scene = Scene::new("program").await?;
        let contoso = scene.registry("contoso").await?;
        let program = Program::start(&scene).await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let crane = scene.crane(&objects.docker_config("acr").await?)?;
        crane
            .pull(&format!("{}/team/app:v1", contoso.server))
            .await?;

        assert_eq!(program.get("/livez").await?.0, 200);
        assert_eq!(program.get("/healthz").await?.0, 200);
        let (status, metrics) = program.get("/metrics").await?;
        assert_eq!(status, 200);
        let namespace = &scene.namespace;
        for line in [
            format!(
                "acrcred_credential_expiration_timestamp_seconds{{namespace=\"{namespace}\",name=\"acr\"}} 1"
            ),
            "acrcred_credentials{state=\"ready\"} 1".to_owned(),
            "acrcred_reconcile_total{result=\"success\"}".to_owned(),
            "acrcred_mint_duration_seconds_count{hop=\"exchange\",outcome=\"success\"} 1"
                .to_owned(),
            "acrcred_refresh_total{outcome=\"success\"} 1".to_owned(),
            "acrcred_queue_oldest_due_seconds 0".to_owned(),
        ] {
            assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
        }

        let token = objects.token("acr", &contoso).await?.context("a token")?;
        let assertion = tokio::fs::read_to_string(scene.token_path()).await?;
        let log = program.terminate().await?;
        assert!(
            log.lines().count() > 2 && log.contains("\"stopped\""),
            "{log}"
        );
        for line in log.lines() {
            serde_json::from_str::<serde_json::Value>(line).with_context(|| line.to_owned())?;
        }
        let scanner = Scanner::new(&[token, assertion]);
        for text in [&log, &metrics] {
            assert_eq!(scanner.sightings(text), [], "a token was told");
        }
        Ok(())
    });
}

#[test]
fn readiness_does_not_depend_on_azure() {
    run(async {
        let scene = Scene::new("no-azure").await?;
        scene
            .emulator
            .update(|state| state.tenants.retain(|t| t.tenant_id != scene.tenant_id))?;
        let closed = scene.empty_registry("azurecr.io", "closed", |_| {})?;
        let program = Program::start(&scene).await?;
        let objects = scene.objects();
        objects.create(&manifest("acr", &[&closed])).await?;
        objects
            .has("acr", "Stalled", "True", "InvalidIdentity")
            .await?;
        assert_eq!(
            (
                program.get("/readyz").await?.0,
                program.get("/livez").await?.0
            ),
            (200, 200)
        );
        let log = tokio::time::timeout(Duration::from_secs(10), program.terminate()).await??;
        assert!(
            log.contains("90002"),
            "the code helps whoever reads the log: {log}"
        );
        Ok(())
    });
}
