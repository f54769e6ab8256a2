//! [`CudaEngine`]: the weights of one model on a device, and the shapes of batch that are ready to run.

use std::ops::Range;

use ndarray::{ArrayView4, Axis, concatenate, s};

use super::cached::{self, Cached};
use super::driver::{Buffer, Device};
use super::layout::Extent;
use super::loaded::Extras;
use super::naive::{self, Naive};
use super::packed::Packed;
use super::programs;
use super::{Properties, Strategy};
use crate::config::ModelConfig;
use crate::engine::{Batch, Engine, Given, Made, Method, Noise, Watch};
use crate::error::{Error, Result};
use crate::memory;
use crate::network::Network;
use crate::weights::Weights;

/// Images that go through a full forward pass together: enough for any device to be busy.
const NAIVE_IMAGES: usize = 16;

/// The CUDA engine with the weights of one model.
pub struct CudaEngine {
    network: Network,
    packed: Packed,
    strategy: Strategy,
    seconds: f64,
    // Buffers before the device that they are on.
    cached: Option<(Extent, Extras, Cached)>,
    naive: Option<(Extent, Extras, Naive)>,
    weights: Buffer<f32>,
    device: Device,
}

impl CudaEngine {
    /// Opens the device of that number and brings the weights there.
    ///
    /// # Errors
    /// [`crate::Error::Device`] without a driver, a device or enough memory, or if the driver refuses the
    /// kernels; as for [`Weights::fold`].
    pub fn new(weights: &Weights, ordinal: u32, strategy: Strategy) -> Result<CudaEngine> {
        let network = Network::new(*weights.config());
        let device = Device::open(ordinal)?;
        let strategy = cached::choose(&device.properties, strategy)?;
        let packed = Packed::plan(&network);
        check_weights(&device, packed.bytes())?;
        let mut buffer = device.zeroed(packed.len)?;
        packed.fill(&network, weights, |at, floats| device.write(&mut buffer, at as usize, floats))?;
        Ok(CudaEngine {
            network,
            packed,
            strategy,
            seconds: 0.0,
            cached: None,
            naive: None,
            weights: buffer,
            device,
        })
    }

    /// The device.
    pub fn properties(&self) -> &Properties {
        &self.device.properties
    }

    /// How cached generation is run.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Seconds that the device took for the last batch, from the first stage to the last, by its own clock.
    pub fn device_seconds(&self) -> f64 {
        self.seconds
    }

