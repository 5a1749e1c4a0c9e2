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
    metrics.object_is("ns", "acr", State::NotReady, None);
    metrics
        .clone()
        .object_is("ns", "acr", State::Ready, Some(expiry));
    metrics.object_is("ns", "other", State::Suspended, None);
    let series =
        r#"acrcred_credential_expiration_timestamp_seconds{namespace="ns",name="acr"} 1800000000"#;
    assert_has(&metrics, series);
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
    metrics.object_is("ns", "acr", State::Ready, Some(Timestamp::UNIX_EPOCH));
    assert!(!metrics.encode().contains("expiration"));
    assert_has(&metrics, r#"acrcred_credentials{state="ready"} 1"#);
}

#[test]
fn work_is_counted_and_timed() {
    let metrics = Metrics::new("0", true);
    metrics.reconciled(ReconcileResult::Failure);
    metrics.refreshed("throttled");
    metrics.minted("entra", "ok", Duration::from_millis(300));
    metrics.watch_queue(|| Duration::from_millis(1500));
    for line in [
        r#"acrcred_reconcile_total{result="failure"} 1"#,
        r#"acrcred_refresh_total{outcome="throttled"} 1"#,
        r#"acrcred_mint_duration_seconds_count{hop="entra",outcome="ok"} 1"#,
        r#"acrcred_mint_duration_seconds_bucket{le="0.25",hop="entra",outcome="ok"} 0"#,
        r#"acrcred_mint_duration_seconds_bucket{le="0.5",hop="entra",outcome="ok"} 1"#,
        "acrcred_queue_oldest_due_seconds 1.5",
    ] {
        assert_has(&metrics, line);
    }
}
