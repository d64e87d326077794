//! Values with units: durations and sizes as strings.

use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads a size such as `"256KiB"`: a whole number and one of the units B, KiB, MiB, GiB. Returns bytes.
///
/// # Errors
/// What is wrong and what would be right, as one phrase.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    if number.is_empty() {
        return Err("a size starts with a whole number: \"64KiB\"".into());
    }
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit.to_ascii_lowercase().as_str() {
            "" => format!("a size needs its unit: \"{number}KiB\" or \"{number}B\""),
            "k" | "kb" | "kib" => format!("unknown unit `{unit}`: write \"{number}KiB\" (1024 bytes)"),
            "m" | "mb" | "mib" => format!("unknown unit `{unit}`: write \"{number}MiB\" (1024 KiB)"),
            "g" | "gb" | "gib" => format!("unknown unit `{unit}`: write \"{number}GiB\" (1024 MiB)"),
            _ => format!("unknown unit `{unit}`: the units are B, KiB, MiB and GiB"),
        });
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(*factor))
        .ok_or_else(|| "the size is beyond 64 bits".into())
}

/// Writes a size in the largest unit that keeps it whole.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let (unit, factor) = UNITS
        .iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(&UNITS[0]);
    format!("{}{unit}", bytes / factor)
}

/// Reads a duration such as `"250ms"`, `"60s"` or `"1m 30s"`. A bare `"0"` is refused as every number without a unit.
///
/// # Errors
/// What is wrong and what would be right, as one phrase.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| match e {
        humantime::DurationError::UnknownUnit { unit, value, .. } if unit.is_empty() => {
            format!("a duration needs its unit: \"{value}s\" or \"{value}ms\"")
        }
        humantime::DurationError::UnknownUnit { unit, .. } => {
            format!("unknown unit `{unit}`: write for example \"250ms\", \"60s\" or \"5m\"")
        }
        e => format!("{e}: write for example \"250ms\", \"60s\" or \"5m\""),
    })
}

/// Writes a duration in whole seconds or milliseconds where it is one, as the manual does.
#[must_use]
pub fn format_duration(d: Duration) -> String {
    if d.subsec_nanos() == 0 {
        format!("{}s", d.as_secs())
    } else if d.as_nanos().is_multiple_of(1_000_000) {
        format!("{}ms", d.as_millis())
    } else {
        humantime::format_duration(d).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in
            [("0B", 0), ("1500B", 1500), ("64KiB", 65536), ("64 KiB", 65536), ("3MiB", 3 << 20)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bytes in [0, 1, 1023, 1024, 1025, 1 << 20, 3 << 30, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_size(65536), "64KiB");
    }

    #[test]
    fn a_wrong_size_says_what_would_be_right() {
        for (text, says) in [
            ("64", "\"64KiB\" or \"64B\""),
            ("64kb", "write \"64KiB\""),
            ("2M", "write \"2MiB\""),
            ("1TiB", "B, KiB, MiB and GiB"),
            ("KiB", "whole number"),
            ("-1KiB", "whole number"),
            ("1.5MiB", "B, KiB, MiB and GiB"),
            ("99999999999GiB", "64 bits"),
        ] {
            let e = parse_size(text).unwrap_err();
            assert!(e.contains(says), "{text}: {e}");
        }
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, ms) in [("250ms", 250), ("60s", 60_000), ("1m 30s", 90_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(format_duration(Duration::from_secs(240)), "240s");
        assert_eq!(format_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(format_duration(Duration::from_micros(1)), "1us");
    }

    #[test]
    fn a_wrong_duration_says_what_would_be_right() {
        for (text, says) in
            [("60", "\"60s\""), ("60sx", "unknown unit `sx`"), ("", "\"60s\""), ("soon", "\"60s\"")]
        {
            let e = parse_duration(text).unwrap_err();
            assert!(e.contains(says), "{text}: {e}");
        }
    }
}
