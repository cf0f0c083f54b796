//! From when to when a certificate is valid. Only these two dates are read; whether the certificate is sound is for
//! rustls and the clients to say.

use std::fmt;

const SECONDS_PER_DAY: i64 = 86_400;

/// Operators hear of it when a certificate ends within this many days.
const SOON: i64 = 14;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first and the last moment, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    from: i64,
    pub(super) to: i64,
}

/// What there is to say about a certificate at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is valid for so many more days.
    Good(i64),
    /// It ends within so many days, which are few.
    EndsSoon(i64),
    /// It has ended.
    Ended,
    /// It begins in the future.
    NotYet,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good(days) => write!(f, "is valid for {days} more days"),
            Self::EndsSoon(0) => f.write_str("expires within a day. Renew it"),
            Self::EndsSoon(1) => f.write_str("expires in 1 day. Renew it"),
            Self::EndsSoon(days) => write!(f, "expires in {days} days. Renew it"),
            Self::Ended => f.write_str("has expired, so clients refuse it. Renew it"),
            Self::NotYet => {
                f.write_str("is not valid yet, so clients refuse it. Look at this machine's clock, too")
            }
        }
    }
}

impl Validity {
    /// Reads the dates of a certificate in DER (RFC 5280); `None` if it cannot be understood.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (certificate, _) = take(certificate, SEQUENCE)?;
        let (mut fields, _) = take(certificate, SEQUENCE)?;
        if let Some((_, rest)) = take(fields, VERSION) {
            fields = rest;
        }
        // Serial number, signature algorithm, issuer.
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            (_, fields) = take(fields, tag)?;
        }
        let (dates, _) = take(fields, SEQUENCE)?;
        let (from, dates) = take_time(dates)?;
        let (to, _) = take_time(dates)?;
        Some(Self { from, to })
    }

    pub(super) fn at(&self, now: i64) -> Verdict {
        let days = (self.to - now) / SECONDS_PER_DAY;
        if now < self.from {
            Verdict::NotYet
        } else if now > self.to {
            Verdict::Ended
        } else if days < SOON {
            Verdict::EndsSoon(days)
        } else {
            Verdict::Good(days)
        }
    }
}

/// The content of an element with this tag, and what comes after it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[first, length], rest) = bytes.split_first_chunk()?;
    if first != tag {
        return None;
    }
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        let length =
            length.iter().try_fold(0_usize, |sum, &byte| sum.checked_mul(256)?.checked_add(byte.into()));
        (length?, rest)
    };
    rest.split_at_checked(length)
}

/// A date and time, always in UTC and to the second.
fn take_time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, year_digits) = match (take(bytes, UTC_TIME), take(bytes, GENERALIZED_TIME)) {
        (Some((text, rest)), _) => (text, rest, 2),
        (None, Some((text, rest))) => (text, rest, 4),
        (None, None) => return None,
    };
    let (year, text) = text.split_at_checked(year_digits)?;
    let year = match (number(year)?, year_digits) {
        (year, 4) => year,
        (year @ ..50, _) => 2000 + year,
        (year, _) => 1900 + year,
    };
    let (digits, [b'Z']) = text.split_first_chunk::<10>()? else { return None };
    let pair = |at: usize| number(digits.get(at..at + 2)?);
    let (month, day, hour, minute, second) = (pair(0)?, pair(2)?, pair(4)?, pair(6)?, pair(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    Some((seconds, rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    str::from_utf8(digits).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()))?.parse().ok()
}

/// Days of the Gregorian calendar. Years are taken to begin in March, so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Months from March on have 31 30 31 30 31 days, twice and a bit.
    let days_before_month = (153 * month + 2) / 5;
    year * 365 + leap_days + days_before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: (i32, u8, u8), to: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["tracker.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn dates_are_read_in_both_forms() {
        let validity = Validity::of(&certificate((1999, 12, 31), (2024, 2, 29))).unwrap();
        assert_eq!(validity, Validity { from: 946_598_400, to: 1_709_164_800 });
        // From 2050 on dates have four digits for the year.
        let validity = Validity::of(&certificate((1970, 1, 1), (2100, 3, 1))).unwrap();
        assert_eq!(validity, Validity { from: 0, to: 4_107_542_400 });
    }

    #[test]
    fn the_verdict_depends_on_the_day() {
        let day = SECONDS_PER_DAY;
        let validity = Validity { from: 100 * day, to: 200 * day };
        let at = |now| validity.at(now);
        assert_eq!((at(100 * day - 1), at(100 * day)), (Verdict::NotYet, Verdict::Good(100)));
        assert_eq!((at(186 * day), at(186 * day + 1)), (Verdict::Good(14), Verdict::EndsSoon(13)));
        assert_eq!((at(200 * day), at(200 * day + 1)), (Verdict::EndsSoon(0), Verdict::Ended));
    }

    #[test]
    fn nothing_else_is_taken_for_a_certificate() {
        let whole = certificate((2020, 1, 1), (2030, 1, 1));
        assert!((0..whole.len()).all(|len| Validity::of(&whole[..len]).is_none()), "cut short");
        for at in 0..200 {
            let mut changed = whole.clone();
            changed[at] ^= 0x91;
            let _ = Validity::of(&changed);
        }
        assert_eq!(Validity::of(&[SEQUENCE, 0x8f]), None);
        assert_eq!(Validity::of(&[[SEQUENCE, 0x88].as_slice(), &[0xff; 8]].concat()), None);
    }
}
