//! Times as people write and read them.

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Unix milliseconds of `text`: a whole number of them, `2024-05-31`, or `2024-05-31T08:30:00`
/// (a blank for the `T`; seconds may have a fraction; `Z`, `+02:00` or nothing, which is UTC).
/// `None` for anything else and for times before 1970.
pub fn parse_time(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    // Checked here, so that bytes are characters below.
    if !text.is_ascii() || text.len() < 10 {
        return None;
    }
    let (date, time) = text.split_at(10);
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * DAY_MS;
    let since = match time.as_bytes() {
        [] => 0,
        [b'T' | b't' | b' ', ..] => time_ms(&time[1..])?,
        _ => return None,
    };
    u64::try_from(midnight + since).ok()
}

/// Milliseconds since midnight UTC of `08:30:00.5+02:00`.
fn time_ms(text: &str) -> Option<i64> {
    let (clock, offset) = match text.find(['Z', 'z', '+', '-']) {
        None => (text, 0),
        Some(place) => {
            let (clock, zone) = text.split_at(place);
            let offset = match zone {
                "Z" | "z" => 0,
                _ => {
                    let digits_only = zone[1..].replace(':', "");
                    let (hours, minutes) = digits_only.split_at_checked(2)?;
                    let minutes = if minutes.is_empty() { 0 } else { digits(minutes, 2)? };
                    let offset = (digits(hours, 2)? * 60 + minutes) * 60_000;
                    if zone.starts_with('-') { -offset } else { offset }
                }
            };
            (clock.trim_end(), offset)
        }
    };
    let mut parts = clock.split(':');
    let (hours, minutes) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let (seconds, ms) = match parts.next() {
        None => (0, 0),
        Some(seconds) => match seconds.split_once('.') {
            None => (digits(seconds, 2)?, 0),
            Some((seconds, fraction)) => {
                if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                let padded = format!("{fraction:0<3}");
                (digits(seconds, 2)?, digits(&padded[..3], 3)?)
            }
        },
    };
    // A leap second is read as the second after it.
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000 + ms - offset)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar, years counted from March so that a leap day ends one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// Unix milliseconds to the minute, UTC, as [`parse_time`] reads them: `2024-05-31 08:30Z`.
pub fn time_text(ms: u64) -> String {
    let minutes = ms / 60_000;
    // Years from March on, as above; 400 of them have 146,097 days.
    let days = minutes / (24 * 60) + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}Z", minutes / 60 % 24, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::{DAY_MS, parse_time, time_text};

    #[test]
    fn times_are_read_as_they_are_shown() {
        assert_eq!(time_text(0), "1970-01-01 00:00Z");
        assert_eq!(time_text(1_717_144_259_999), "2024-05-31 08:30Z");
        // Every day of 500 years: all lengths of months and all kinds of leap years.
        for day in 0..500 * 366 {
            let ms = day * DAY_MS as u64 + day % 1_440 * 60_000;
            assert_eq!(parse_time(&time_text(ms)), Some(ms), "{}", time_text(ms));
        }
    }

    #[test]
    fn dates_and_times_are_read() {
        assert_eq!(parse_time("1700000000000"), Some(1_700_000_000_000));
        assert_eq!(parse_time("1970-01-01"), Some(0));
        assert_eq!(parse_time("2000-02-29"), Some(951_782_400_000));
        assert_eq!(parse_time("2024-05-31T08:30:00Z"), Some(1_717_144_200_000));
        assert_eq!(parse_time("2024-05-31 10:30:00.250+02:00"), Some(1_717_144_200_250));
        assert_eq!(parse_time("2024-05-31T08:30"), Some(1_717_144_200_000));
        for wrong in
            ["", "yesterday", "2023-02-29", "2024-13-01", "31.05.2024", "2024-05-31T25:00", "1969-12-31"]
        {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }
}
