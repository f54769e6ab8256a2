//! When each part of a layer can be computed while an image grows pixel by pixel.
//!
//! The idea: when row r begins, everything above row r and the whole vertical stream of row r can be
//! known. So a layer's taps fall into two parts: those that read what is known then are done for all
//! columns at once (the row phase), and the rest when its pixel comes (the pixel phase). The paper's
//! `cache_every` and `run_every` follow from a layer's level: it has a new value only at rows and
//! columns that are multiples of its stride.

use crate::network::{Epilogue, Form, IMAGE, Layer, Network, Sampling, Stream};

/// How many of the layer's first taps, at outputs of one parity, can be summed when the row begins.
///
/// Taps are listed in this order in [`Layer::taps`], so the two parts are a prefix and the rest.
pub fn hoisted_taps(network: &Network, layer: &Layer, parity: [usize; 2]) -> usize {
    let known = |tap: &&crate::network::Tap| {
        layer.stream == Stream::Vertical
            || network.tensors[tap.source].stream == Stream::Vertical
            || tap.row < 0
            || (layer.sampling == Sampling::Up && parity[0] == 1)
    };
    let count = layer.taps_of(parity).take_while(known).count();
    debug_assert_eq!(count, layer.taps_of(parity).filter(known).count());
    count
}

/// Rows of each tensor that must be kept for its readers: the newest one and those above that a tap
/// reaches.
pub fn rows_kept(network: &Network) -> Vec<usize> {
    let mut rows = vec![1; network.tensors.len()];
    for tap in network.layers.iter().flat_map(|l| &l.taps) {
        rows[tap.source] = rows[tap.source].max(1 + tap.row.unsigned_abs());
    }
    rows
}

/// The forms in which each tensor is read, and so must be stored. The logits are read raw, by the sampler.
pub fn forms_read(network: &Network) -> Vec<Vec<Form>> {
    let mut read = vec![Vec::new(); network.tensors.len()];
    for layer in &network.layers {
        for tap in &layer.taps {
            read[tap.source].push(layer.form);
        }
        if let Epilogue::Gate { residual } = layer.epilogue {
            read[residual].push(Form::Raw);
        }
    }
    for tensor in [network.logits(), IMAGE] {
        read[tensor].push(Form::Raw);
    }
    for forms in &mut read {
        forms.sort_unstable();
        forms.dedup();
    }
    read
}

/// Weights that one position of a level's grid is multiplied with, by phase. A transposed convolution
/// uses one parity's weights at each position, so it counts with the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelWeights {
    /// The stride of the grid.
    pub level: usize,
    /// Row phase: the vertical stream, and what the horizontal stream sums when its row begins.
    pub row: f64,
    /// Pixel phase: the rest of the horizontal stream.
    pub pixel: f64,
}

/// Counts the weights of a network by level and phase.
pub fn level_weights(network: &Network) -> [LevelWeights; 3] {
    let mut levels = [1, 2, 4].map(|level| LevelWeights { level, row: 0.0, pixel: 0.0 });
    for layer in &network.layers {
        let at = levels.iter_mut().find(|l| l.level == layer.level).expect("levels are 1, 2 and 4");
        let parities = layer.parities();
        for &parity in parities {
            let hoisted = hoisted_taps(network, layer, parity);
            for (i, tap) in layer.taps_of(parity).enumerate() {
                let weights = (tap.depth() * layer.sums) as f64 / parities.len() as f64;
                if i < hoisted {
                    at.row += weights;
                } else {
                    at.pixel += weights;
                }
            }
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn four_fifths_of_the_work_are_done_when_a_row_begins() {
        let levels = level_weights(&Network::new(ModelConfig::PAPER));
        let total = |weights: fn(&LevelWeights) -> f64| -> f64 {
            levels.iter().map(|l| weights(l) * (32 / l.level * (32 / l.level)) as f64).sum()
        };
        let (row, pixel) = (total(|l| l.row), total(|l| l.pixel));
        assert_eq!(row + pixel, 24_370_216_960.0);
        assert_eq!(pixel, 4_981_391_360.0);
    }

    #[test]
    fn two_rows_are_kept_where_a_convolution_reads_and_three_of_the_image() {
        let network = Network::new(ModelConfig { resnets: 1, ..ModelConfig::PAPER });
        let (kept, last) = (rows_kept(&network), network.down.last().unwrap()[1]);
        assert_eq!([IMAGE, network.up_vertical[0], last].map(|tensor| kept[tensor]), [3, 2, 1]);
        assert_eq!(forms_read(&network)[last], [Form::Elu]);
    }
}
