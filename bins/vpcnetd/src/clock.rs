//! The two clocks the pool is told of. This is the only place that asks for the time on its behalf.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use vpcnet_ipam::{Mono, Now};

/// Milliseconds since boot, sleep included.
#[must_use]
pub fn mono() -> Mono {
    let t = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    let millis = u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000;
    Mono(seconds.saturating_mul(1000).saturating_add(millis))
}

/// Both clocks.
#[must_use]
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        mono: mono(),
        wall_ns: i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX),
    }
}

/// How long this process has run, as the kernel counts it: field 22 of `/proc/self/stat`, in ticks of 10 ms.
#[must_use]
pub fn since_start() -> Duration {
    let ticks = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| {
        // The second field is the program's name in parentheses and may itself hold blanks.
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().nth(19)?.parse::<u64>().ok()
    });
    match ticks {
        // The kernel counts from boot, sleep included, in USER_HZ, which is 100 on every architecture we run on.
        Some(ticks) => mono().since(Mono(ticks.saturating_mul(10))),
        None => Duration::ZERO,
    }
}

/// How long until `at`; zero when it has passed.
#[must_use]
pub fn until(at: Mono) -> Duration {
    at.since(mono())
}

/// A time of the runtime's clock on the pool's clock.
#[must_use]
pub fn from_instant(at: std::time::Instant) -> Mono {
    mono().plus(at.saturating_duration_since(std::time::Instant::now()))
}

/// RFC 3339 in UTC with seconds, as EC2 tags carry times: `2026-03-01T12:00:00Z`.
#[must_use]
pub fn rfc3339(wall_ns: i64) -> String {
    let seconds = wall_ns.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's civil-from-days, with years that begin in March so that the leap day comes last.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest % 3600 / 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000), want);
        }
    }

    #[test]
    fn the_boot_clock_does_not_go_back() {
        let a = mono();
        assert!(mono() >= a && a.0 > 0);
        assert_eq!(until(a), Duration::ZERO);
        assert!(until(a.plus(Duration::from_secs(60))) > Duration::from_secs(50));
    }
}
