//! Where the services are: the overrides people set, and AWS's own names.

use http::Uri;
use http::uri::Scheme;

use crate::error::ConfigError;

/// Reads environment variables; passed in so that tests need not change the process's own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment. A variable that is set but empty counts as not set, as in the AWS SDKs.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The domain of a region's services (the DNS suffix of its partition).
fn domain(region: &str) -> &'static str {
    // Longest prefix first: `us-isob-` also begins with `us-iso`.
    const SUFFIXES: [(&str, &str); 6] = [
        ("cn-", "amazonaws.com.cn"),
        ("eusc-", "amazonaws.eu"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("us-iso-", "c2s.ic.gov"),
    ];
    SUFFIXES
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix))
        .map_or("amazonaws.com", |(_, suffix)| suffix)
}

/// `https://<service>.<region>.<domain>`.
///
/// # Errors
/// If `region` could not be a region's name; it becomes part of a host name that is sent credentials' signatures.
pub(crate) fn regional(service: &str, region: &str) -> Result<Uri, ConfigError> {
    let plain = !region.is_empty()
        && region.len() <= 40
        && region
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !plain {
        return Err(ConfigError::Region(region.to_owned()));
    }
    parse(&format!("https://{service}.{region}.{}", domain(region)))
}

/// An endpoint as people write it: `http://host:port` or `https://host`, a path below it allowed.
///
/// # Errors
/// If it is not such a URL.
pub(crate) fn parse(text: &str) -> Result<Uri, ConfigError> {
    let bad = |reason: &'static str| ConfigError::Endpoint {
        endpoint: text.to_owned(),
        reason,
    };
    let uri: Uri = text.trim().parse().map_err(|_| bad("it is not a URL"))?;
    if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(bad("it must begin with http:// or https://"));
    }
    if uri.query().is_some() {
        return Err(bad("it must not have a query"));
    }
    match uri.authority() {
        Some(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => Ok(uri),
        _ => Err(bad("it must name a host, without a user")),
    }
}

/// `host:port` as the `Host` header has it: the port only where it is not the scheme's own.
pub(crate) fn host_header(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    let default = if uri.scheme() == Some(&Scheme::HTTPS) {
        443
    } else {
        80
    };
    match uri.port_u16() {
        Some(port) if port != default => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_each_partition_have_their_domain() {
        for (region, host) in [
            ("eu-west-1", "ec2.eu-west-1.amazonaws.com"),
            ("us-gov-west-1", "ec2.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "ec2.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", "ec2.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "ec2.us-isob-east-1.sc2s.sgov.gov"),
            ("eusc-de-east-1", "ec2.eusc-de-east-1.amazonaws.eu"),
        ] {
            let uri = regional("ec2", region).unwrap();
            assert_eq!((uri.scheme_str(), uri.host()), (Some("https"), Some(host)));
        }
    }

    #[test]
    fn a_region_that_would_change_the_host_is_refused() {
        for region in ["", "eu-west-1.evil.example/", "eu west", "EU-WEST-1", "a@b", "x#"] {
            assert!(
                matches!(regional("ec2", region), Err(ConfigError::Region(_))),
                "{region:?}"
            );
        }
    }

    #[test]
    fn endpoints_are_urls_with_a_host() {
        assert_eq!(
            host_header(&parse("http://127.0.0.1:5000").unwrap()),
            "127.0.0.1:5000"
        );
        assert_eq!(host_header(&parse("http://127.0.0.1:80/x").unwrap()), "127.0.0.1");
        assert_eq!(
            host_header(&parse("https://ec2.example:443").unwrap()),
            "ec2.example"
        );
        assert_eq!(
            host_header(&parse("http://[fd00:ec2::254]").unwrap()),
            "[fd00:ec2::254]"
        );
        for bad in [
            "",
            "127.0.0.1:5000",
            "ftp://host",
            "http://",
            "http://user:pw@host",
            "http://host?x=1",
            "http://ho st",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
