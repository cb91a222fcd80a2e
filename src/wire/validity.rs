//! PURE. When a certificate begins and ends: the one thing that is read of it (X.509, RFC 5280 section 4.1).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The first and the last instant of a certificate, DER; `None` if it is none.
pub fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (body, _) = expect(SEQUENCE, certificate)?;
    let (tag, _, rest) = element(body)?;
    let body = if tag == VERSION { rest } else { body };
    let (_, rest) = expect(INTEGER, body)?; // Serial number.
    let (_, rest) = expect(SEQUENCE, rest)?; // Algorithm.
    let (_, rest) = expect(SEQUENCE, rest)?; // Issuer.
    let (validity, _) = expect(SEQUENCE, rest)?;
    let (tag, from, rest) = element(validity)?;
    let from = instant(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some((from, instant(tag, until)?))
}

fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (long, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if long.len() > 4 {
            return None;
        }
        (long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on.
fn instant(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = std::str::from_utf8(digits).ok()?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2).and_then(|two| two.parse::<i8>().ok());
    if rest.len() != 10 {
        return None;
    }
    let time = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(vec!["a.b.svc".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        parameters.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let found = validity(&certificate((2026, 11, 24), (2051, 2, 3))).unwrap();

        assert_eq!(found.0, "2026-11-24T00:00:00Z".parse().unwrap());
        assert_eq!(found.1, "2051-02-03T00:00:00Z".parse().unwrap());
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(cut in 0_usize..600, at in 0_usize..600, byte: u8) {
            let mut bytes = certificate((2026, 1, 1), (2027, 1, 1));
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            let _ = validity(&bytes); // It may be right or none; it must return.
        }
    }
}
