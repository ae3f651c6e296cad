//! Axes with round numbers, and numbers as people read them.

/// A stretch of numbers with its ticks.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Where it begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// Round numbers between.
    pub ticks: Vec<f64>,
    step: f64,
}

/// Beyond this nothing is drawn: an axis around it would itself leave the numbers.
const MOST: f64 = 1e300;

impl Axis {
    /// Reaches from a tick to a tick around the values that can be drawn, at about `most` ticks.
    pub fn around(values: impl IntoIterator<Item = f64>, most: usize) -> Self {
        let (low, high) = extent(values);
        let step = round_step(high - low, most);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        Self::of(first * step, last * step, step)
    }

    /// Of whole numbers, from 0 to exactly the last one.
    pub(crate) fn counting(last: u64, most: usize) -> Self {
        let high = last.max(1) as f64;
        Self::of(0.0, high, round_step(high, most).max(1.0))
    }

    fn of(low: f64, high: f64, step: f64) -> Self {
        let count = ((high - low) / step + 1e-6).floor().max(0.0) as usize;
        let ticks = (0..=count).map(|at| low + step * at as f64);
        // Not 1e-17 but 0.
        let ticks = ticks.map(|tick| if tick.abs() < step * 1e-6 { 0.0 } else { tick });
        Self { low, high, ticks: ticks.collect(), step }
    }

    /// Where a value lies: 0 at the low end, 1 at the high one.
    pub fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// A tick's label, with as many decimals as the ticks need.
    pub fn label(&self, tick: f64) -> String {
        let largest = self.low.abs().max(self.high.abs());
        if tick == 0.0 {
            "0".to_owned()
        } else if !(1e-3..1e6).contains(&largest) {
            // As many digits as tell neighbours apart.
            let digits =
                (tick.abs().log10().floor() - (self.step * 1.000_001).log10().floor()).clamp(0.0, 6.0) as usize;
            format!("{tick:.digits$e}")
        } else {
            let decimals = (-(self.step * 1.000_001).log10().floor()).clamp(0.0, 9.0) as usize;
            grouped(tick, decimals)
        }
    }
}

/// Can be drawn.
pub(crate) fn is_drawable(value: f64) -> bool {
    value.is_finite() && value.abs() <= MOST
}

/// Lowest and highest, apart from each other.
fn extent(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let drawable = values.into_iter().filter(|value| is_drawable(*value));
    let (low, high) =
        drawable.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        (0.0, 1.0)
    } else if high - low > high.abs().max(low.abs()) * 1e-6 {
        (low, high)
    } else if low == 0.0 {
        (0.0, 1.0)
    } else {
        (low - low.abs() * 0.1, high + high.abs() * 0.1)
    }
}

/// 1, 2 or 5 times a power of ten: the smallest that cuts `range` into `most` parts or fewer.
fn round_step(range: f64, most: usize) -> f64 {
    let least = range / most.max(1) as f64;
    let power = 10_f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    step.into_iter().find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// `12,345.60`
pub fn grouped(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "not finite".to_owned();
    }
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

/// A measured number at three or more digits: `24.53`, `0.0123`, `2.10e9`.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "not finite".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 1e7 => format!("{value:.2e}"),
        size if size >= 1e3 => grouped(value, 0),
        size if size >= 0.1 => format!("{value:.2}"),
        size if size >= 1e-3 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

/// A speed: `181`, `9.4`.
pub(crate) fn per_second(value: f64) -> String {
    if value.is_finite() { grouped(value, usize::from(value < 100.0)) } else { number(value) }
}

/// `3 h 05 min`, `38 min`, `12 s`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    let minutes = (seconds / 60.0).round() as u64;
    match seconds {
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds if seconds < 99.5 => format!("{seconds:.0} s"),
        _ if minutes < 60 => format!("{minutes} min"),
        _ => format!("{} h {:02} min", grouped((minutes / 60) as f64, 0), minutes % 60),
    }
}

/// The unit that suits a number of bytes, and how many bytes it is.
pub(crate) fn byte_unit(bytes: f64) -> (&'static str, f64) {
    if bytes >= 1e9 { ("GB", 1e9) } else { ("MB", 1e6) }
}

/// `1.67 GB`, `600 MB`.
pub fn bytes(bytes: f64) -> String {
    let (unit, size) = byte_unit(bytes);
    format!("{} {unit}", grouped(bytes / size, if size == 1e9 { 2 } else { 0 }))
}

