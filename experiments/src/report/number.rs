//! Numbers as a reader wants them: three digits that mean something, and a unit.

/// Three significant digits, without an exponent where one can be avoided.
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        return "0".into();
    }
    if !(1e-4..1e12).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    let digits = (2 - magnitude.log10().floor() as i32).max(0) as usize;
    if magnitude >= 1000.0 { thousands(value) } else { format!("{value:.digits$}") }
}

/// A round value on an axis: no digits that say nothing.
pub fn tick(value: f64) -> String {
    let text = short(value);
    let (digits, power) = text.split_at(text.find('e').unwrap_or(text.len()));
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.').to_owned() + power } else { text }
}

/// A round value with its unit on an axis.
pub fn axis(value: f64, unit: &str) -> String {
    let text = with_unit(value, unit);
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        None => tick(value),
        Some(_) => text,
    }
}

/// A time on an axis, in the unit that leaves the fewest digits.
pub fn nanoseconds(value: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0)];
    let (unit, size) = UNITS.into_iter().find(|(_, size)| value >= *size).unwrap_or(("ns", 1.0));
    format!("{} {unit}", tick(value / size))
}

/// A ratio: two digits after the point where it is near 1, more where it is small.
pub fn ratio(value: f64) -> String {
    if (0.1..10.0).contains(&value) { format!("{value:.3}") } else { short(value) }
}

/// So many things: "1 sample", "2 samples".
pub fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A share in percent.
pub fn percent(share: f64) -> String {
    format!("{} %", short(share * 100.0))
}

/// A value with its unit, bytes in binary steps.
pub fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => bytes(value),
        "1/s" if value.abs() >= 1e6 => format!("{} M/s", short(value / 1e6)),
        "1/s" if value.abs() >= 1e4 => format!("{} k/s", short(value / 1e3)),
        "1/s" => format!("{} /s", short(value)),
        "" | "events" | "caches" | "lines" | "share" => short(value),
        unit => format!("{} {unit}", short(value)),
    }
}

/// Bytes, in the unit that leaves the fewest digits.
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{} {}", short(scaled), UNITS[unit])
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    if value < 0.0 { format!("-{grouped}") } else { grouped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(short(12.345), "12.3");
        assert_eq!(short(0.012345), "0.0123");
        assert_eq!(short(1_234_567.0), "1\u{202f}234\u{202f}567");
        assert_eq!(with_unit(1536.0, "bytes"), "1.50 KiB");
        assert_eq!([bytes(0.0), bytes(102_400.0), bytes(3_f64 * 2_f64.powi(40))], ["0 B", "100 KiB", "3.00 TiB"]);
        assert_eq!(with_unit(12_500_000.0, "1/s"), "12.5 M/s");
        assert_eq!(ratio(1.0351), "1.035");
        assert_eq!([tick(4.0), tick(0.5), tick(100.0)], ["4", "0.5", "100"]);
        assert_eq!(axis(4.0 * 1024.0 * 1024.0, "bytes"), "4 MiB");
        assert_eq!([axis(0.01, "events"), axis(1e-5, "events"), axis(200.0, "")], ["0.01", "1e-5", "200"]);
    }
}
