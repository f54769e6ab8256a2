//! [`CudaEngine`]: the weights of one model on a device, and the shapes of batch that are ready to run.

use std::ops::Range;

use ndarray::{ArrayView4, Axis, concatenate};

use super::abi::MAX_TAPS;
use super::cached::{self, Cached};
use super::cost::Room;
use super::driver::Device;
use super::footprint::Footprint;
use super::loaded::Extras;
use super::naive::Naive;
use super::packed::Packed;
use super::pages::Pages;
use super::predict::{self, MEASURED_CLOCK, Of, predict};
use super::stored::Stored;
use super::{Options, Prediction, Properties, Strategy};
use crate::engine::{Batch, Engine, Method, Output, Watch};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::memory;
use crate::plan::Plan;
use crate::plan::layout::Extent;
use crate::precision::Precision;
use crate::weights::Weights;

/// Images of one full forward pass: enough to occupy any device.
const MOST_NAIVE_IMAGES: usize = 64;
/// And where memory is scarce.
const LEAST_NAIVE_IMAGES: usize = 16;

/// The CUDA engine with the weights of one model.
pub struct CudaEngine {
    plan: Plan,
    packed: Packed,
    /// Of the last batch, or else what a batch of few images gets.
    strategy: Strategy,
    /// Whether each batch gets the strategy that is predicted to be the fastest.
    chooses: bool,
    precision: Precision,
    footprint: Footprint,
    seconds: f64,
    // Buffers before the device that they are on.
    cached: Option<(Extent, Extras, Cached)>,
    naive: Option<(Extent, Extras, Naive)>,
    /// What that has allocated.
    naive_bytes: u64,
    stored: Stored,
    device: Device,
}

impl CudaEngine {
    /// Opens the device of that number and uploads the weights.
    ///
    /// # Errors
    /// [`crate::Error::Device`] without a driver, a device or enough memory, if the driver refuses the kernels, for
    /// a layer of more than 196 taps, or for layers that are too large for the strategy; as for [`Weights::fold`].
    pub fn new(weights: &Weights, ordinal: u32, options: &Options) -> Result<CudaEngine> {
        let plan = Plan::new(weights.graph().clone());
        let precision = options.precision;
        let device = Device::open(ordinal, precision)?;
        let strategy = cached::choose(&device.properties, options.strategy)?;
        check_taps(&device, &plan)?;
        let packed = Packed::places(&plan, precision);
        let pages = (strategy == Strategy::Cluster).then(|| Pages::new(&plan, &packed, precision));
        // A batch by `Auto` may take graphs, which need more than the strategy that it begins with.
        let counted = if strategy == Strategy::Persistent { options.strategy } else { strategy };
        let footprint = Footprint::new(&device, &plan, &packed, pages.as_ref(), counted)?;
        check_weights(&device, packed.bytes() + pages.as_ref().map_or(0, Pages::bytes))?;
        let mut stored = Stored::zeroed(&device, &packed, pages)?;
        packed.fill(&plan, weights, |at, floats| stored.put(&device, &packed, at, floats))?;
        Ok(CudaEngine {
            plan,
            packed,
            strategy,
            chooses: options.strategy == Strategy::Auto,
            precision,
            footprint,
            seconds: 0.0,
            cached: None,
            naive: None,
            naive_bytes: 0,
            stored,
            device,
        })
    }

    /// The device.
    pub fn properties(&self) -> &Properties {
        &self.device.properties
    }

    /// How cached generation is run; with [`Strategy::Auto`] how the last batch was.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// How the weights of the pixel phase are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Seconds that the device took for the last batch, from the first stage to the last, by its own clock.
    pub fn device_seconds(&self) -> f64 {
        self.seconds
    }

    /// What a batch of images of a size is predicted to take by each strategy that can make it, on a device of `clock` cycles a second.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the driver refuses the kernels.
    pub fn predict(&self, batch: usize, [height, width]: [usize; 2], clock: f64) -> Result<Vec<Prediction>> {
        self.device.enter()?;
        let extent = Extent { batch, height, width };
        let pages = Pages::new(&self.plan, &self.packed, self.precision);
        let clusters_fit = self.footprint.of_clusters(&self.plan, &self.packed, &pages).is_some();
        let (of, part) = (self.device_of(clock), self.naive_images(extent));
        let by = |strategy| predict(&self.plan, &self.packed, extent, of, strategy, part);
        Ok(Strategy::ALL
            .into_iter()
            .filter(|&strategy| strategy != Strategy::Auto)
            .filter(|&s| cached::choose(&self.device.properties, s).is_ok())
            .filter(|&strategy| strategy != Strategy::Cluster || clusters_fit)
            .filter_map(by)
            .collect())
    }

    /// Cycles a second of the device, as reported, or those of the one that predictions are fitted to.
    pub fn clock(&self) -> f64 {
        let reported = self.device.properties.clock;
        if reported > 0.0 { reported } else { MEASURED_CLOCK }
    }