/// All digits while they are few: `346,380`, `15.0 M`.
pub fn count(count: u64) -> String {
    if count < 10_000_000 { grouped(count as f64, 0) } else { format!("{} M", grouped(count as f64 / 1e6, 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_on_round_ticks() {
        let check = |values: &[f64], expected: &[&str]| {
            let axis = Axis::around(values.iter().copied(), 5);
            let labels: Vec<String> = axis.ticks.iter().map(|&tick| axis.label(tick)).collect();
            assert_eq!(labels, expected, "{values:?}");
            assert_eq!((axis.share(axis.low), axis.share(axis.high)), (0.0, 1.0), "{values:?}");
            for value in values.iter().filter(|value| is_drawable(**value)) {
                assert!((axis.low..=axis.high).contains(value), "{value} in {axis:?}");
            }
        };
        check(&[0.0, 1.0], &["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(&[2.31, 3.52], &["2.0", "2.5", "3.0", "3.5", "4.0"]);
        check(&[0.0, 183.0], &["0", "50", "100", "150", "200"]);
        check(&[0.0, 0.0003], &["0", "1e-4", "2e-4", "3e-4"]);
        check(&[0.0, 0.00025], &["0", "5e-5", "1.0e-4", "1.5e-4", "2.0e-4", "2.5e-4"]);
        check(&[0.001, 0.004], &["0.001", "0.002", "0.003", "0.004"]);
        check(&[22.9, 34.8], &["20", "25", "30", "35"]);
        check(&[0.0, 41_234.0], &["0", "10,000", "20,000", "30,000", "40,000", "50,000"]);
        check(&[1e9, 5e9], &["1e9", "2e9", "3e9", "4e9", "5e9"]);
        check(&[-3.0, 4.0], &["-4", "-2", "0", "2", "4"]);
        // One value, none at all, and none that can be drawn.
        check(&[2.5], &["2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8"]);
        check(&[0.0], &["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(&[], &["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(&[f64::NAN, f64::INFINITY, 1e301], &["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(&[f64::NAN, 1.0, 3.0, f64::INFINITY], &["1.0", "1.5", "2.0", "2.5", "3.0"]);
        check(&[0.0, 1e300], &["0", "2e299", "4e299", "6e299", "8e299", "1.0e300"]);
        check(&[3.0, 3.0 + 1e-12], &["2.6", "2.8", "3.0", "3.2", "3.4"]);
    }

    #[test]
    fn steps_are_counted_in_whole_numbers() {
        let check = |last: u64, expected: &[&str]| {
            let axis = Axis::counting(last, 6);
            let labels: Vec<String> = axis.ticks.iter().map(|&tick| axis.label(tick)).collect();
            assert_eq!(
                (labels.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), axis.high),
                (expected, last.max(1) as f64)
            );
        };
        check(0, &["0", "1"]);
        check(1, &["0", "1"]);
        check(4, &["0", "1", "2", "3", "4"]);
        check(211, &["0", "50", "100", "150", "200"]);
        check(10_000, &["0", "2,000", "4,000", "6,000", "8,000", "10,000"]);
    }

    #[test]
    fn numbers_are_short() {
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(0.0, "0");
        check(24.534, "24.53");
        check(-24.534, "-24.53");
        check(0.01234, "0.0123");
        check(0.0003, "3.00e-4");
        check(12_345.6, "12,346");
        check(2.1e9, "2.10e9");
        check(f64::NAN, "not finite");
        check(f64::INFINITY, "not finite");
    }

    #[test]
    fn durations_are_short() {
        let check = |seconds: f64, expected: &str| assert_eq!(duration(seconds), expected);
        check(0.0, "0.0 s");
        check(9.44, "9.4 s");
        check(59.6, "60 s");
        check(2_280.0, "38 min");
        check(3_599.0, "1 h 00 min");
        check(11_100.0, "3 h 05 min");
        check(f64::INFINITY, "unknown");
    }

    #[test]
    fn sizes_fit_a_tile() {
        let check = |size: f64, expected: &str| assert_eq!(bytes(size), expected);
        check(0.0, "0 MB");
        check(599_900_000.0, "600 MB");
        check(1_670_000_000.0, "1.67 GB");
        let check = |number, expected: &str| assert_eq!(count(number), expected);
        check(0, "0");
        check(9_999_999, "9,999,999");
        check(15_000_000, "15.0 M");
    }

    #[test]
    fn digits_are_grouped() {
        let check = |value: f64, decimals, expected: &str| assert_eq!(grouped(value, decimals), expected);
        check(0.0, 0, "0");
        check(999.0, 0, "999");
        check(1_000.0, 0, "1,000");
        check(-1_234_567.891, 2, "-1,234,567.89");
    }
}
