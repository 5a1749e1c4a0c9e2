use super::*;

#[test]
fn a_lease_is_named_after_the_pod_and_stands_where_it_does() {
    let pod = [
        ("POD_NAMESPACE", "acrcred-system"),
        ("HOSTNAME", "acrcred-0"),
    ];
    let lease = || {
        configured(&["--leader-elect"], &pod)
            .unwrap()
            .lease
            .unwrap()
    };
    let (one, other) = (lease(), lease());
    assert_eq!(one.namespace.as_deref(), Some("acrcred-system"));
    assert_eq!(one.name, "acrcred");
    assert_eq!(one.duration, Duration::from_secs(15));
    assert!(one.identity.starts_with("acrcred-0_"), "{}", one.identity);
    assert_ne!(one.identity, other.identity, "no two processes are alike");
    let flags = [
        "--leader-elect=true",
        "--lease-name=shard-a",
        "--lease-duration=1m",
    ];
    let lease = configured(&flags, &[("POD_NAME", "a"), ("HOSTNAME", "b")]);
    let lease = lease.unwrap().lease.unwrap();
    assert_eq!(lease.name, "shard-a");
    assert!(lease.identity.starts_with("a_"), "{}", lease.identity);
    assert_eq!(lease.duration, Duration::from_mins(1));
    assert_eq!(lease.namespace, None);
    for (flag, value) in [
        ("--leader-elect", "maybe"),
        ("--lease-duration", "2s"),
        ("--lease-duration", "3500ms"),
        ("--lease-duration", "11m"),
        ("--lease-name", "No"),
    ] {
        let text = message(&[&format!("{flag}={value}")], &[]);
        assert!(text.contains(flag) && text.contains(value), "{text}");
    }
}
