//! Renewal, on a provider whose held credentials are given their times directly.

use super::*;

/// A provider whose source cannot be reached, so that every renewal fails at once and shows as a failure noted.
fn with_dead_source() -> CredentialProvider {
    let environment = |name: &str| {
        (name == "AWS_CONTAINER_CREDENTIALS_FULL_URI").then(|| "http://127.0.0.1:1/credentials".to_owned())
    };
    let source = ContainerSource::from_environment(&environment).unwrap().unwrap();
    CredentialProvider::new(CredentialSource::Container(source)).unwrap()
}

fn hold(provider: &CredentialProvider, renew_in: i64, ends_in: i64) {
    let at = |seconds: i64| {
        let by = Duration::from_secs(seconds.unsigned_abs());
        Some(if seconds < 0 {
            Instant::now() - by
        } else {
            Instant::now() + by
        })
    };
    let credentials = Arc::new(Credentials::new("HELD", "s", None));
    provider.inner.state().current = Some(Held {
        credentials,
        renew_at: at(renew_in),
        ends_at: at(ends_in),
    });
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn asked(provider: &CredentialProvider) -> bool {
    provider.inner.state().failed.is_some()
}

#[tokio::test]
async fn credentials_far_from_their_end_are_used_without_asking() {
    let provider = with_dead_source();
    hold(&provider, 60, 600);
    assert_eq!(provider.get(soon()).await.unwrap().access_key_id, "HELD");
    assert!(!asked(&provider));
}

#[tokio::test]
async fn credentials_due_for_renewal_are_used_while_the_source_is_away() {
    let provider = with_dead_source();
    hold(&provider, -1, 600);
    assert_eq!(provider.get(soon()).await.unwrap().access_key_id, "HELD");
    assert!(asked(&provider), "the renewal was tried");
    assert_eq!(provider.inner.state().failures, 1);
    assert_eq!(provider.get(soon()).await.unwrap().access_key_id, "HELD");
    assert_eq!(provider.inner.state().failures, 1, "and not tried again at once");
}

#[tokio::test]
async fn one_caller_renews_and_the_others_use_what_is_there() {
    let provider = with_dead_source();
    hold(&provider, -1, 600);
    let _renewing = provider.inner.renewing.lock().await;
    assert_eq!(provider.get(Instant::now()).await.unwrap().access_key_id, "HELD");
    assert!(!asked(&provider));
}

#[tokio::test]
async fn credentials_at_their_end_are_not_used() {
    let provider = with_dead_source();
    hold(&provider, -600, -1);
    let error = provider.get(soon()).await.unwrap_err();
    assert!(error.may_pass(), "{error}");
    assert!(error.retry_at().unwrap() > Instant::now());
}

#[test]
fn renewal_comes_five_to_ten_minutes_before_the_end() {
    let provider = with_dead_source();
    for (left, earliest, latest) in [
        (21_600, 21_000, 21_300),
        (400, 60, 100),
        (60, 60, 60),
        (0, 60, 60),
    ] {
        let mut credentials = Credentials::new("NEW", "s", None);
        credentials.expires = Some(SystemTime::now() + Duration::from_secs(left));
        let before = Instant::now();
        provider.inner.keep(credentials);
        let state = provider.inner.state();
        let renew_in = state.current.as_ref().unwrap().renew_at.unwrap() - before;
        let range = Duration::from_secs(earliest).saturating_sub(Duration::from_secs(1))
            ..=Duration::from_secs(latest + 1);
        assert!(range.contains(&renew_in), "{left} s left: {renew_in:?}");
    }
}

#[test]
fn failures_wait_longer_and_longer_to_a_minute() {
    let provider = with_dead_source();
    let mut waits = Vec::new();
    for _ in 0..10 {
        let now = Instant::now();
        let error = provider.inner.note_failure(CredentialsError::passing("x", "y"));
        waits.push((error.retry_at().unwrap() - now).as_secs_f64());
    }
    assert!(
        waits
            .iter()
            .zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0])
            .all(|(wait, bound)| (bound / 2.0 - 0.1..=bound + 0.1).contains(wait)),
        "{waits:?}"
    );
}

#[test]
fn only_the_credentials_that_were_refused_are_forgotten() {
    let provider = with_dead_source();
    hold(&provider, 60, 600);
    provider.invalidate(&Credentials::new("OTHER", "s", None));
    assert!(provider.inner.state().current.is_some());
    provider.invalidate(&Credentials::new("HELD", "s", None));
    assert!(provider.inner.state().current.is_none());
}
