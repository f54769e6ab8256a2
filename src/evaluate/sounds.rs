//! How likely a model finds given sounds, sample by sample.
//!
//! The idea: a sound may be far longer than memory holds logits of. So it goes through the cached method in windows, each
//! of which begins one receptive field before the first position that is wanted of it: what comes out there is, bit for
//! bit, what a walk through the whole sound gives, and nothing is kept of a window but its likelihoods.

use std::ops::Range;

use ndarray::{Array2, Array4, ArrayView2, ArrayView3, s};

use super::{BATCH, largest};
use crate::engine::{self, Batch, Engine, Given, Method};
use crate::error::{Error, Result};
use crate::memory;

/// Positions of a window, at least, and in receptive fields, so that what windows have in common is a fifth of them.
const POSITIONS: usize = 4096;
const FIELDS: usize = 4;

/// Sounds to evaluate, for a model whose network reads the sample before.
#[derive(Clone, Copy, Debug)]
pub struct Sounds<'a> {
    /// Samples as the values that the model draws, `[N, T]` in [-1, 1].
    pub values: ArrayView2<'a, f32>,
    /// The class of each sound, for a class-conditional model: `[N]`.
    pub labels: Option<&'a [u32]>,
    /// Samples that are not scored, below T. They are read as what comes before the others. With 0 the first is scored
    /// too, as it is drawn: after the model's own beginning.
    pub skip: usize,
    /// Logits to compare with, `[N, M, logits]`, and the position of the first: at position p are those after samples
    /// `[..=p]`.
    pub compare: Option<(ArrayView3<'a, f32>, usize)>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct SoundScores {
    /// Negative log-likelihood of each sound's samples from `skip` on, given those before, in nats; NaN if one of its
    /// logits is not finite.
    pub nats: Vec<f64>,
    /// The largest absolute difference to the logits to compare with, NaN if any is; `None` if none were given.
    pub max_logit_difference: Option<f64>,
}

/// Evaluates sounds, in batches of the size that fits into memory.
///
/// # Errors
/// [`Error::Argument`] for sounds that do not fit the model or themselves, [`Error::Memory`] if not even one fits, and
/// the engine's own.
pub fn evaluate_sounds(engine: &mut dyn Engine, sounds: &Sounds) -> Result<SoundScores> {
    let (count, length) = sounds.values.dim();
    let graph = engine.graph();
    let (head, field) = (graph.head, graph.receptive_rows());
    if !graph.input.previous || head.values() != 1 {
        return Err(Error::refused("sounds", "the model's images are not sounds"));
    }
    engine::check_labels(graph, sounds.labels, count)?;
    if sounds.skip >= length {
        let expected = format!("less than the {length} samples of a sound");
        return Err(Error::argument("skip", expected, sounds.skip));
    }
    if let Some((logits, from)) = &sounds.compare {
        let (expected, found) = ([count, logits.dim().1, head.logits()], logits.shape());
        if found != expected {
            let expected = format!("shape {expected:?}");
            return Err(Error::argument("logits to compare with", expected, format!("{found:?}")));
        }
        let behind = length.checked_sub(logits.dim().1).filter(|_| logits.dim().1 > 0);
        if behind.is_none_or(|behind| *from > behind) {
            let expected = format!("1 or more of {length} positions");
            let found = format!("{} from position {from} on", logits.dim().1);
            return Err(Error::argument("logits to compare with", expected, found));
        }
    }

    // What the network reads, in its order: where the first sample is scored, there is something before it.
    let before = usize::from(sounds.skip == 0);
    let mut read = Array2::from_elem((count, before + length), head.nearest(0.0));
    read.slice_mut(s![.., before..]).assign(&sounds.values);
    // Positions count what was read, less one; the last of them has no sample after it.
    let scored = before + sounds.skip - 1..before + length - 1;
    let compared = sounds.compare.as_ref().map(|(logits, from)| {
        let from = before + from;
        from..from + logits.dim().1
    });
    let wanted = compared
        .as_ref()
        .map_or(scored.clone(), |compared| scored.start.min(compared.start)..scored.end.max(compared.end));
    let most = POSITIONS.max(FIELDS * field);
    let rows = (wanted.len().min(most) + field - 1).min(before + length);
    let batch = batch_size(engine, count, rows)?;

    let mut scores =
        SoundScores { nats: vec![0.0; count], max_logit_difference: sounds.compare.map(|_| 0.0) };
    for first in (0..count).step_by(batch) {
        let range = first..count.min(first + batch);
        let labels = sounds.labels.map(|labels| &labels[range.clone()]);
        for start in wanted.clone().step_by(most) {
            let positions = start..wanted.end.min(start + most);
            let begin = (start + 1).saturating_sub(field);
            let logits = window(engine, read.slice(s![range.clone(), ..]), labels, begin..positions.end)?;
            for position in positions {
                for (slot, sound) in range.clone().enumerate() {
                    let logits = logits.slice(s![slot, position - begin, 0, ..]);
                    if scored.contains(&position) {
                        let logits = logits.as_slice().expect("a pixel's logits are together");
                        scores.nats[sound] -= head.log_likelihood(logits, &[read[[sound, position + 1]]]);
                    }
                    if let (Some((others, _)), Some(compared), Some(so_far)) =
                        (&sounds.compare, &compared, &mut scores.max_logit_difference)
                        && compared.contains(&position)
                    {
                        let others = others.slice(s![sound, position - compared.start, ..]);
                        let off =
                            logits.iter().zip(others).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
                        *so_far = off.fold(*so_far, largest);
                    }
                }
            }
        }
    }
    Ok(scores)
}

/// The logits `[N, positions, 1, logits]` at some positions of what is read, `[N, T]`, as if it began with the first of
/// them.
fn window(
    engine: &mut dyn Engine,
    read: ArrayView2<f32>,
    labels: Option<&[u32]>,
    positions: Range<usize>,
) -> Result<Array4<f32>> {
    let (count, length) = read.dim();
    // A row's sample is the one that comes after its position; behind the end any will do.
    let mut rows = Array4::zeros((count, positions.len(), 1, 1));
    let after = positions.start + 1..length.min(positions.end + 1);
    rows.slice_mut(s![.., ..after.len(), 0, 0]).assign(&read.slice(s![.., after]));
    let batch = Batch {
        labels,
        start: Some(read.slice(s![.., positions.start..positions.start + 1])),
        given: Some(Given { images: rows.view(), rows: positions.len() }),
        keep_logits: true,
        ..Batch::new(count, positions.len(), 1)
    };
    let output = engine.make(&batch, &|_| true)?;
    Ok(output.logits.expect("the logits were asked for"))
}

/// The largest batch up to [`BATCH`] that fits, with the logits of a window.
fn batch_size(engine: &dyn Engine, count: usize, rows: usize) -> Result<usize> {
    let wanted = BATCH.min(count).max(1);
    let Some(available) = engine.available() else {
        return Ok(wanted);
    };
    // The logits, and each row's sample twice: as it is given and as it comes out.
    let floats = engine.graph().head.logits() + 2;
    let bytes = |size: usize| {
        let kept =
            [size, rows, floats, size_of::<f32>()].iter().fold(1, |n: u64, &d| n.saturating_mul(d as u64));
        kept.saturating_add(engine.batch_bytes(Method::Cached, size, rows, 1))
    };
    memory::check_batch(available, 1, bytes)?;
    Ok(memory::largest_batch(wanted, |size| memory::batches_fit(available, count, size, bytes)))
}
