//! The full forward pass on the device: every layer on all positions, for every pixel again.
//!
//! The idea: this is what the cached method is measured against, so it is a fair one: tiled products with the
//! operands in shared memory, activations computed once and stored, nothing copied to the host. The order
//! of summation is the cached method's, and so are the images.

use bytemuck::bytes_of;

use super::driver::{Buffer, Device};
use super::kernels::Kernel;
use super::layout::{Extent, Grid, Layout, Storage, padded};
use super::loaded::{self, Extras, Loaded, Plan};
use super::packed::Packed;
use super::stage::{Span, form};
use super::table::{Part, Piece, Source, Table, on_load};
use crate::config::Nonlinearity;
use crate::engine::{Batch, Made, Watch};
use crate::error::{Error, Result};
use crate::network::{Form, IMAGE, Network, TensorId};
use crate::schedule;

/// Threads of the kernels that have a thread for each number.
const MANY: usize = 256;

/// What a pass consists of.
enum Op {
    /// A step of the table.
    Step(usize),
    /// Store what a tensor is in another form.
    Activate { kernel: Kernel, from: Grid, to: Grid, positions: usize },
}

/// A pass over a shape of batch.
struct Pass {
    ops: Vec<Op>,
    table: Table,
    layout: Layout,
}

/// A shape of batch, ready for full forward passes.
pub struct Naive {
    pass: Pass,
    loaded: Loaded,
}

/// The kernel that makes a form, and how the form is then read.
fn stored(form: Form, nonlinearity: Nonlinearity) -> Option<(Kernel, i32, usize)> {
    match (form, nonlinearity) {
        (Form::Raw, _) => None,
        (Form::Activated, Nonlinearity::ConcatElu) => Some((Kernel::ConcatElu, form::STORED, 2)),
        (Form::Activated, Nonlinearity::Relu) => Some((Kernel::Relu, form::RAW, 1)),
        (Form::Activated, Nonlinearity::Elu) | (Form::Elu, _) => Some((Kernel::Elu, form::RAW, 1)),
    }
}

/// A form of a tensor, where it is stored and the kernel that makes it.
type Stored = (Form, Source, Kernel);

/// Where everything lies, and every form of each tensor that is read, beside the raw one.
fn lay_out(network: &Network, extent: Extent) -> (Layout, Vec<Vec<Stored>>) {
    let mut layout = Layout::new(network, Storage::Full, extent);
    let (mut forms, read) = (Vec::new(), schedule::forms_read(network));
    for (id, tensor) in network.tensors.iter().enumerate() {
        let mut of_tensor = Vec::new();
        for &wanted in &read[id] {
            let Some((kernel, form, width)) = stored(wanted, network.config.nonlinearity) else {
                continue;
            };
            let stride = padded(tensor.channels);
            let grid = layout.place(network, id, width * stride);
            of_tensor.push((wanted, Source { grid, form, stride }, kernel));
        }
        forms.push(of_tensor);
    }
    (layout, forms)
}

impl Pass {
    fn new(network: &Network, packed: &Packed, extent: Extent, multiprocessors: usize) -> Pass {
        let (layout, forms) = lay_out(network, extent);
        let source = |tensor: TensorId, wanted: Form| {
            let found = forms[tensor].iter().find(|(form, ..)| *form == wanted);
            found.map_or_else(|| on_load(network, &layout, tensor, wanted), |(_, source, _)| *source)
        };
        let mut table = Table::default();
        let mut ops = Vec::new();
        for (layer, packed) in network.layers.iter().zip(&packed.layers) {
            let stage = |(&parity, &packed)| {
                let piece = Piece { network, layer, parity, packed };
                piece.stage(&layout, Part::Whole, Span::Image, 0, source)
            };
            let stages = layer.parities().iter().zip(packed).map(stage).collect();
            ops.push(Op::Step(table.add(stages, extent.batch, multiprocessors)));
            for (_, source, kernel) in &forms[layer.output] {
                let from = layout.grids[layer.output];
                let positions = from.rows as usize * extent.batch * from.columns as usize;
                ops.push(Op::Activate { kernel: *kernel, from, to: source.grid, positions });
            }
        }
        Pass { ops, table, layout }
    }
}

