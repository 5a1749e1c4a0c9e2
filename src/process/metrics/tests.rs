use super::*;

fn has(metrics: &Metrics, line: &str) -> bool {
    metrics.encode().lines().any(|found| found == line)
}

#[track_caller]
fn assert_has(metrics: &Metrics, line: &str) {
    assert!(
        has(metrics, line),
        "no line {line:?} in\n{}",
        metrics.encode()
    );
}

fn standing(state: &'static str, expires_at: Option<Timestamp>) -> Standing {
    let lead = jiff::SignedDuration::from_secs(1000);
    Standing {
        state,
        is_ready: (state != "suspended").then_some(state == "ready"),
        expires_at,
        refresh_at: expires_at.map(|at| at - lead),
    }
}

#[test]
fn a_fresh_process_shows_its_version_and_zeros() {
    let metrics = Metrics::new("1.2.3", true);
    for line in [
        r#"acrcred_build_info{version="1.2.3"} 1"#,
        r#"acrcred_reconcile_total{result="success"} 0"#,
        r#"acrcred_reconcile_total{result="panic"} 0"#,
        r#"acrcred_credentials{state="not_ready"} 0"#,
    ] {
        assert_has(&metrics, line);
    }
    assert!(metrics.encode().ends_with("# EOF\n"));
    assert!(!metrics.encode().contains("queue_oldest_due"));
}

#[test]
fn an_object_is_counted_once_and_its_series_goes_with_it() {
    let metrics = Metrics::new("0", true);
    let expiry = Timestamp::from_second(1_800_000_000).unwrap();
    metrics.set_object("ns", "acr", standing("not_ready", None));
    metrics
        .clone()
        .set_object("ns", "acr", standing("ready", Some(expiry)));
    metrics.set_object("ns", "other", standing("suspended", None));
    let series =
        r#"acrcred_credential_expiration_timestamp_seconds{namespace="ns",name="acr"} 1800000000"#;
    assert_has(&metrics, series);
    let ready = r#"acrcred_credential_ready{namespace="ns",name="acr"} 1"#;
    assert_has(&metrics, ready);
    let refresh =
        r#"acrcred_credential_refresh_timestamp_seconds{namespace="ns",name="acr"} 1799999000"#;
    assert_has(&metrics, refresh);
    assert_has(&metrics, r#"acrcred_credentials{state="ready"} 1"#);
    assert_has(&metrics, r#"acrcred_credentials{state="not_ready"} 0"#);
    assert_has(&metrics, r#"acrcred_credentials{state="suspended"} 1"#);
    metrics.object_is_gone("ns", "acr");
    assert!(!metrics.encode().contains(r#"name="acr""#));
    assert_has(&metrics, r#"acrcred_credentials{state="ready"} 0"#);
}

#[test]
fn names_of_objects_can_be_left_out() {
    let metrics = Metrics::new("0", false);
    let ready = standing("ready", Some(Timestamp::UNIX_EPOCH));
    metrics.set_object("ns", "acr", ready);
    assert!(!metrics.encode().contains("acrcred_credential_"));
    assert_has(&metrics, r#"acrcred_credentials{state="ready"} 1"#);
}

#[test]
fn work_is_counted_and_timed() {
    let metrics = Metrics::new("0", true);
    metrics.reconciled(ReconcileResult::Failure, Duration::from_millis(20));
    metrics.refreshed("throttled");
    metrics.minted("entra", "ok", Duration::from_millis(300));
    metrics.token_used("entra", true);
    metrics.api_requested("create", "secrets", "conflict");
    metrics.watches("calm");
    metrics.watch_failed("restless");
    metrics.watch_queue(|| Backlog {
        items: 3,
        oldest: Duration::from_millis(1500),
    });
    for line in [
        r#"acrcred_reconcile_total{result="failure"} 1"#,
        r#"acrcred_refresh_total{outcome="throttled"} 1"#,
        r#"acrcred_mint_duration_seconds_count{hop="entra",outcome="ok"} 1"#,
        r#"acrcred_mint_duration_seconds_bucket{le="0.25",hop="entra",outcome="ok"} 0"#,
        r#"acrcred_mint_duration_seconds_bucket{le="0.5",hop="entra",outcome="ok"} 1"#,
        r#"acrcred_reconcile_duration_seconds_bucket{le="0.05"} 1"#,
        r#"acrcred_token_uses_total{token="entra",source="memory"} 1"#,
        r#"acrcred_api_requests_total{verb="create",resource="secrets",code="conflict"} 1"#,
        r#"acrcred_watch_failures_total{watch="calm"} 0"#,
        r#"acrcred_watch_failures_total{watch="restless"} 1"#,
        "acrcred_queue_depth 3",
        "acrcred_queue_oldest_due_seconds 1.5",
    ] {
        assert_has(&metrics, line);
    }
}

#[test]
fn a_replica_that_stands_by_tells_of_no_object() {
    let metrics = Metrics::new("0", true);
    metrics.leads(true);
    metrics.set_object("ns", "acr", standing("not_ready", None));
    assert_has(&metrics, "acrcred_leader 1");
    assert_has(&metrics, r#"acrcred_credentials{state="not_ready"} 1"#);
    metrics.leads(false);
    assert_has(&metrics, "acrcred_leader 0");
    assert_has(&metrics, r#"acrcred_credentials{state="not_ready"} 0"#);
    assert!(!metrics.encode().contains(r#"name="acr""#));
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_tells_what_it_takes() {
    let encoded = Metrics::new("0", true).encode();
    for name in [
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_open_fds ",
    ] {
        let line = encoded.lines().find_map(|line| line.strip_prefix(name));
        let value: f64 = line.and_then(|value| value.parse().ok()).expect(name);
        assert!(value > 0.0 || name.contains("cpu"), "{name} {value}");
    }
    assert_eq!(encoded.matches("# EOF").count(), 1);
}
