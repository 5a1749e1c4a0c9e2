//! Metrics, alerts and the dashboard: they speak of the same things, and each alert comes true.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use acrcred::process::{Admin, Readiness};
use anyhow::{Context as _, Result, ensure};
use azure_emulator::fault::{Fault, Kind, Match};
use azure_emulator::journal::Endpoint;
use controlplane::Tool;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::harness::{Acrcred, REFRESH, Scene, control_plane, manifest, run, soon};

const ALERTS: &str = "charts/acrcred/files/alerts.yaml";
const DASHBOARD: &str = "charts/acrcred/files/dashboard.json";
const PAGE: &str = "docs/monitoring.md";

fn path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).expect(file)
}

/// The names of the alerts.
fn alerts() -> Vec<String> {
    let rules: Value = serde_saphyr::from_str(&read(ALERTS)).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    let name = |rule: &Value| rule["alert"].as_str().expect("an alert").to_owned();
    rules.iter().map(name).collect()
}

/// Words that are names of our metrics.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("acrcred_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// The names of the series of a scrape.
fn series_in(scrape: &str) -> BTreeSet<String> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect()
}

async fn promtool(arguments: &[&str], dir: &Path) -> Result<()> {
    let promtool = control_plane().await?.tools().path(Tool::Promtool);
    let output = Command::new(promtool)
        .args(arguments)
        .current_dir(dir)
        .output()
        .await?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(output.status.success(), "{text}");
    Ok(())
}

/// One look of Prometheus at acrcred's admin server.
async fn scrape(acrcred: &Acrcred) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/metrics", listener.local_addr()?);
    let stop = CancellationToken::new();
    let admin = Admin {
        readiness: Readiness::default(),
        metrics: acrcred.metrics.clone(),
    };
    let server = tokio::spawn(admin.serve(listener, stop.clone()));
    let client = reqwest::Client::builder().no_proxy().build()?;
    let text = client.get(url).send().await?.text().await?;
    stop.cancel();
    server.await?;
    Ok(text)
}

/// What was scraped in a run, and when: input for promtool, which sees each value until the next scrape.
#[derive(Default)]
struct Recording {
    scrapes: Vec<(Timestamp, String)>,
}

impl Recording {
    async fn take(&mut self, acrcred: &Acrcred, now: Timestamp) -> Result<()> {
        self.scrapes.push((now, scrape(acrcred).await?));
        Ok(())
    }

    fn start(&self) -> Result<Timestamp> {
        Ok(self.scrapes.first().context("a scrape")?.0)
    }

    /// Whole minutes from the first scrape to another.
    fn minute(&self, scrape: usize) -> Result<i64> {
        let since = self.scrapes[scrape].0.duration_since(self.start()?);
        Ok(since.as_mins())
    }

    /// Every series, with a value a minute and `_` where there is none.
    fn series(&self, minutes: i64) -> Result<BTreeMap<String, String>> {
        let mut series: BTreeMap<String, String> = BTreeMap::new();
        let by_scrape: Vec<BTreeMap<&str, &str>> = self
            .scrapes
            .iter()
            .map(|(_, text)| {
                let samples = text.lines().filter(|line| !line.starts_with('#'));
                samples.filter_map(|line| line.rsplit_once(' ')).collect()
            })
            .collect();
        let names: BTreeSet<&str> = by_scrape.iter().flat_map(BTreeMap::keys).copied().collect();
        for name in names {
            let values = series.entry(name.to_owned()).or_default();
            for minute in 0..=minutes {
                let last = (0..self.scrapes.len()).rev();
                let mut last =
                    last.filter(|scrape| self.minute(*scrape).is_ok_and(|m| m <= minute));
                let scrape = last.next().context("a scrape")?;
                write!(values, "{} ", by_scrape[scrape].get(name).unwrap_or(&"_"))?;
            }
        }
        Ok(series)
    }

    /// A test for promtool: which alerts fire for an object at which minute, and no others of `watched`.
    fn test(&self, watched: &[&str], expected: &[(i64, &[&str])]) -> Result<String> {
        let minutes = expected
            .iter()
            .map(|(minute, _)| *minute)
            .max()
            .context("a time")?;
        let series: Vec<Value> = self
            .series(minutes)?
            .into_iter()
            .map(|(series, values)| serde_json::json!({"series": series, "values": values}))
            .collect();
        let mut cases = Vec::new();
        for (minute, firing) in expected {
            let alerts = format!(
                "ALERTS{{alertstate=\"firing\",alertname=~\"{}\"}}",
                watched.join("|")
            );
            let samples: Vec<Value> = firing
                .iter()
                .map(|name| serde_json::json!({"labels": format!("{{alertname=\"{name}\"}}"), "value": 1}))
                .collect();
            cases.push(serde_json::json!({
                "expr": format!("count by (alertname) ({alerts})"),
                "eval_time": format!("{minute}m"),
                "exp_samples": samples,
            }));
        }
        let test = serde_json::json!({
            "rule_files": [path(ALERTS)],
            "evaluation_interval": "1m",
            "tests": [{
                "interval": "1m",
                "start_timestamp": self.start()?.to_string(),
                "input_series": series,
                "promql_expr_test": cases,
            }],
        });
        // YAML too.
        Ok(test.to_string())
    }
}