/// Bytes on the device that a batch needs beyond the weights.
pub fn bytes(network: &Network, extent: Extent) -> u64 {
    lay_out(network, extent).0.bytes()
}

impl Naive {
    /// Allocates and uploads the table.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(
        device: &Device,
        network: &Network,
        packed: &Packed,
        weights: &Buffer<f32>,
        extent: Extent,
        extras: Extras,
    ) -> Result<Naive> {
        let pass = Pass::new(network, packed, extent, device.properties.multiprocessors);
        let [image, logits] = [IMAGE, network.logits()].map(|tensor| pass.layout.grids[tensor]);
        let plan = Plan { table: &pass.table, arena: pass.layout.len, image, logits };
        let stored = pass.ops.iter().filter_map(|op| match op {
            Op::Step(_) => None,
            Op::Activate { kernel, .. } => Some(*kernel),
        });
        let drawn = [Kernel::Sample, Kernel::LogLikelihood];
        let kernels = pass.table.kernels().chain(stored).chain(drawn).chain(loaded::KERNELS);
        device.load(&kernels.collect::<Vec<_>>())?;
        let loaded = Loaded::new(device, network.config, weights, extent, extras, &plan)?;
        Ok(Naive { pass, loaded })
    }

    /// A full forward pass over the images as they stand.
    fn pass(&self, device: &Device) -> Result<()> {
        for op in &self.pass.ops {
            match op {
                Op::Step(step) => self.loaded.step(device, &self.pass.table.steps[*step])?,
                Op::Activate { kernel, from, to, positions } => {
                    self.activate(device, *kernel, from, to, *positions)?
                }
            }
        }
        Ok(())
    }

    fn activate(
        &self,
        device: &Device,
        kernel: Kernel,
        from: &Grid,
        to: &Grid,
        positions: usize,
    ) -> Result<()> {
        let address = |grid: &Grid| self.loaded.args.arena + grid.base * size_of::<f32>() as u64;
        let (source, target, channels) = (address(from), address(to), from.channels);
        let count = positions as u64;
        let blocks = (positions * channels as usize / 4).div_ceil(MANY) as u32;
        let args = [bytes_of(&source), bytes_of(&target), bytes_of(&count), bytes_of(&channels)];
        // SAFETY: the arguments of concat_elu_f32 and its like; both grids have so many positions.
        unsafe { device.launch(kernel, [blocks, 1, 1], MANY as u32, &args) }
    }

    /// Makes a batch of this shape; with it the seconds that the device took.
    ///
    /// # Errors
    /// As for [`crate::engine::Engine::make`].
    pub fn make(&mut self, device: &Device, batch: &Batch, watch: Watch) -> Result<(Made, f64)> {
        self.loaded.begin(device, batch)?;
        let begin = device.mark()?;
        let given = batch.given.map_or(0, |g| g.rows);
        if given > 0 {
            if batch.keep_logits {
                self.pass(device)?;
                self.loaded.keep_logits(device, 0, given)?;
            }
            device.wait()?;
            if !watch(given) && given < batch.height {
                return Err(Error::Interrupted);
            }
        }
        self.loaded.move_to(device, given)?;
        for row in given..batch.height {
            for _ in 0..batch.width {
                self.pass(device)?;
                self.loaded.sample(device)?;
            }
            device.wait()?;
            if !watch(row + 1) && row + 1 < batch.height {
                return Err(Error::Interrupted);
            }
        }
        let end = device.mark()?;
        let made = self.loaded.finish(device)?;
        Ok((made, device.between(&begin, &end)?))
    }

    /// The log-likelihoods of the pixels of a batch whose pixels are all given: `[batch, height, width]`.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn log_likelihoods(&mut self, device: &Device, batch: &Batch) -> Result<Vec<f64>> {
        self.loaded.begin(device, batch)?;
        self.pass(device)?;
        self.loaded.keep_logits(device, 0, batch.height)?;
        self.loaded.log_likelihoods(device)
    }
}