    /// Generates a batch with the cached method and lets a profiler capture some rows: it captures nothing
    /// else if it was told to wait for the program.
    ///
    /// # Errors
    /// As for [`Engine::make`].
    pub fn profile(&mut self, batch: &Batch, rows: Range<usize>) -> Result<Made> {
        batch.check(self.config())?;
        self.device.enter()?;
        // What is done once for all batches of a shape stays out of the profile.
        self.make_cached(batch, &|_| true)?;
        let (_, _, cached) = self.cached.as_mut().expect("a batch of this shape was made");
        let (made, seconds) = cached.make(&self.device, batch, &|_| true, Some(rows))?;
        self.seconds = seconds;
        Ok(made)
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Refuses a batch that does not fit into the device's memory, before anything is allocated for it.
    fn check_memory(&self, method: Method, extent: Extent, extras: Extras) -> Result<()> {
        let bytes = |batch| {
            let extent = Extent { batch, ..extent };
            self.arena_bytes(method, extent).saturating_add(extras.bytes(extent, &self.network.config))
        };
        memory::check_batch(self.device.free()?, extent.batch, bytes)
    }

    fn arena_bytes(&self, method: Method, extent: Extent) -> u64 {
        match method {
            Method::Cached => programs::bytes(&self.network, &self.packed, extent),
            Method::Naive => {
                let extent = Extent { batch: extent.batch.min(NAIVE_IMAGES), ..extent };
                naive::bytes(&self.network, extent)
            }
        }
    }

    fn make_cached(&mut self, batch: &Batch, watch: Watch) -> Result<Made> {
        self.naive = None;
        let (extent, extras) = (extent_of(batch), Extras::of(batch));
        if self.cached.as_ref().is_none_or(|(e, x, _)| (*e, *x) != (extent, extras)) {
            self.cached = None;
            self.check_memory(Method::Cached, extent, extras)?;
            let Self { device, network, packed, weights, strategy, .. } = self;
            let cached = Cached::new(device, network, packed, weights, extent, extras, *strategy)?;
            self.cached = Some((extent, extras, cached));
        }
        let (_, _, cached) = self.cached.as_mut().expect("it was made above");
        let (made, seconds) = cached.make(&self.device, batch, watch, None)?;
        self.seconds = seconds;
        Ok(made)
    }

    /// A pass object for batches of that shape.
    fn naive(&mut self, extent: Extent, extras: Extras) -> Result<(&Device, &mut Naive)> {
        self.cached = None;
        if self.naive.as_ref().is_none_or(|(e, x, _)| (*e, *x) != (extent, extras)) {
            self.naive = None;
            self.check_memory(Method::Naive, extent, extras)?;
            let Self { device, network, packed, weights, .. } = self;
            let naive = Naive::new(device, network, packed, weights, extent, extras)?;
            self.naive = Some((extent, extras, naive));
        }
        let (_, _, naive) = self.naive.as_mut().expect("it was made above");
        Ok((&self.device, naive))
    }

    /// Makes the batch some images at a time.
    fn make_naive(&mut self, batch: &Batch, watch: Watch) -> Result<Made> {
        let (mut parts, mut total) = (Vec::new(), 0.0);
        let shares = batch.size.div_ceil(NAIVE_IMAGES);
        for share in 0..shares {
            let images = share * NAIVE_IMAGES..batch.size.min((share + 1) * NAIVE_IMAGES);
            let part = part_of(batch, images);
            let (device, naive) = self.naive(extent_of(&part), Extras::of(&part))?;
            // Rows of the whole batch: as if all parts grew together.
            let rows = |rows: usize| watch((share * batch.height + rows) / shares);
            let (made, seconds) = naive.make(device, &part, &rows)?;
            parts.push(made);
            total += seconds;
        }
        self.seconds = total;
        let join = |arrays: Vec<ArrayView4<f32>>| concatenate(Axis(0), &arrays).expect("parts of one batch");
        let images = join(parts.iter().map(|p| p.images.view()).collect());
        let logits: Option<Vec<_>> = parts.iter().map(|p| p.logits.as_ref().map(|l| l.view())).collect();
        Ok(Made { images, logits: logits.map(join) })
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

/// Some images of a batch, as a batch of their own.
fn part_of<'a>(batch: &'a Batch, images: Range<usize>) -> Batch<'a> {
    let rows = s![images.clone(), .., .., ..];
    let noise = match &batch.noise {
        Noise::Philox { seed, first_index } => {
            Noise::Philox { seed: *seed, first_index: first_index + images.start as u64 }
        }
        Noise::Given { mixture, logistic } => {
            Noise::Given { mixture: mixture.slice(rows), logistic: logistic.slice(rows) }
        }
    };
    let given = batch.given.as_ref().map(|g| Given { images: g.images.slice(rows), rows: g.rows });
    let labels = batch.labels.map(|l| &l[images.clone()]);
    Batch { size: images.len(), noise, given, labels, ..batch.reborrow() }
}

impl Engine for CudaEngine {
    fn name(&self) -> String {
        let Properties { label, name, .. } = &self.device.properties;
        format!("{label} ({name}, {})", self.strategy.name())
    }

    fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    fn weight_bytes(&self) -> u64 {
        self.packed.bytes()
    }

    fn available(&self) -> Option<u64> {
        self.device.enter().and_then(|()| self.device.free()).ok()
    }

    fn nats(&mut self, images: ArrayView4<f32>, labels: Option<&[u32]>) -> Result<Vec<f64>> {
        let (count, height, width, _) = images.dim();
        let batch = Batch::teacher_forced(images, labels);
        batch.check(self.config())?;
        self.device.enter()?;
        let mut nats = Vec::with_capacity(count);
        for first in (0..count).step_by(NAIVE_IMAGES) {
            let part = part_of(&batch, first..count.min(first + NAIVE_IMAGES));
            let (device, naive) = self.naive(extent_of(&part), Extras::of(&part))?;
            let pixels = naive.log_likelihoods(device, &part)?;
            nats.extend(pixels.chunks(height * width).map(|image| -image.iter().sum::<f64>()));
        }
        Ok(nats)
    }

    fn batch_bytes(&self, method: Method, size: usize, height: usize, width: usize) -> u64 {
        if size == 0 {
            return 0;
        }
        let extent = Extent { batch: size, height, width };
        let extras = Extras { logits: false, noise: false };
        self.arena_bytes(method, extent).saturating_add(extras.bytes(extent, &self.network.config))
    }

    fn make(&mut self, batch: &Batch, watch: Watch) -> Result<Made> {
        batch.check(self.config())?;
        self.device.enter()?;
        match batch.method {
            Method::Cached => self.make_cached(batch, watch),
            Method::Naive => self.make_naive(batch, watch),
        }
    }
}
