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
    let weight = |logit: &f32| libm::exp((f64::from(*logit) - greatest) / temperature);
    let total: f64 = logits.iter().map(weight).sum();
    let mut sum = 0.0;
    let exceeds = |logit: &f32| {
        sum += weight(logit);
        sum > f64::from(u) * total
    };
    // u is below 1, so that the whole exceeds it.
    let drawn = logits.iter().position(exceeds).unwrap_or(logits.len() - 1);
    value(drawn, logits.len())
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