/// How many attempts have failed.
fn failures(acrcred: &Acrcred) -> u64 {
    let text = acrcred.metrics.encode();
    let outcomes = text
        .lines()
        .filter(|line| line.starts_with("acrcred_refresh_total") && !line.contains("\"success\""));
    let count = |line: &str| line.rsplit_once(' ')?.1.parse::<u64>().ok();
    outcomes.filter_map(count).sum()
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    run(async {
        let folder = path("tests/alerts");
        promtool(
            &["check", "rules", &path(ALERTS).display().to_string()],
            &folder,
        )
        .await?;
        let mut text = String::new();
        for file in fs::read_dir(&folder)? {
            let file = file?.path();
            promtool(&["test", "rules", &file.display().to_string()], &folder).await?;
            text += &fs::read_to_string(file)?;
        }
        for alert in alerts() {
            let silent = format!("alertname: {alert}, exp_alerts: []");
            let firing = format!("alertname: {alert}\n    exp_alerts:\n    - exp_labels");
            ensure!(text.contains(&silent), "{alert} is never silent");
            ensure!(text.contains(&firing), "{alert} never fires");
        }
        Ok(())
    });
}

#[test]
fn a_rule_test_that_is_wrong_is_noticed() {
    run(async {
        let scene = Scene::new("wrong-rule").await?;
        let wrong = read("tests/alerts/expiry.yaml")
            .replace("../../", &path("").display().to_string())
            .replace("48m 0s", "49m 0s");
        let file = scene.dir.path().join("wrong.yaml");
        fs::write(&file, wrong)?;
        let result = promtool(&["test", "rules", "wrong.yaml"], scene.dir.path()).await;
        let text = result.err().context("it was taken")?.to_string();
        ensure!(text.contains("49m 0s"), "{text}");
        Ok(())
    });
}

#[test]
fn a_run_that_is_made_to_fail_raises_the_alerts_and_a_healthy_one_none() {
    run(async {
        let scene = Scene::with_own_time("alerts").await?;
        let contoso = scene.registry("contoso").await?;
        let acrcred = scene.start().await?;
        let objects = scene.objects();
        objects.create_ready(&manifest("acr", &[&contoso])).await?;
        let mut recording = Recording::default();
        recording.take(&acrcred, scene.clock.now()).await?;

        // A rotation that works; it is the last.
        let token = objects.token("acr", &contoso).await?.context("a token")?;
        scene.advance(REFRESH);
        objects.another_token("acr", &contoso, &token).await?;
        objects.ready("acr").await?;
        recording.take(&acrcred, scene.clock.now()).await?;
        for (endpoint, matching) in [
            (Endpoint::Login, Match::tenant(&scene.tenant_id)),
            (Endpoint::Exchange, Match::registry(&contoso.server)),
        ] {
            let broken = Kind::Reset {
                after_headers: false,
            };
            scene
                .emulator
                .add_fault(Fault::new(endpoint, matching, broken));
        }
        scene.advance(REFRESH);
        let mut seen = 0;
        // Every ten minutes, until it has expired and a little longer.
        for _ in 0..11 {
            soon("another attempt fails", async || match failures(&acrcred) {
                count if count > seen => {
                    seen = count;
                    Ok(())
                }
                count => Err(format!("{count}")),
            })
            .await?;
            recording.take(&acrcred, scene.clock.now()).await?;
            scene.advance(SignedDuration::from_mins(10));
        }
        objects
            .has("acr", "Ready", "False", "UpstreamUnavailable")
            .await?;

        let watched = [
            "AcrcredCredentialExpiring",
            "AcrcredCredentialNotReady",
            "AcrcredCredentialsFailing",
            "AcrcredRefreshesFailing",
            "AcrcredQueueStuck",
            "AcrcredPanicked",
            "AcrcredReconcilesFailing",
            "AcrcredNoLeader",
            "AcrcredAbsent",
        ];
        let refreshed = recording.minute(1)?;
        let test = recording.test(
            &watched,
            &[
                (refreshed - 1, &[]),
                (refreshed + 60, &[]),
                (refreshed + 120, &["AcrcredRefreshesFailing"]),
                (
                    refreshed + 150,
                    &[
                        "AcrcredCredentialExpiring",
                        "AcrcredCredentialsFailing",
                        "AcrcredRefreshesFailing",
                    ],
                ),
                (
                    refreshed + 205,
                    &[
                        "AcrcredCredentialExpiring",
                        "AcrcredCredentialNotReady",
                        "AcrcredRefreshesFailing",
                    ],
                ),
            ],
        )?;
        let file = scene.dir.path().join("recorded.yaml");
        fs::write(&file, test)?;
        promtool(&["test", "rules", "recorded.yaml"], scene.dir.path()).await?;

        // The same run has seen every metric.
        names_agree(&recording.scrapes.last().context("a scrape")?.1)
    });
}

/// What rules and dashboard name was told, and what was told is explained.
fn names_agree(scrape: &str) -> Result<()> {
    let told = series_in(scrape);
    for file in [ALERTS, DASHBOARD] {
        for metric in metrics_in(&read(file)) {
            let is_told = told.contains(&metric);
            ensure!(is_told, "{file} names {metric}, which nothing tells");
        }
    }
    let page = metrics_in(&read(PAGE));
    for metric in told {
        let ends = ["_bucket", "_sum", "_count"];
        let family = ends.iter().find_map(|end| metric.strip_suffix(end));
        let family = family.unwrap_or(&metric);
        ensure!(page.contains(family), "{PAGE} does not name {family}");
    }
    Ok(())
}

#[test]
fn each_alert_has_a_section_that_says_what_to_do() {
    let page = read(PAGE);
    for alert in alerts() {
        let section = page.split(&format!("### {alert}\n")).nth(1);
        let section = section.unwrap_or_else(|| panic!("{PAGE} has no section {alert}"));
        let section = section.split("\n#").next().unwrap_or_default();
        assert!(section.contains("Do:"), "{alert}: what to do?");
        let anchor = format!("{PAGE}#{}", alert.to_lowercase());
        assert!(
            read(ALERTS).contains(&anchor),
            "{ALERTS} does not link {anchor}"
        );
    }
}
