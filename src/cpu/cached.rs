//! Cached generation: every position of every layer is computed once.
//!
//! The idea (Ramachandran et al. 2017, with half of the horizontal stream moved out of the pixel loop):
//! when a row begins, its vertical stream and all that the horizontal stream takes from the rows above
//! are matrix products over the whole row; a pixel then only adds its left and own taps. All threads
//! walk through this schedule side by side, each with its share of every layer's outputs, and meet
//! after each layer.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::buffer::Buffer;
use super::grid::{Grid, Layout, Storage};
use super::packed::Packed;
use super::phases::{Clock, Phase};
use super::pixels::{Own, Pixels};
use super::stage::{Context, Part, Span, Stage};
use crate::engine::Watch;
use crate::error::Result;
use crate::network::{Form, IMAGE, Network, Stream};

/// The stages of one layer, one for each parity. They do not depend on each other.
struct Step {
    stream: Stream,
    logits: bool,
    stages: Vec<Stage>,
}

/// Rows and columns after which the stages that a pixel needs repeat: the widest stride.
const PERIOD: usize = 4;

/// A stage of the pixel phase.
#[derive(Clone, Copy)]
struct PixelStage {
    step: usize,
    stage: usize,
    part: Part,
    /// Whether the team meets after it.
    meet: bool,
}

/// What one team needs for its images: stages with resolved addresses, and the length of the block.
pub struct Plan {
    steps: Vec<Step>,
    /// What a pixel needs, by row and column modulo [`PERIOD`].
    pixels: [[Vec<PixelStage>; PERIOD]; PERIOD],
    image: Grid,
    logits: Grid,
    images: Range<usize>,
    height: usize,
    width: usize,
    len: usize,
}

impl Plan {
    /// Plans `images` of a batch.
    pub fn new(
        network: &Network,
        packed: &Packed,
        images: Range<usize>,
        height: usize,
        width: usize,
    ) -> Plan {
        let mut layout = Layout::new(network, Storage::Ring, images.len(), height, width);
        let mut steps = Vec::new();
        for (layer, packed) in network.layers.iter().zip(&packed.layers) {
            let row = [images.len(), width];
            let stages = layer.parities().iter().zip(packed).map(|(&parity, packed)| {
                Stage::new(network, layer, parity, packed.clone(), &mut layout, Some(row))
            });
            let stages = stages.collect();
            steps.push(Step { stream: layer.stream, logits: layer.output == network.logits(), stages });
        }
        let grid = |tensor| layout.grid(tensor, Form::Raw).expect("image and logits are stored raw");
        let (image, logits) = (grid(IMAGE), grid(network.logits()));
        let pixels =
            std::array::from_fn(|row| std::array::from_fn(|column| pixel_stages(&steps, row, column)));
        Plan { steps, pixels, image, logits, images, height, width, len: layout.len }
    }

    /// Bytes that the plan's block takes.
    pub fn bytes(&self) -> u64 {
        (self.len as u64).saturating_mul(size_of::<f32>() as u64)
    }

    /// The images planned, counted in the batch.
    pub fn images(&self) -> Range<usize> {
        self.images.clone()
    }

    /// Allocates the block.
    ///
    /// # Errors
    /// [`crate::Error::Allocate`].
    pub fn allocate(&self) -> Result<Buffer> {
        Buffer::zeroed(self.len)
    }
}

/// The stages of the pixel phase that run at a pixel, in order.
fn pixel_stages(steps: &[Step], row: usize, column: usize) -> Vec<PixelStage> {
    let mut all = Vec::new();
    for (step, layer) in steps.iter().enumerate().filter(|(_, s)| s.stream == Stream::Horizontal) {
        let first = all.len();
        for (stage, s) in layer.stages.iter().enumerate() {
            let Some(part) = s.pixel_part() else { continue };
            if s.row_step(row).is_some() && s.column_step(column).is_some() {
                all.push(PixelStage { step, stage, part, meet: false });
            }
        }
        if all.len() > first {
            all.last_mut().expect("it is longer than before").meet = true;
        }
    }
    all
}

/// One member's walk through the generation of its team's images. What its methods take for granted is said
/// once, at [`Walk::run`].
pub struct Walk<'a, 'p> {
    /// What to do.
    pub plan: &'a Plan,
    /// What all stages share.
    pub context: Context<'a>,
    /// The images.
    pub pixels: &'a Pixels<'p>,
    /// Called after each row by the member that is given it.
    pub watch: Option<Watch<'a>>,
    /// Notes what this member does.
    pub clock: Clock,
}

impl Walk<'_, '_> {
    /// Generates the images, in a block of zeros. `stop` is where the team agrees to stop: one flag for each
    /// team.
    ///
    /// # Safety
    /// - `context.memory` is a block of the length that `plan` asks for, `context.batch` the number of its
    ///   images, and `context.packed` what it was planned with.
    /// - `pixels` are of a batch that has these images, of the plan's height and width.
    /// - Every member of the team, and nobody else, runs a walk through this plan with this block and these
    ///   pixels. Other teams make other images of the batch.
    pub unsafe fn run(&self, stop: &AtomicBool) {
        let given = self.pixels.rows_given();
        let mut own = self.pixels.lend(&self.plan.images, &self.context.team);
        for (at, pixel) in own.pixels(0..given) {
            // SAFETY: the plan has this image and its rows; it is this member's, and the team meets before
            // anyone reads.
            unsafe { self.plan.image.enter(self.context.memory, at, pixel) };
        }
        self.context.team.meet();
        for row in 0..self.plan.height {
            self.clock.skip();
            // SAFETY: rows and columns come in order, and every member calls the same. The team has met since
            // the pixels before this one were entered.
            unsafe {
                if row < given {
                    self.given_row(row, &mut own);
                } else {
                    self.begin_row(row);
                    for column in 0..self.plan.width {
                        self.pixel(row, column);
                        self.sample(row, column, &mut own);
                        self.meet(Phase::Sampling);
                    }
                }
            }
            if self.context.team.index == 0 {
                // After the last row there is nothing left to stop.
                if self.watch.is_some_and(|watch| !watch(row + 1)) && row + 1 < self.plan.height {
                    self.pixels.interrupt();
                }
                stop.store(self.pixels.stopped() || self.context.team.abandoned(), Relaxed);
            }
            self.context.team.meet();
            if stop.load(Relaxed) {
                return;
            }
        }
    }

