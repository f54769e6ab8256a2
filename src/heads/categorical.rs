//! A softmax over a few symbols, of which a pixel is one.
//!
//! The idea: a symbol and a value in [-1, 1] are the same thing, symbol i of q being `2 i / (q - 1) - 1`, so that
//! images and sounds of any head are arrays of values. Drawing and likelihood work in f64.

use super::LogSumExp;

/// The value of a symbol: 0 to `symbols - 1` are spread evenly over [-1, 1].
pub fn value(symbol: usize, symbols: usize) -> f32 {
    let half = (symbols - 1) as f32 / 2.0;
    (symbol as f32 - half) / half
}

/// The symbol, below `symbols`, whose value is nearest.
pub fn symbol(value: f32, symbols: usize) -> usize {
    let half = (symbols - 1) as f32 / 2.0;
    ((value * half + half).round() as usize).min(symbols - 1)
}

/// Draws a symbol and returns its value: the first whose cumulative probability exceeds `u`, of probabilities
/// `exp(logit / T)` over their sum.
pub fn sample(logits: &[f32], temperature: f32, u: f32) -> f32 {
    let temperature = f64::from(temperature);
    let greatest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    // Some at a time, as vectors. Those that are looked at twice are made again rather than kept.
    let weights = |logits: &[f32]| {
        let mut weights = [0.0; CHUNK];
        for (weight, logit) in weights.iter_mut().zip(logits) {
            *weight = (f64::from(*logit) - greatest) / temperature;
        }
        for weight in &mut weights {
            *weight = exp(*weight);
        }
        weights
    };
    let mut total = 0.0;
    let mut before = Vec::with_capacity(logits.len().div_ceil(CHUNK));
    for logits in logits.chunks(CHUNK) {
        before.push(total);
        weights(logits)[..logits.len()].iter().for_each(|weight| total += weight);
    }
    let bound = f64::from(u) * total;
    // The sum that exceeds it is in the last chunk that begins with one that does not.
    let chunk = before.iter().rposition(|sum| *sum <= bound).unwrap_or(0);
    let (mut sum, first) = (before[chunk], chunk * CHUNK);
    let part = &logits[first..logits.len().min(first + CHUNK)];
    for (i, weight) in weights(part)[..part.len()].iter().enumerate() {
        sum += weight;
        if sum > bound {
            return value(first + i, logits.len());
        }
    }
    // Only a u of 1 is not exceeded by the whole.
    value(logits.len() - 1, logits.len())
}

/// Symbols whose weights are worked out at a time.
const CHUNK: usize = 32;

/// `exp(x)` for x up to 0, within 1e-15 of it; 0 below -700. Made of operations that are rounded alike on every machine,
/// without a branch, so that compilers make vectors of it: a sound of a second is drawn from millions of these.
fn exp(x: f64) -> f64 {
    /// Adding and subtracting it rounds to an integer, which then stands in its lowest bits.
    const ROUND: f64 = 1.5 * (1u64 << 52) as f64;
    /// ln 2 in two parts, of which the first has zeros behind that its products with small integers are exact.
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    let x = if x > -700.0 { x } else { -700.0 };
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    // The series of exp to r^13, where |r| is at most ln 2 / 2.
    const INVERSE_FACTORIALS: [f64; 14] = {
        let mut inverse = [1.0; 14];
        let mut factorial = 1.0;
        let mut i = 1;
        while i < 14 {
            factorial *= i as f64;
            inverse[i] = 1.0 / factorial;
            i += 1;
        }
        inverse
    };
    let mut sum = INVERSE_FACTORIALS[13];
    for i in (0..13).rev() {
        sum = sum * r + INVERSE_FACTORIALS[i];
    }
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    if x > -700.0 { sum * scale } else { 0.0 }
}

/// The log-probability of the symbol whose value is nearest to `pixel`, in nats.
pub fn log_likelihood(logits: &[f32], pixel: f32) -> f64 {
    let mut all = LogSumExp::default();
    logits.iter().for_each(|&logit| all.add(f64::from(logit)));
    f64::from(logits[symbol(pixel, logits.len())]) - all.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_is_its_value() {
        for symbols in [2, 3, 10, 255, 256, 1024] {
            for i in 0..symbols {
                let x = value(i, symbols);
                assert!((-1.0..=1.0).contains(&x) && symbol(x, symbols) == i, "{i} of {symbols}");
            }
        }
        assert_eq!((value(200, 256), symbol(-1.0, 7), symbol(1.0, 7)), ((200.0 - 127.5) / 127.5, 0, 6));
    }

    #[test]
    fn the_exponential_is_that_of_libm() {
        for i in 0..=200_000 {
            let x = -f64::from(i) * 0.0035;
            let (found, exact) = (exp(x), libm::exp(x));
            assert!(
                (found - exact).abs() <= 1e-15 * exact || (x <= -700.0 && found == 0.0),
                "{x}: {found} {exact}"
            );
        }
        assert_eq!([exp(0.0), exp(-1e300), exp(f64::NEG_INFINITY)], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn symbols_are_drawn_as_often_as_their_probabilities_say() {
        // 1/8, 1/2, 3/8; at temperature 1/2 their squares: 1, 16 and 9 of 26.
        let logits = [1.0_f32, 4.0, 3.0].map(f32::ln);
        for (temperature, shares) in
            [(1.0, [0.125, 0.5, 0.375]), (0.5, [1.0 / 26.0, 16.0 / 26.0, 9.0 / 26.0])]
        {
            let mut counts = [0; 3];
            for i in 0..10_000 {
                let u = (i as f32 + 0.5) / 10_000.0;
                counts[symbol(sample(&logits, temperature, u), 3)] += 1;
            }
            for (count, share) in counts.iter().zip(shares) {
                assert!((f64::from(*count) / 10_000.0 - share).abs() < 2e-4, "{counts:?} at {temperature}");
            }
        }
        let likelihood = log_likelihood(&logits, value(1, 3));
        assert!((likelihood - 0.5_f64.ln()).abs() < 1e-7, "{likelihood}");
    }
}
