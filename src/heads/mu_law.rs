//! Sounds as symbols: mu-law, which spends the symbols where ears are exact, near silence.
//!
//! The idea: a code of q symbols is an amplitude on a scale that is logarithmic in both directions from 0, with
//! mu = q - 1, as ibab/tensorflow-wavenet computes it. Here in f64 and rounded once, so that a code has one
//! amplitude on every machine; the original's float32 is within 2e-7 of it.

/// The code, of `symbols` symbols (at least 2), of an amplitude: -1 has the first and 1 the last, and what is
/// beyond them has theirs.
pub fn encode(amplitude: f32, symbols: usize) -> usize {
    // From -1..1 to 0..mu, to the nearest whole number.
    ((compressed(amplitude, symbols) + 1.0) / 2.0 * (symbols - 1) as f64 + 0.5) as usize
}

/// The place in [-1, 1] of an amplitude on the scale of the codes: what [`expand`] undoes.
pub fn compress(amplitude: f32, symbols: usize) -> f32 {
    compressed(amplitude, symbols) as f32
}

fn compressed(amplitude: f32, symbols: usize) -> f64 {
    let (mu, amplitude) = ((symbols - 1) as f64, f64::from(amplitude));
    let magnitude = libm::log1p(mu * amplitude.abs().min(1.0)) / libm::log1p(mu);
    magnitude.copysign(amplitude)
}

/// The amplitude, in [-1, 1], of a code below `symbols`, which is at least 2.
pub fn decode(code: usize, symbols: usize) -> f32 {
    expanded(2.0 * (code as f64 / (symbols - 1) as f64) - 1.0, symbols)
}

/// The amplitude, in [-1, 1], of a place in [-1, 1] on the scale of the codes: of one of them, or between two as a given
/// sound has it.
pub fn expand(place: f32, symbols: usize) -> f32 {
    expanded(f64::from(place), symbols)
}

fn expanded(place: f64, symbols: usize) -> f32 {
    let mu = (symbols - 1) as f64;
    let magnitude = (libm::pow(1.0 + mu, place.abs()) - 1.0) / mu;
    magnitude.copysign(place) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amplitudes_are_the_reference_s() {
        // As its TensorFlow code made them: in float32, and not quite alike around 0.
        for (symbols, code, amplitude) in [
            (32, 2, -0.627789676_f64),
            (32, 7, -0.183537811),
            (32, 13, -0.0241582189),
            (32, 14, -0.0128545528),
            (32, 16, 0.00381570077),
            (32, 18, 0.024158204),
            (32, 21, 0.0780796036),
            (32, 25, 0.237608805),
            (32, 28, 0.495541275),
            (32, 30, 0.793174803),
            (256, 1, -0.957273781),
            (256, 9, -0.674823046),
            (256, 24, -0.349574059),
            (256, 43, -0.150785133),
            (256, 58, -0.076650925),
            (256, 72, -0.0399065129),
        ] {
            let ours = decode(code, symbols);
            assert!((f64::from(ours) - amplitude).abs() < 1e-6, "{code}: {ours}, not {amplitude}");
            assert_eq!(encode(amplitude as f32, symbols), code);
        }
        // Computed by hand: ln(1 + 255 / 2) / ln 256 = 0.87573; (1.87573 / 2) 255 + 0.5 = 239.66.
        assert_eq!([encode(0.5, 256), encode(-0.5, 256)], [239, 16]);
    }

    #[test]
    fn a_code_is_its_amplitude() {
        let same = |code, symbols| {
            let amplitude = decode(code, symbols);
            assert!((-1.0..=1.0).contains(&amplitude), "{amplitude}");
            assert_eq!(encode(amplitude, symbols), code, "of {symbols}");
        };
        for symbols in (2..=512).chain([1000, 1024, 4095, 65_535, 65_536]) {
            (0..symbols).for_each(|code| same(code, symbols));
        }
        for symbols in 513..65_535 {
            let middle = symbols / 2;
            let codes = [0, 1, middle - 1, middle, middle + 1, symbols - 2, symbols - 1];
            codes.into_iter().for_each(|code| same(code, symbols));
        }
    }

    #[test]
    fn the_ends_are_the_first_and_the_last_code() {
        for symbols in [2, 3, 32, 256, 65_536] {
            let last = symbols - 1;
            assert_eq!([decode(0, symbols), decode(last, symbols)], [-1.0, 1.0]);
            for (amplitude, code) in [(-1.0, 0), (-7.5, 0), (1.0, last), (3.0, last)] {
                assert_eq!(encode(amplitude, symbols), code);
            }
            // Silence lies between two codes where their number is even, and is the upper one.
            assert_eq!([encode(0.0, symbols), encode(-0.0, symbols)], [symbols / 2; 2]);
        }
    }

    #[test]
    fn louder_is_never_a_lower_code() {
        let codes: Vec<usize> = (-2000..=2000).map(|i| encode(i as f32 / 1990.0, 256)).collect();
        assert!(codes.is_sorted(), "{codes:?}");
        assert_eq!((codes[0], codes[4000]), (0, 255));
    }
}
