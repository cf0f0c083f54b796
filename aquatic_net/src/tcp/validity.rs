//! From when to when a certificate is valid. Only these two dates are read; whether the certificate is sound
//! is for rustls and the clients to say.

use std::fmt;

use x509_parser::parse_x509_certificate;

const SECONDS_PER_DAY: i64 = 86_400;

/// Operators hear of it when a certificate ends within this many days.
const SOON: i64 = 14;

/// The first and the last moment, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    from: i64,
    /// The last moment.
    pub to: i64,
}

/// What there is to say about a certificate at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
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
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(certificate).ok()?;
        let dates = certificate.validity();
        Some(Self { from: dates.not_before.timestamp(), to: dates.not_after.timestamp() })
    }

    /// What there is to say at a moment, in seconds since 1970.
    #[must_use]
    pub fn at(&self, now: i64) -> Verdict {
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
        assert_eq!(Validity::of(b"-----BEGIN CERTIFICATE-----"), None);
    }
}