    fn device_of(&self, clock: f64) -> Of {
        let properties = &self.device.properties;
        let persistent = Room::promised(properties.multiprocessors);
        Of { launches: properties.launches(), persistent, block_memory: properties.block_memory, clock }
    }

    /// What [`Strategy::Auto`] takes for a batch of images of a size: of the strategies that have been measured and that the device can
    /// do, the one that is predicted to be the fastest.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the device can do none.
    pub fn fastest(&self, batch: usize, [height, width]: [usize; 2]) -> Result<Strategy> {
        let best = cached::choose(&self.device.properties, Strategy::Auto)?;
        let (of, extent) = (self.device_of(self.clock()), Extent { batch, height, width });
        let seconds = |strategy| {
            let predicted = predict::cached(&self.plan, &self.packed, extent, of, strategy);
            predicted.map_or(f64::INFINITY, |seconds| seconds.iter().sum())
        };
        Ok(if seconds(Strategy::Graph) < seconds(best) { Strategy::Graph } else { best })
    }

    /// Generates a batch with the cached method and lets a profiler capture some rows: it captures nothing
    /// else if it was told to wait for the program.
    ///
    /// # Errors
    /// As for [`Engine::make`].
    pub fn profile(&mut self, batch: &Batch, rows: Range<usize>) -> Result<Output> {
        batch.check(&self.plan.graph)?;
        self.device.enter()?;
        // What is done once for all batches of a shape stays out of the profile.
        self.make_cached(batch, &|_| true)?;
        let (_, _, cached) = self.cached.as_mut().expect("a batch of this shape was made");
        let (output, seconds) = cached.make(&self.device, batch, &|_| true, Some(rows))?;
        self.seconds = seconds;
        Ok(output)
    }

    /// Refuses a batch that does not fit into the device's memory, before anything is allocated for it; else its bytes.
    fn check_memory(&self, method: Method, extent: Extent, extras: Extras) -> Result<u64> {
        let bytes = |batch| self.bytes(method, Extent { batch, ..extent }, extras);
        memory::check_batch(self.device.free()?, extent.batch, bytes)?;
        Ok(bytes(extent.batch))
    }

    /// Bytes of all that is allocated at a time for a batch; 0 for none.
    pub(super) fn bytes(&self, method: Method, extent: Extent, extras: Extras) -> u64 {
        if extent.batch == 0 {
            return 0;
        }
        let (bytes, extent) = match method {
            Method::Cached => (self.footprint.cached(&self.plan, &self.packed, extent), extent),
            Method::Naive => {
                let part = Extent { batch: extent.batch.min(self.naive_images(extent)), ..extent };
                (self.footprint.pass(&self.plan, &self.packed, part), part)
            }
        };
        bytes.saturating_add(extras.bytes(extent, &self.plan.graph))
    }

    /// Images of a size that a full forward pass takes at a time: more of them fill more multiprocessors, as long as
    /// their maps take no more than a quarter of the device's memory, and no more than is free but for those of the
    /// pass before.
    fn naive_images(&self, extent: Extent) -> usize {
        let bytes = |extent| self.footprint.pass(&self.plan, &self.packed, extent);
        let held = self.naive.as_ref().map_or(0, |_| self.naive_bytes);
        let free = self.device.free().map_or(0, |free| free.saturating_add(held));
        let most = free.min(self.device.properties.memory / 4);
        let fits = |images: &usize| bytes(Extent { batch: extent.batch.min(*images), ..extent }) <= most;
        let fewer = |images: &usize| (*images > LEAST_NAIVE_IMAGES).then_some(images / 2);
        std::iter::successors(Some(MOST_NAIVE_IMAGES), fewer).find(fits).unwrap_or(LEAST_NAIVE_IMAGES)
    }

    fn make_cached(&mut self, batch: &Batch, watch: Watch) -> Result<Output> {
        self.naive = None;
        let (extent, extras) = (extent_of(batch), Extras::of(batch));
        if self.cached.as_ref().is_none_or(|(e, x, _)| (*e, *x) != (extent, extras)) {
            self.cached = None;
            self.check_memory(Method::Cached, extent, extras)?;
            if self.chooses {
                self.strategy = self.fastest(extent.batch, [extent.height, extent.width])?;
            }
            let Self { device, plan, packed, stored, strategy, .. } = self;
            let cached = Cached::new(device, plan, packed, stored, extent, extras, *strategy)?;
            self.cached = Some((extent, extras, cached));
        }
        let (_, _, cached) = self.cached.as_mut().expect("it was made above");
        let (output, seconds) = cached.make(&self.device, batch, watch, None)?;
        self.seconds = seconds;
        Ok(output)
    }

