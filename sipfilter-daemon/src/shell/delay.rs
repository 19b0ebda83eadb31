//! How long pinholes took to open: a histogram of fixed size, from the kernel's sight of a message to the end of the map write.
//!
//! It is filled after the write, so it delays nothing that it measures. Values are told to within a thirty-second part.

use std::time::Duration;

use crate::view;

/// Steps within one power of two.
const STEPS: usize = 32;
const STEP_BITS: u32 = STEPS.ilog2();
/// Powers of two of nanoseconds, up to 18 minutes; whatever is longer counts as that.
const POWERS: usize = 36;

/// Upper ends of the buckets that Prometheus gets.
pub const BUCKETS: [Duration; 14] = [
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
];

/// The same delays for Prometheus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Of all, in seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
    /// How many each bucket alone holds; what is longer than the last one is in none.
    pub buckets: [u64; BUCKETS.len()],
}

/// Durations, counted by size.
#[derive(Debug)]
pub struct Delays {
    counts: Box<[u64]>,
    count: u64,
    max: Duration,
    histogram: Histogram,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            counts: vec![0; STEPS * POWERS].into(),
            count: 0,
            max: Duration::ZERO,
            histogram: Histogram::default(),
        }
    }
}

impl Delays {
    /// Counts one.
    pub fn add(&mut self, delay: Duration) {
        if let Some(place) = self.counts.get_mut(place(delay)) {
            *place += 1;
        }
        self.count += 1;
        self.max = self.max.max(delay);
        self.histogram.sum += delay.as_secs_f64();
        self.histogram.count += 1;
        let bucket = BUCKETS.partition_point(|upper| *upper < delay);
        if let Some(bucket) = self.histogram.buckets.get_mut(bucket) {
            *bucket += 1;
        }
    }

    /// The delay that `share` of all did not exceed; zero if there were none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut passed = 0;
        for (place, count) in self.counts.iter().enumerate() {
            passed += count;
            if passed >= rank {
                return upper_end(place).min(self.max);
            }
        }
        self.max
    }

    /// For Prometheus.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// For the control socket.
    pub fn view(&self) -> view::Delays {
        let micros = |delay: Duration| delay.as_nanos() as f64 / 1e3;
        view::Delays {
            count: self.count,
            p50_us: micros(self.quantile(0.5)),
            p99_us: micros(self.quantile(0.99)),
            p999_us: micros(self.quantile(0.999)),
            max_us: micros(self.max),
        }
    }
}

/// Small values have a place each; then every power of two has [`STEPS`].
fn place(delay: Duration) -> usize {
    let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX) | 1;
    let power = nanos.ilog2();
    let place = match power.checked_sub(STEP_BITS) {
        None => nanos as usize,
        Some(shift) => (shift as usize) * STEPS + (nanos >> shift) as usize,
    };
    place.min(STEPS * POWERS - 1)
}

/// The greatest value that is counted at a place.
fn upper_end(place: usize) -> Duration {
    let shift = (place / STEPS).saturating_sub(1);
    let step = (place - shift * STEPS) as u64;
    Duration::from_nanos(((step + 1) << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_at_most_a_thirty_second_part_too_long() {
        for nanos in [1_u64, 31, 32, 63, 64, 1_000, 12_345, 999_999, 1 << 30] {
            let mut delays = Delays::default();
            delays.add(Duration::from_nanos(nanos));
            // Something longer, so that the maximum does not cut the place's end.
            delays.add(Duration::from_secs(3));
            let told = delays.quantile(0.5).as_nanos() as u64;
            assert!(told >= nanos, "{nanos} is told as {told}");
            assert!(told <= nanos + nanos / 32 + 1, "{nanos} is told as {told}");
        }
    }

    #[test]
    fn quantiles_count_from_the_shortest() {
        let mut delays = Delays::default();
        assert_eq!(delays.quantile(0.5), Duration::ZERO);
        for micros in 1..=1_000 {
            delays.add(Duration::from_micros(micros));
        }
        for (share, expect) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1_000.0)] {
            let told = delays.quantile(share).as_nanos() as f64 / 1e3;
            assert!((expect..=expect * 1.04).contains(&told), "{share}: {told}");
        }
        assert_eq!(delays.view().count, 1_000);
        assert_eq!(delays.view().max_us, 1_000.0);
    }

    #[test]
    fn a_delay_lies_in_the_first_bucket_that_is_long_enough() {
        let mut delays = Delays::default();
        for (micros, bucket) in [
            (25, Some(0)),
            (26, Some(1)),
            (1_000, Some(5)),
            (1_000_001, None),
        ] {
            let before = delays.histogram().clone();
            delays.add(Duration::from_micros(micros));
            let after = delays.histogram();
            assert_eq!(after.count, before.count + 1);
            for (place, (is, was)) in after.buckets.iter().zip(before.buckets).enumerate() {
                assert_eq!(
                    is - was,
                    u64::from(bucket == Some(place)),
                    "{micros} us in {place}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut delays = Delays::default();
        delays.add(Duration::MAX);
        assert_eq!(delays.view().count, 1);
        assert!(delays.quantile(0.5) > Duration::from_secs(1_000));
    }
}
