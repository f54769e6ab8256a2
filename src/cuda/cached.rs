//! Cached generation on the device: the launches of [`super::schedule`], by one of five strategies.
//!
//! The idea: at small batches an image is 33,152 dependent stages that each take a microsecond or two, so
//! what counts is how the device gets from one to the next: a launch from the host, a node of a captured
//! graph, or, inside one kernel, values that are handed over, or sent from block to block of a cluster, or kept where they
//! were made. What comes before a row's pixels is a twenty-fifth of the stages, of many positions each: a graph of launches,
//! whichever kernel makes the pixels. What of it needs no pixel of the row before is summed beside them, where their kernel leaves
//! room. All of them run the same stages, so the images are the same.

use std::cmp::Ordering;
use std::ops::Range;

use super::abi::THREADS;
use super::driver::{Device, Event, Graph};
use super::kernels::Kernel;
use super::loaded::{self, Extras, Loaded, Places};
use super::nvtx;
use super::packed::Packed;
use super::pixels::{self, Pixels};
use super::schedule::{PixelsBy, Schedule};
use super::stored::Stored;
use super::{Properties, Strategy, shapes, stage};
use crate::engine::{Batch, Output, Watch};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::plan::steps::Steps;

/// A shape of batch, ready to be generated again and again.
pub struct Cached {
    schedule: Schedule,
    loaded: Loaded,
    /// Whether the network reads the previous pixel.
    previous: bool,
    /// Rows that follow one another with nothing to be made between them, so that a launch of `pixels` makes many.
    rows_follow: bool,
    /// What comes before the pixels of a row, by row modulo the period, unless the host launches it stage by stage; but for what runs
    /// beside the pixels of the row before.
    rows: Option<Vec<Graph>>,
    pixels: By,
    /// The end of what is summed for the next row beside the pixels of one.
    upper: Option<Event>,
}

/// How pixels are made.
enum By {
    /// By a launch for each stage.
    Launches,
    /// The same, captured: by row, then column modulo the period.
    Graphs(Vec<Graph>),
    /// By a kernel that makes those of a row, or of many.
    Kernel(Pixels),
}

/// Rows of a launch, where they follow one another and teams make all images at a time: some tens of milliseconds, after which
/// somebody may want to interrupt.
const ROWS_AT_ONCE: usize = 256;

/// The strategy that a device gets: what was asked for, or, with `Auto`, the best that it can do for few images. (A block of
/// the persistent kernel fits every multiprocessor of the architectures that its PTX is for; `Cached::new` checks it.)
///
/// # Errors
/// [`Error::Device`] for one that the device cannot do.
pub fn choose(properties: &Properties, wanted: Strategy) -> Result<Strategy> {
    match wanted {
        Strategy::Launch | Strategy::Graph => Ok(wanted),
        Strategy::Auto | Strategy::Persistent if properties.cooperative => Ok(Strategy::Persistent),
        Strategy::Auto => Ok(Strategy::Graph),
        Strategy::Persistent => {
            let found = "the device has no cooperative launches; the strategy graph needs none";
            Err(Error::device(&properties.label, "run the strategy persistent", found))
        }
        Strategy::Cluster if properties.cooperative && properties.clusters => Ok(Strategy::Cluster),
        Strategy::Cluster => {
            let found = match properties.clusters {
                true => "the device has no cooperative launches",
                false => "the device has no clusters, as those of compute capability 9.0 and later have",
            };
            Err(Error::device(&properties.label, "run the strategy cluster", found))
        }
        Strategy::Team if properties.cooperative => Ok(Strategy::Team),
        Strategy::Team => {
            let found = "the device has no cooperative launches; the strategy graph needs none";
            Err(Error::device(&properties.label, "run the strategy team", found))
        }
    }
}

