//! Medians and percentiles. Nothing else: a mean of a noisy machine says little.

/// The middle of the samples; the lower one of two. Zero for none.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50.0)
}

/// The smallest sample that at least `percent` of all do not exceed (nearest rank). Zero for none.
#[must_use]
pub fn percentile(samples: &[f64], percent: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// A figure with as many digits as it deserves, for JSON: three significant ones, or the whole number.
#[must_use]
pub fn rounded(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return 0.0;
    }
    let digits = (2 - figure.abs().log10().floor() as i32).max(0);
    let scale = 10f64.powi(digits);
    (figure * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples = [5.0, 1.0, 4.0, 2.0, 3.0];
        for (percent, expect) in [(1.0, 1.0), (50.0, 3.0), (80.0, 4.0), (99.9, 5.0)] {
            assert_eq!(percentile(&samples, percent), expect, "{percent}");
        }
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[1.0, 2.0]), 1.0);
    }

    #[test]
    fn figures_keep_three_digits() {
        for (figure, expect) in [(0.123_46, 0.123), (1_234_567.0, 1_234_567.0), (98.76, 98.8)] {
            assert_eq!(rounded(figure), expect);
        }
        assert_eq!(rounded(f64::NAN), 0.0);
    }
}
