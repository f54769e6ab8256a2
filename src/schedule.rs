//! When each part of a layer can be computed while an image grows pixel by pixel.
//!
//! The idea: when row r begins, everything above row r and the whole vertical stream of row r can be
//! known. So a layer's taps fall into two parts: those that read what is known then are done for all
//! columns at once (the row phase), and the rest when its pixel comes (the pixel phase). The paper's
//! `cache_every` and `run_every` follow from a layer's level: it has a new value only at rows and
//! columns that are multiples of its stride.

use crate::network::{Epilogue, Form, IMAGE, Layer, Network, Sampling, Stream, TensorId};

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

/// Rows of a tensor that must be kept for its readers: the newest one and those above that a tap
/// reaches.
pub fn rows_kept(network: &Network, tensor: TensorId) -> usize {
    let taps = network.layers.iter().flat_map(|l| &l.taps);
    let reach = taps.filter(|t| t.source == tensor).map(|t| t.row.unsigned_abs()).max();
    1 + reach.unwrap_or(0)
}

/// The forms in which a tensor is read, and so must be stored. The logits are read raw, by the sampler.
pub fn forms_read(network: &Network, tensor: TensorId) -> Vec<Form> {
    let mut forms = Vec::new();
    for layer in &network.layers {
        if layer.taps.iter().any(|t| t.source == tensor) {
            forms.push(layer.form);
        }
        if layer.epilogue == (Epilogue::Gate { residual: tensor }) {
            forms.push(Form::Raw);
        }
    }
    if tensor == network.logits() || tensor == IMAGE {
        forms.push(Form::Raw);
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Multiply-adds of one image of `height` x `width` pixels by phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The vertical stream: matrix products over a row.
    pub vertical: u64,
    /// The part of the horizontal stream that is done when its row begins.
    pub hoisted: u64,
    /// What is left for each pixel.
    pub pixel: u64,
}

/// Counts the work of one image.
pub fn work(network: &Network, height: usize, width: usize) -> Work {
    let mut work = Work { vertical: 0, hoisted: 0, pixel: 0 };
    for layer in &network.layers {
        let positions = (height / layer.level) * (width / layer.level) / layer.parities().len();
        for &parity in layer.parities() {
            let hoisted = hoisted_taps(network, layer, parity);
            for (i, tap) in layer.taps_of(parity).enumerate() {
                let count = (positions * tap.depth() * layer.sums) as u64;
                match (layer.stream, i < hoisted) {
                    (Stream::Vertical, _) => work.vertical += count,
                    (Stream::Horizontal, true) => work.hoisted += count,
                    (Stream::Horizontal, false) => work.pixel += count,
                }
            }
        }
    }
    work
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn the_work_of_the_paper_s_model_is_that_of_its_definition() {
        let work = work(&Network::new(ModelConfig::PAPER), 32, 32);
        assert_eq!(work.vertical, 14_079_754_240);
        assert_eq!(work.hoisted, 5_309_071_360);
        assert_eq!(work.vertical + work.hoisted + work.pixel, 24_370_216_960);
    }

    #[test]
    fn two_rows_are_kept_where_a_convolution_reads_and_three_of_the_image() {
        let network = Network::new(ModelConfig { resnets: 1, ..ModelConfig::PAPER });
        assert_eq!(rows_kept(&network, IMAGE), 3);
        assert_eq!(rows_kept(&network, network.up_vertical[0]), 2);
        assert_eq!(rows_kept(&network, network.down.last().unwrap()[1]), 1);
        assert_eq!(forms_read(&network, network.down.last().unwrap()[1]), [Form::Elu]);
    }
}