    /// Meets the team after some work.
    fn meet(&self, work: Phase) {
        self.clock.note(work);
        self.context.team.meet();
        self.clock.note(Phase::Waiting);
    }

    /// All columns of the image, in a stage's steps.
    fn whole_row(&self, stage: &Stage, row: usize) -> Span {
        Span { rows: row..row + 1, columns: 0..stage.steps(self.plan.width) }
    }

    /// A row whose pixels are all known: every layer is a matrix product over the row.
    ///
    /// # Safety
    /// As for [`Walk::run`]. The row is the first that has not been generated, its pixels have been entered,
    /// every member of the team calls this, and it has met since the row before.
    unsafe fn given_row(&self, row: usize, own: &mut Own) {
        for step in &self.plan.steps {
            if step.logits && !self.pixels.wants_logits() {
                continue;
            }
            let mut ran = false;
            for stage in &step.stages {
                if let Some(step) = stage.row_step(row) {
                    // SAFETY: the layers come in order and the team meets after each one.
                    unsafe { stage.run(&self.context, &self.whole_row(stage, step), Part::Whole, None) };
                    ran = true;
                }
            }
            if ran {
                self.context.team.meet();
            }
        }
        if self.pixels.wants_logits() {
            for slot in own.slots() {
                for column in 0..self.plan.width {
                    // SAFETY: the logits are complete; the next that writes them comes after a meeting.
                    let logits = unsafe { self.logits(slot, row, column) };
                    own.keep_logits(logits, [slot, row, column]);
                }
            }
        }
    }

    /// The vertical stream of a row, then what the horizontal stream can sum before its pixels come.
    ///
    /// # Safety
    /// As for [`Walk::run`]. The row is the first that has not been generated, every member of the team calls
    /// this, and it has met since the row before.
    unsafe fn begin_row(&self, row: usize) {
        for stream in [Stream::Vertical, Stream::Horizontal] {
            for step in self.plan.steps.iter().filter(|s| s.stream == stream) {
                let mut ran = false;
                for stage in &step.stages {
                    let (Some(step), Some(part)) = (stage.row_step(row), stage.row_part()) else {
                        continue;
                    };
                    // SAFETY: layers of the vertical stream come in order and the team meets after each
                    // one; hoisted parts read only what stood before them.
                    unsafe { stage.run(&self.context, &self.whole_row(stage, step), part, None) };
                    ran = true;
                }
                if ran && stream == Stream::Vertical {
                    self.meet(Phase::Vertical);
                }
            }
        }
        self.meet(Phase::Hoist);
    }

    /// The rest of the horizontal stream at one pixel.
    ///
    /// # Safety
    /// As for [`Walk::run`]. The row has begun, the pixel is the first of it that has not been generated,
    /// every member of the team calls this, and it has met since the pixel before was entered.
    unsafe fn pixel(&self, row: usize, column: usize) {
        let stage = |p: &PixelStage| &self.plan.steps[p.step].stages[p.stage];
        let of = |column: usize| &self.plan.pixels[row % PERIOD][column % PERIOD];
        let next = of(column).iter().skip(1).chain(of(column + 1).first());
        for (this, next) in of(column).iter().zip(next) {
            let s = stage(this);
            let steps = (s.row_step(row), s.column_step(column));
            let (Some(row), Some(column)) = steps else { unreachable!("the stage runs at this pixel") };
            let span = Span { rows: row..row + 1, columns: column..column + 1 };
            // SAFETY: the layers come in order and the team meets after each one.
            unsafe { s.run(&self.context, &span, this.part, Some((stage(next), next.part))) };
            if this.meet {
                self.meet(Phase::Pixels);
            }
        }
    }

    /// Draws this member's images' pixels and feeds them back.
    ///
    /// # Safety
    /// As for [`Walk::run`]. [`Walk::pixel`] came before, and after it the team has met.
    unsafe fn sample(&self, row: usize, column: usize, own: &mut Own) {
        for slot in own.slots() {
            let at = [slot, row, column];
            // SAFETY: the logits are complete; the next that writes them comes after a meeting.
            let logits = unsafe { self.logits(slot, row, column) };
            own.keep_logits(logits, at);
            own.sample(logits, at);
            // SAFETY: the plan has this image and pixel; it is this member's, and the team meets before
            // anyone reads.
            unsafe { self.plan.image.enter(self.context.memory, at, own.pixel(at)) };
        }
    }

    /// The logits of a pixel.
    ///
    /// # Safety
    /// As for [`Walk::run`]. `slot` is an image of the plan and the pixel the last whose logits were computed,
    /// or one of the last row's if that was given; they are complete, and nobody writes them while they are
    /// borrowed.
    unsafe fn logits(&self, slot: usize, row: usize, column: usize) -> &[f32] {
        let grid = self.plan.logits;
        let at = grid.at(slot, row as isize, column as isize);
        // SAFETY: by the caller's promise.
        unsafe { self.context.memory.slice(at, grid.channels) }
    }
}
