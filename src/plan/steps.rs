//! Which pieces run when a row begins and when a pixel comes.
//!
//! The idea (Ramachandran et al. 2017, with all that is known when a row begins moved out of the pixel loop): when a
//! row begins, the maps whose row is known then are made for the whole row, layer after layer, and the other layers
//! sum what they can; a pixel then only adds what is left. All of that repeats with the period of the strides, so
//! that it is written down once.

use super::{Part, Piece, Plan};

/// A part of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Index of the piece in [`Plan::pieces`].
    pub piece: usize,
    /// Its part.
    pub part: Part,
}

/// Runs that do not depend on each other. What follows may depend on all of them.
pub type Step = Vec<Run>;

/// The steps of a cached generation.
#[derive(Clone, Debug)]
pub struct Steps {
    /// Rows and columns after which everything repeats.
    pub period: usize,
    /// What is summed before the row phase makes anything, by row modulo the period, of maps that the row phases of rows above have
    /// made: it need not wait for the pixels of the row before. Nothing of it depends on anything else of it.
    pub upper: Vec<Step>,
    /// And of what is there when the row before is whole: the same.
    pub above: Vec<Step>,
    /// The maps that are known when a row begins, by row modulo the period.
    pub known: Vec<Vec<Step>>,
    /// What the other layers can sum then, if it was not summed before: nothing of it depends on anything else of it.
    pub hoisted: Vec<Step>,
    /// What a pixel needs, by row and column modulo the period.
    pub pixels: Vec<Vec<Vec<Step>>>,
    /// All layers on a row whose pixels are all known. The last step makes the logits.
    pub given: Vec<Vec<Step>>,
}

impl Steps {
    /// The steps of a plan, each layer that is known when a row begins in one piece.
    pub fn new(plan: &Plan) -> Steps {
        Steps::cut(plan, Piece::row_part, Piece::pixel_part)
    }

    /// The same, but what needs nothing that the row phase makes is summed before it: the first taps of layers that are known when
    /// a row begins, and the hoisted ones of pieces that have no others. Where a step costs much and can be as wide as one likes,
    /// that is half of what would wait for one another. The order of every sum is the same.
    pub fn above_first(plan: &Plan) -> Steps {
        let Steps { period, mut upper, mut above, mut known, mut hoisted, pixels, given } = Steps::new(plan);
        for row in 0..period {
            let is_cut = |run: &&mut Run| plan.is_cut_above(&plan.pieces[run.piece]);
            for run in known[row].iter_mut().flatten().filter(is_cut) {
                let piece = &plan.pieces[run.piece];
                let of_rows = |map| plan.graph.is_row_known(map) && !plan.graph.is_given(map);
                let is_upper = plan.taps_of(piece, Part::Above).all(|tap| of_rows(tap.source));
                let step = if is_upper { &mut upper[row] } else { &mut above[row] };
                step.push(Run { part: Part::Above, ..*run });
                run.part = Part::Within;
            }
            let is_there = |run: &Run| {
                let piece = &plan.pieces[run.piece];
                // What ends as outputs may add a map that is known, but not yet made.
                let added = plan.layer(piece).epilogue.add.filter(|_| run.part == Part::Whole);
                piece.above == piece.hoisted && added.is_none_or(|map| plan.graph.is_given(map))
            };
            let (there, later) = hoisted[row].iter().partition(|run| is_there(run));
            above[row].extend::<Step>(there);
            hoisted[row] = later;
        }
        Steps { period, upper, above, known, hoisted, pixels, given }
    }

    /// The steps of a plan none of whose maps is known before its pixels, with all taps summed when the pixel comes: nothing is
    /// left for the row. The order of every sum is the same.
    pub fn of_pixels(plan: &Plan) -> Option<Steps> {
        let known = plan.graph.layers.iter().any(|layer| plan.graph.is_row_known(layer.output));
        (!known).then(|| Steps::cut(plan, |_| None, |_| Some(Part::Whole)))
    }