    /// The full forward pass for batches of that shape, planned when the shape is new.
    fn naive(&mut self, extent: Extent, extras: Extras) -> Result<(&Device, &mut Naive)> {
        self.cached = None;
        if self.naive.as_ref().is_none_or(|(e, x, _)| (*e, *x) != (extent, extras)) {
            self.naive = None;
            self.naive_bytes = self.check_memory(Method::Naive, extent, extras)?;
            let Self { device, plan, packed, stored, .. } = self;
            let naive = Naive::new(device, plan, packed, &stored.all, extent, extras)?;
            self.naive = Some((extent, extras, naive));
        }
        let (_, _, naive) = self.naive.as_mut().expect("it was made above");
        Ok((&self.device, naive))
    }

    /// Makes the batch some images at a time.
    fn make_naive(&mut self, batch: &Batch, watch: Watch) -> Result<Output> {
        let (mut parts, mut total) = (Vec::new(), 0.0);
        self.cached = None;
        let most = self.naive_images(extent_of(batch));
        let shares = batch.size.div_ceil(most);
        for share in 0..shares {
            let images = share * most..batch.size.min((share + 1) * most);
            let part = batch.part(images);
            let (device, naive) = self.naive(extent_of(&part), Extras::of(&part))?;
            // Rows of the whole batch: as if all parts grew together.
            let rows = |rows: usize| watch((share * batch.height + rows) / shares);
            let (output, seconds) = naive.make(device, &part, &rows)?;
            parts.push(output);
            total += seconds;
        }
        self.seconds = total;
        let join = |arrays: Vec<ArrayView4<f32>>| concatenate(Axis(0), &arrays).expect("parts of one batch");
        let images = join(parts.iter().map(|p| p.images.view()).collect());
        let logits: Option<Vec<_>> = parts.iter().map(|p| p.logits.as_ref().map(|l| l.view())).collect();
        Ok(Output { images, logits: logits.map(join) })
    }
}

impl Drop for CudaEngine {
    /// What is freed after this belongs to the device's context, which may be another thread's so far. If the driver
    /// refuses, it is gone already.
    fn drop(&mut self) {
        let _ = self.device.enter();
    }
}

/// Refuses a layer whose taps do not fit into a block's shared memory.
fn check_taps(device: &Device, plan: &Plan) -> Result<()> {
    match plan.pieces.iter().find(|piece| piece.taps > MAX_TAPS) {
        Some(piece) => {
            let action = format!("run the layer {}", plan.layer(piece).name);
            let found = format!("it has {} taps and {MAX_TAPS} fit", piece.taps);
            Err(Error::device(&device.properties.label, action, found))
        }
        None => Ok(()),
    }
}

/// Refuses weights that do not fit into the device's memory, before anything is allocated for them.
fn check_weights(device: &Device, bytes: u64) -> Result<()> {
    let free = device.free()?;
    if bytes <= free {
        return Ok(());
    }
    let found = format!("they need {} MiB and {} MiB are available", bytes.div_ceil(1 << 20), free >> 20);
    Err(Error::device(&device.properties.label, "hold the weights", found))
}

fn extent_of(batch: &Batch) -> Extent {
    Extent { batch: batch.size, height: batch.height, width: batch.width }
}

impl Engine for CudaEngine {
    fn name(&self) -> String {
        let Properties { label, name, .. } = &self.device.properties;
        let precision = match self.precision {
            Precision::F32 => "",
            Precision::Bf16 => ", bf16",
        };
        format!("{label} ({name}, {}{precision})", self.strategy.name())
    }

    fn graph(&self) -> &Graph {
        &self.plan.graph
    }

    fn weight_bytes(&self) -> u64 {
        self.packed.bytes() + self.stored.paged.as_ref().map_or(0, |paged| paged.pages.bytes())
    }

    fn available(&self) -> Option<u64> {
        self.device.enter().and_then(|()| self.device.free()).ok()
    }

    fn nats(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<Vec<f64>> {
        let (count, height, width, _) = images.dim();
        let batch = Batch::teacher_forced(images, labels);
        batch.check(&self.plan.graph)?;
        self.device.enter()?;
        let mut nats = Vec::with_capacity(count);
        self.cached = None;
        let most = self.naive_images(extent_of(&batch));
        for first in (0..count).step_by(most) {
            let part = batch.part(first..count.min(first + most));
            let (device, naive) = self.naive(extent_of(&part), Extras { nats: true, ..Extras::of(&part) })?;
            let pixels = naive.log_likelihoods(device, &part)?;
            nats.extend(pixels.chunks(height * width).map(|image| -image.iter().sum::<f64>()));
        }
        Ok(nats)
    }

    fn batch_bytes(&self, method: Method, size: usize, height: usize, width: usize) -> u64 {
        let extent = Extent { batch: size, height, width };
        self.bytes(method, extent, Extras { logits: false, noise: false, nats: false })
    }

    fn make(&mut self, batch: &Batch, watch: Watch) -> Result<Output> {
        batch.check(&self.plan.graph)?;
        self.device.enter()?;
        match batch.method {
            Method::Cached => self.make_cached(batch, watch),
            Method::Naive => self.make_naive(batch, watch),
        }
    }
}
