//! Dates as AWS writes them, from and to the system's clock. All are UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Days since 1970-01-01 of a date of the Gregorian calendar (also before 1970). `month` from 1.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March here, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month from 1 and day from 1 of a day counted from 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX / 2))
}

/// `20150830T123600Z`, the form of `X-Amz-Date`. A clock before 1970 is taken as 1970.
pub(crate) fn amz_date(time: SystemTime) -> String {
    let total = seconds(time);
    let (year, month, day) = civil_from_days(total.div_euclid(86_400));
    let second = total.rem_euclid(86_400);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn from_parts(year: i64, month: i64, day: i64, hour: i64, minute: i64, second: i64) -> Option<SystemTime> {
    let sane = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !sane {
        return None;
    }
    let total = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(total).ok()?))
}

/// A time as RFC 3339 in UTC, `2017-05-17T15:09:54Z`, with or without a fraction; the form of credentials' `Expiration` and of
/// times in tags. `None` for anything else.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let text = text.trim().strip_suffix(['Z', 'z'])?;
    let (date, time) = text.split_once(['T', 't'])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    from_parts(
        date.next()??,
        date.next()??,
        date.next()??,
        time.next()??,
        time.next()??,
        time.next()??,
    )
}

/// A time as HTTP writes it in `Date`, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7, the fixed form).
pub(crate) fn parse_http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.trim().split_once(", ")?;
    let mut words = rest.split(' ');
    let day = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|m| *m == name)?).ok()? + 1;
    let year = words.next()?.parse().ok()?;
    let mut time = words.next()?.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    if words.next() != Some("GMT") {
        return None;
    }
    from_parts(year, month, day, time.next()??, time.next()??, time.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn known_dates() {
        assert_eq!(amz_date(at(1_440_938_160)), "20150830T123600Z");
        assert_eq!(amz_date(at(951_782_400)), "20000229T000000Z");
        assert_eq!(amz_date(UNIX_EPOCH - Duration::from_secs(5)), "19700101T000000Z");
        assert_eq!(parse_rfc3339("2015-08-30T12:36:00Z"), Some(at(1_440_938_160)));
        assert_eq!(parse_rfc3339("2015-08-30T12:36:00.123Z"), Some(at(1_440_938_160)));
        assert_eq!(
            parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(at(784_111_777))
        );
    }

    #[test]
    fn what_is_no_date_is_none() {
        for bad in [
            "",
            "Z",
            "2015-08-30",
            "2015-13-30T12:36:00Z",
            "2015-08-30T12:36:00+02:00",
            "2015-08-30T25:36:00Z",
            "tomorrow",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
        for bad in [
            "",
            "Sun, 06 Nov 1994",
            "Sun, 06 Mai 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_date_survives_its_text(seconds in 0u64..253_402_300_799) {
            let text = amz_date(at(seconds));
            let iso = format!(
                "{}-{}-{}T{}:{}:{}Z", &text[..4], &text[4..6], &text[6..8], &text[9..11], &text[11..13], &text[13..15]
            );
            prop_assert_eq!(parse_rfc3339(&iso), Some(at(seconds)));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_rfc3339(&text);
            let _ = parse_http_date(&text);
        }
    }
}
