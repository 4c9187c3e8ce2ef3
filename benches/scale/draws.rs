//! Random numbers that a seed decides, the same on every machine.

use std::f64::consts::TAU;

/// `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, figure
/// 1).
pub struct Draws(u64);

impl Draws {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Draws a number above 0 and at most 1.
    pub fn fraction(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Draws a whole number below `bound`. Its bias is below `bound` in 2^32.
    pub fn below(&mut self, bound: u32) -> u32 {
        let scaled = (self.bits() >> 32) * u64::from(bound);
        u32::try_from(scaled >> 32).expect("below a u32")
    }

    /// Draws from the exponential distribution, the pauses of a process without memory.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.fraction().ln()
    }

    /// Draws from the log-normal distribution. `spread` is the deviation of the logarithm. The mean is
    /// `median * exp(spread² / 2)`.
    pub fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        // Box and Muller's normal number.
        let radius = (-2.0 * self.fraction().ln()).sqrt();
        median * (spread * radius * (TAU * self.fraction()).cos()).exp()
    }
}
