//! Numbers as people read them. `assets/status.js` has the same functions.

/// A number in groups of three digits; above ten millions in millions and so on, with three digits.
pub(crate) fn number(value: f64) -> String {
    let value = value.max(0.0);
    for (size, unit) in [(1e12, "T"), (1e9, "G"), (1e6, "M")] {
        if value >= size * if size > 1e6 { 1.0 } else { 10.0 } {
            return format!("{} {unit}", three_digits(value / size));
        }
    }
    grouped(value.round() as u64)
}

/// A rate: with one decimal below ten.
pub(crate) fn rate(value: f64) -> String {
    if value > 0.0 && value < 9.95 { format!("{value:.1}") } else { number(value) }
}

/// A number of bytes.
pub(crate) fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = value.max(0.0);
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 { format!("{value:.0}") } else { three_digits(value) };
    format!("{digits} {}", units.get(unit).copied().unwrap_or_default())
}

/// A time in microseconds.
pub(crate) fn microseconds(value: f64) -> String {
    if value < 999.5 {
        format!("{} µs", if value < 99.95 { three_digits(value) } else { format!("{value:.0}") })
    } else if value < 999_500.0 {
        format!("{} ms", three_digits(value / 1e3))
    } else {
        format!("{} s", three_digits(value / 1e6))
    }
}

/// A share of one.
pub(crate) fn percent(value: f64) -> String {
    let percent = value * 100.0;
    if percent > 99.0 && percent < 100.0 { format!("{percent:.2} %") } else { format!("{percent:.0} %") }
}

/// A duration in its two largest units.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A moment in seconds since 1970 as date and time of day, in UTC.
pub(crate) fn date_time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    format!("{} {:02}:{:02}:{:02}", date_of_days(days), second / 3600, second / 60 % 60, second % 60)
}

/// A moment in seconds since 1970 as a date, in UTC.
pub(crate) fn date(seconds: u64) -> String {
    date_of_days(seconds / 86_400)
}

/// Year, month and day of the Gregorian calendar, in which 400 years have 146,097 days. Years are counted
/// from March, so that the day that may be missing is the last one.
fn date_of_days(days: u64) -> String {
    let days = days.min(10_000_000) + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A number below a thousand with three digits in all.
fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A text in HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases: [(f64, &str); 8] = [
            (0.0, "0"),
            (999.4, "999"),
            (1234.5, "1,235"),
            (9_999_999.0, "9,999,999"),
            (12_345_678.0, "12.3 M"),
            (1.5e9, "1.50 G"),
            (2.34e12, "2.34 T"),
            (-1.0, "0"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!([0.0, 0.04, 9.94, 9.96, 1000.0].map(rate), ["0", "0.0", "9.9", "10", "1,000"]);
        let sizes = [0.0, 999.0, 1024.0, 1.5 * 1024.0 * 1024.0, 5e12];
        assert_eq!(sizes.map(bytes), ["0 B", "999 B", "1.00 KiB", "1.50 MiB", "4.55 TiB"]);
        let times = [1.5, 12.34, 999.0, 1500.0, 2e6];
        assert_eq!(times.map(microseconds), ["1.50 µs", "12.3 µs", "999 µs", "1.50 ms", "2.00 s"]);
        assert_eq!([0.0, 0.434, 0.9997, 1.0].map(percent), ["0 %", "43 %", "99.97 %", "100 %"]);
    }

    #[test]
    fn times_are_short() {
        let durations = [5, 65, 3660, 90_000].map(duration);
        assert_eq!(durations, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_798_761_600, "2027-01-01 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(date_time(seconds), text);
        }
        assert_eq!(date(1_709_251_199), "2024-02-29");
        let _ = date_time(u64::MAX);
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escape("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }
}