/// The kernels by which a strategy makes the pixels of a row, beside those of launches.
fn of_pixels(strategy: Strategy) -> &'static [Kernel] {
    match strategy {
        Strategy::Launch | Strategy::Graph => &[Kernel::Sample],
        Strategy::Auto | Strategy::Persistent => &[Kernel::Persistent, Kernel::Expect],
        Strategy::Cluster => &[Kernel::Cluster, Kernel::Expect],
        Strategy::Team => &[Kernel::Team],
    }
}

impl Cached {
    /// Allocates, uploads the tables, and captures the graphs if that is the strategy.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(
        device: &Device,
        plan: &Plan,
        packed: &Packed,
        stored: &Stored,
        extent: Extent,
        extras: Extras,
        strategy: Strategy,
    ) -> Result<Cached> {
        let follow = if strategy == Strategy::Team { shapes::following(plan, extent) } else { None };
        let rows_follow = follow.is_some();
        let steps = follow.unwrap_or_else(|| Steps::above_first(plan));
        let launches = matches!(strategy, Strategy::Launch | Strategy::Graph);
        // What is compiled at a time takes as long as the longest, which a kernel of pixels is.
        let room = device.properties.launches();
        let of_rows = match launches || rows_follow {
            true => &[][..],
            false if room.spread > 0 => &[Kernel::Gemv, Kernel::Gemm, Kernel::Split, Kernel::Spread],
            false => &[Kernel::Gemv, Kernel::Gemm, Kernel::Split],
        };
        device.load(&[&loaded::KERNELS[..], of_pixels(strategy), of_rows].concat())?;
        let mut by = PixelsBy::of(strategy, room);
        match &mut by {
            // The records of two stages.
            PixelsBy::Persistent(room) => {
                *room = device.room(Kernel::Persistent, THREADS, 2 * stage::longest_record(plan))?;
            }
            PixelsBy::Clusters(clusters) => *clusters = pixels::clusters_at_a_time(device)?,
            PixelsBy::Launches | PixelsBy::Teams => {}
        }
        let schedule = Schedule::new(plan, &steps, packed, extent, room, by);
        let Schedule { arena, image, known, logits, .. } = schedule;
        let places = Places { arena, rows: extent.height, image, known, logits };
        if launches {
            device.load(&schedule.kernels())?;
        }
        let loaded = Loaded::new(device, &plan.graph, &stored.all, extent, extras, &schedule.table, places)?;
        let (previous, pixels) = (plan.graph.input.previous, By::Launches);
        let mut cached = Cached { schedule, loaded, previous, rows_follow, rows: None, pixels, upper: None };
        if strategy != Strategy::Launch && !rows_follow {
            cached.rows = Some(cached.captured_rows(device)?);
        }
        cached.pixels = match strategy {
            Strategy::Launch => By::Launches,
            Strategy::Graph => By::Graphs(cached.captured_pixels(device)?),
            _ => By::Kernel(cached.kernel(device, plan, &steps, stored, extent, by)?),
        };
        Ok(cached)
    }

    /// What makes the pixels by a kernel.
    fn kernel(
        &self,
        device: &Device,
        plan: &Plan,
        steps: &Steps,
        stored: &Stored,
        extent: Extent,
        by: PixelsBy,
    ) -> Result<Pixels> {
        let Cached { schedule, loaded, rows_follow, .. } = self;
        match by {
            PixelsBy::Launches => unreachable!("they need no kernel"),
            PixelsBy::Persistent(room) => Pixels::persistent(device, schedule, room, loaded),
            PixelsBy::Clusters(resident) => {
                let paged = stored.paged.as_ref().expect("the weights of a cluster's engine are paged");
                Pixels::clusters(device, plan, steps, schedule, paged, extent, resident)
            }
            PixelsBy::Teams => {
                let room = pixels::team_blocks(device)?;
                let shapes = shapes::shapes(schedule, extent.batch, room).into_iter().map(|(shape, _)| shape);
                let shapes: Vec<_> = shapes.collect();
                Pixels::teams(device, plan, steps, schedule, &shapes, extent.batch, *rows_follow)
            }
        }
    }

    /// Divides the batch into teams of another shape.
    #[cfg(test)]
    pub fn reshape(&mut self, device: &Device, plan: &Plan, shape: super::cost::Shape) -> Result<()> {
        let follow = self.rows_follow.then(|| Steps::of_pixels(plan).expect("they did"));
        let steps = follow.unwrap_or_else(|| Steps::above_first(plan));
        let batch = self.loaded.args.size as usize;
        let of = Pixels::teams(device, plan, &steps, &self.schedule, &[shape], batch, self.rows_follow)?;
        self.pixels = By::Kernel(of);
        Ok(())
    }

    fn captured_rows(&self, device: &Device) -> Result<Vec<Graph>> {
        let rows = self.schedule.rows.iter().map(|row| device.capture(|| self.launch(device, &row.concat())));
        rows.collect()
    }

    fn captured_pixels(&self, device: &Device) -> Result<Vec<Graph>> {
        let pixels = self.schedule.pixels.iter().flatten().map(|pixel| {
            device.capture(|| {
                self.launch(device, pixel)?;
                self.loaded.sample(device)
            })
        });
        pixels.collect()
    }

    fn launch(&self, device: &Device, launches: &[usize]) -> Result<()> {
        let table = &self.schedule.table;
        self.loaded.launch(device, launches.iter().map(|&launch| &table.launches[launch]))
    }

    /// Generates a batch of this shape; with it the seconds that the device took. A profiler captures the
    /// rows of `profile`.
    ///
    /// # Errors
    /// As for [`crate::engine::Engine::make`].
    pub fn make(
        &mut self,
        device: &Device,
        batch: &Batch,
        watch: Watch,
        profile: Option<Range<usize>>,
    ) -> Result<(Output, f64)> {
        let _range = nvtx::Range::new(c"generate");
        let given = batch.given.map_or(0, |g| g.rows);
        if given > 0 {
            device.load(&self.schedule.table.kernels().collect::<Vec<_>>())?;
        }
        self.begin(device, batch)?;
        let first = device.mark()?;
        // The host queues one launch ahead of the device.
        let (mut behind, mut row) = (None, 0);
        while row < batch.height {
            if profile.as_ref().is_some_and(|p| p.start == row) {
                device.profiler(true)?;
            }
            let next = row + self.rows_from(row, given, batch, profile.as_ref());
            let _range = nvtx::Range::new(c"row");
            // What is there before the row begins: its pixels, or the last of the row above. What is drawn, the
            // sampler enters.
            let columns = match row.cmp(&given) {
                Ordering::Less => batch.width,
                Ordering::Equal => usize::from(self.previous),
                Ordering::Greater => 0,
            };
            self.loaded.enter(device, row..row + 1, columns)?;
            if row < given {
                self.given_row(device, row, batch.keep_logits)?;
            } else {
                self.rows(device, row..next, row == given, [batch.height, batch.width])?;
            }
            if profile.as_ref().is_some_and(|p| p.end == next) {
                device.profiler(false)?;
            }
            let mark = device.mark()?;
            if let Some(mark) = behind.replace(mark) {
                device.reach(&mark)?;
                if !watch(row) {
                    device.wait()?;
                    return Err(Error::Interrupted);
                }
            }
            row = next;
        }
        device.wait()?;
        watch(batch.height);
        let seconds = behind.map_or(Ok(0.0), |last| device.between(&first, &last))?;
        Ok((self.loaded.finish(device)?, seconds))
    }

    /// Uploads a batch of this shape.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn begin(&mut self, device: &Device, batch: &Batch) -> Result<()> {
        // Of a batch that went wrong. What it may have launched comes before the copies with which this one begins: both streams
        // wait for those, and they for both.
        self.upper = None;
        self.loaded.begin(device, batch)
    }

    /// A row whose pixels are all known.
    fn given_row(&self, device: &Device, row: usize, keep_logits: bool) -> Result<()> {
        self.loaded.move_to(device, row)?;
        self.launch(device, self.schedule.given(row, keep_logits))?;
        self.loaded.keep_logits(device, row..row + 1)
    }

    /// How many rows one launch makes, from one on.
    fn rows_from(&self, row: usize, given: usize, batch: &Batch, profile: Option<&Range<usize>>) -> usize {
        let turns = match &self.pixels {
            By::Kernel(pixels) if self.rows_follow && row >= given && batch.known.is_none() => pixels.turns,
            _ => return 1,
        };
        let ends = profile.into_iter().flat_map(|profile| [profile.start, profile.end]);
        let end =
            ends.filter(|&end| end > row).chain([batch.height, row + (ROWS_AT_ONCE / turns).max(1)]).min();
        end.map_or(1, |end| end - row)
    }

    /// Some rows whose pixels are drawn: one, unless they follow one another. The first of all of them `begins`.
    fn rows(
        &mut self,
        device: &Device,
        rows: Range<usize>,
        begins: bool,
        [height, width]: [usize; 2],
    ) -> Result<()> {
        let row = rows.start;
        match &self.pixels {
            By::Kernel(pixels) if self.rows_follow => pixels.launch(device, &self.loaded, rows),
            By::Kernel(pixels) => {
                pixels.begin(device, &self.loaded, row)?;
                if begins {
                    self.upper = self.sum_upper(device, row, self.mark_known(device)?)?;
                }
                if let Some(upper) = self.upper.take() {
                    device.follow(upper)?;
                }
                self.begin_row(device, row)?;
                let known = self.mark_known(device)?;
                // First, so that their blocks are the first to get room.
                pixels.launch(device, &self.loaded, rows)?;
                if row + 1 < height {
                    self.upper = self.sum_upper(device, row + 1, known)?;
                }
                Ok(())
            }
            By::Launches | By::Graphs(_) => {
                // Drawing moves on.
                if begins {
                    self.loaded.move_to(device, row)?;
                }
                self.begin_row(device, row)?;
                self.pixels(device, row, width)
            }
        }
    }

    /// A mark behind the row phases so far, if something is to run beside what comes next.
    fn mark_known(&self, device: &Device) -> Result<Option<Event>> {
        self.schedule.upper.as_ref().map(|_| device.mark_order()).transpose()
    }

    /// Sums what a row takes from maps that row phases up to a mark have made, beside what comes behind that; returns a mark of the
    /// end.
    fn sum_upper(&self, device: &Device, row: usize, known: Option<Event>) -> Result<Option<Event>> {
        let Schedule { table, period, upper, .. } = &self.schedule;
        let Some((upper, known)) = upper.as_ref().zip(known) else { return Ok(None) };
        let launches = upper[row % period].iter().map(|&launch| &table.launches[launch]);
        device.beside(known, || self.loaded.launch_for(device, row, launches)).map(Some)
    }

    /// Runs the row phase of a row, but for what is summed beside pixels.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn begin_row(&self, device: &Device, row: usize) -> Result<()> {
        if let Some(rows) = &self.rows {
            return device.replay(&rows[row % self.schedule.period]);
        }
        let of_row = &self.schedule.rows[row % self.schedule.period];
        for (name, launches) in [c"above", c"known", c"hoist"].into_iter().zip(of_row) {
            let _range = nvtx::Range::new(name);
            self.launch(device, launches)?;
        }
        Ok(())
    }

    /// Runs the pixel phase of a row, for the strategies in which its stages are launches.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn pixels(&self, device: &Device, row: usize, width: usize) -> Result<()> {
        let _range = nvtx::Range::new(c"pixels");
        for column in 0..width {
            let (row, column) = (row % self.schedule.period, column % self.schedule.period);
            if let By::Graphs(pixels) = &self.pixels {
                device.replay(&pixels[row * self.schedule.period + column])?;
            } else {
                self.launch(device, &self.schedule.pixels[row][column])?;
                self.loaded.sample(device)?;
            }
        }
        Ok(())
    }
}
