//! The median and other quantiles of measured values.

use std::time::Duration;

/// The value below which the part `q` of all values is. There must be a value.
///
/// # Panics
///
/// If there is no value.
pub fn quantile(values: &[Duration], q: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The value in the middle. There must be a value.
///
/// # Panics
///
/// If there is no value.
pub fn median(values: &[Duration]) -> Duration {
    quantile(values, 0.5)
}

/// A time in milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::quantile;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        for (q, millis) in [(0.0, 1), (0.5, 100), (0.99, 198), (1.0, 200)] {
            assert_eq!(quantile(&values, q), Duration::from_millis(millis), "{q}");
        }
        assert_eq!(quantile(&values[..1], 0.5), Duration::from_millis(200));
    }
}
