//! Moments as people write them: `2026-11-26T00:30:00Z`, always UTC (ISO 8601).

/// Milliseconds since 1970 as text, to the second.
///
/// ```
/// assert_eq!(raft_tier::format_unix_ms(1_764_115_200_000), "2025-11-26T00:00:00Z");
/// ```
#[must_use]
pub fn format_unix_ms(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// The last millisecond of what `text` names: a date (all of that day), a minute or a second, in UTC.
///
/// ```
/// assert_eq!(raft_tier::parse_unix_ms("2025-11-26T00:00:00Z"), Some(1_764_115_200_999));
/// assert_eq!(raft_tier::parse_unix_ms("2025-11-26"), Some(1_764_201_599_999));
/// assert_eq!(raft_tier::parse_unix_ms("2025-02-29"), None);
/// ```
#[must_use]
pub fn parse_unix_ms(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches(['Z', 'z']);
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, ""));
    let mut date = date.split('-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    if date.next().is_some() || year < 1970 {
        return None;
    }
    let days = (1..=31_u64).contains(&day).then(|| days_before(year, month, day))?;
    // The 30th of February is another day when it is counted back.
    if civil(days) != (year, month, day) {
        return None;
    }
    let start = days * 86_400_000;
    if time.is_empty() {
        return Some(start + 86_399_999);
    }
    let mut time = time.split(':');
    let (hour, minute) = (number(time.next()?, 2)?, number(time.next()?, 2)?);
    let second =
        time.next().map(|text| number(text.split('.').next()?, 2)).map_or(Some(None), |found| found.map(Some))?;
    if time.next().is_some() || hour > 23 || minute > 59 || second.is_some_and(|second| second > 59) {
        return None;
    }
    let rest = second.map_or(59_999, |second| second * 1000 + 999);
    Some(start + hour * 3_600_000 + minute * 60_000 + rest)
}

fn number(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days since 1970 as a date of the Gregorian calendar, counted in eras of 400 years that begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; months beyond 12 are no date, which the caller sees by counting back.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_two_centuries_reads_back() {
        for day in 0..73_000 {
            let text = format_unix_ms(day * 86_400_000 + 3_661_000);
            assert_eq!(parse_unix_ms(&text), Some(day * 86_400_000 + 3_661_999), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in
            ["", "yesterday", "2025-13-01", "2025-00-10", "2025-04-31", "2025-11-26T25:00", "1969-12-31", "2025-1-1"]
        {
            assert_eq!(parse_unix_ms(text), None, "{text}");
        }
        assert_eq!(parse_unix_ms("2025-11-26 00:01"), Some(1_764_115_319_999));
    }
}