    /// The steps of a plan, by what of a piece is summed when the row begins and what when the pixel comes.
    fn cut(
        plan: &Plan,
        row_part: impl Fn(&Piece) -> Option<Part>,
        pixel_part: impl Fn(&Piece) -> Option<Part>,
    ) -> Steps {
        let period = plan.graph.period();
        let row_known = |piece: &Piece| plan.graph.is_row_known(plan.layer(piece).output);
        let whole = |_: &Piece| Some(Part::Whole);
        let rows = |part: &dyn Fn(&Piece) -> Option<Part>| -> Vec<Vec<Step>> {
            (0..period)
                .map(|row| layers(plan, |piece| piece.step(0, row).and_then(|_| part(piece))))
                .collect()
        };
        let hoisted = rows(&|piece| row_part(piece).filter(|_| !row_known(piece)));
        let pixel = |row, column| {
            layers(plan, |piece| {
                piece
                    .step(0, row)
                    .and(piece.step(1, column))
                    .and(pixel_part(piece).filter(|_| !row_known(piece)))
            })
        };
        Steps {
            period,
            upper: vec![Step::new(); period],
            above: vec![Step::new(); period],
            known: rows(&|piece| Some(Part::Whole).filter(|_| row_known(piece))),
            hoisted: hoisted.into_iter().map(|steps| steps.concat()).collect(),
            pixels: (0..period).map(|row| (0..period).map(|column| pixel(row, column)).collect()).collect(),
            given: rows(&whole),
        }
    }

    /// The steps of a row whose pixels are all known, with or without its logits.
    pub fn given(&self, row: usize, logits: bool) -> &[Step] {
        let steps = &self.given[row % self.period];
        &steps[..steps.len() - usize::from(!logits)]
    }

    /// The steps of a pixel.
    pub fn pixel(&self, row: usize, column: usize) -> &[Step] {
        &self.pixels[row % self.period][column % self.period]
    }
}

/// The pieces that have a part, a step for each layer that has any.
fn layers(plan: &Plan, part: impl Fn(&Piece) -> Option<Part>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for layer in 0..plan.graph.layers.len() {
        let runs =
            plan.pieces_of(layer).filter_map(|piece| Some(Run { piece, part: part(&plan.pieces[piece])? }));
        steps.push(runs.collect());
    }
    steps.retain(|step| !step.is_empty());
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{PixelCnnPp, WaveNet};

    /// The runs of a row, in their order.
    fn of_row(steps: &Steps, row: usize) -> Vec<Run> {
        let (above, known) =
            (steps.upper[row].iter().chain(&steps.above[row]), steps.known[row].iter().flatten());
        above.chain(known).chain(&steps.hoisted[row]).copied().collect()
    }

    #[test]
    fn above_comes_what_no_map_of_the_row_is_needed_for_and_each_sum_keeps_its_order() {
        for graph in [PixelCnnPp::PAPER.graph(), WaveNet::default().graph()] {
            let plan = Plan::new(graph);
            let [whole, cut] = [Steps::new(&plan), Steps::above_first(&plan)];
            for row in 0..cut.period {
                let above = cut.above[row].iter().map(|run| (run, false));
                for (run, is_upper) in cut.upper[row].iter().map(|run| (run, true)).chain(above) {
                    let piece = &plan.pieces[run.piece];
                    for tap in plan.taps_of(piece, run.part) {
                        let pixels = !plan.graph.is_row_known(tap.source) || plan.graph.is_given(tap.source);
                        assert!(!(is_upper && pixels), "{}", plan.layer(piece).name);
                        if Some(tap.source) == plan.graph.input.known {
                            continue;
                        }
                        // The row of the image with which a row of the source comes.
                        let stride = plan.graph.maps[tap.source].stride as isize;
                        let of_source = (row / piece.pixels() * piece.source_step) as isize + tap.row;
                        assert!(of_source * stride < row as isize, "{}", plan.layer(piece).name);
                    }
                }
                for piece in 0..plan.pieces.len() {
                    let taps = |steps: &Steps| -> Vec<usize> {
                        let runs = of_row(steps, row).into_iter().filter(|run| run.piece == piece);
                        runs.flat_map(|run| plan.pieces[piece].part(run.part)).collect()
                    };
                    assert_eq!(taps(&whole), taps(&cut));
                }
            }
            let count = |steps: &[Step]| steps.iter().map(Vec::len).sum::<usize>();
            let [upper, above, hoisted] = [&cut.upper, &cut.above, &cut.hoisted].map(|steps| count(steps));
            println!("runs of row phases above {upper}, others above {above}, hoisted {hoisted}");
            assert!(upper + above > hoisted);
            let known = cut.known.iter().flatten().flatten().count();
            assert!(known == 0 || upper > 0);
        }
    }
}
