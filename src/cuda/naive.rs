//! The full forward pass on the device: every layer on all positions, for every pixel again.
//!
//! The idea: this is what the cached method is measured against, so it is a fair one: tiled products with the
//! operands in shared memory, activations computed once and stored, nothing copied to the host, and no more rows
//! than a pixel depends on. The order of summation is the cached method's, and so are the images.

use bytemuck::bytes_of;

use super::abi::{Grid, Span};
use super::cost::Room;
use super::driver::{Buffer, Device};
use super::kernels::Kernel;
use super::loaded::{self, Extras, Loaded, Places, elementwise};
use super::packed::Packed;
use super::stage::{Maps, Stage, Table, on_load, padded, stored};
use crate::engine::{Batch, Output, Watch};
use crate::error::{Error, Result};
use crate::graph::{Activation, Graph, IMAGE, MapId};
use crate::plan::layout::{Extent, Layout, Storage};
use crate::plan::window::Window;
use crate::plan::{Part, Plan};

/// What a pass consists of.
enum Op {
    /// A launch of the table.
    Launch(usize),
    /// Store what an activation makes of a map.
    Activate { kernel: Kernel, from: Grid, to: Grid, positions: usize },
}

/// A pass over a shape of batch.
struct Pass {
    ops: Vec<Op>,
    table: Table,
    places: Places,
}

/// A shape of batch, ready for full forward passes.
pub struct Naive {
    pass: Pass,
    window: Window,
    loaded: Loaded,
}

/// The rows of images that a pass takes at a time.
fn within(plan: &Plan, extent: Extent) -> Extent {
    Extent { height: Window::new(plan, extent.height).rows, ..extent }
}

/// Where everything lies: the maps as they are, and for each the activations that are stored, in grids of their own.
fn lay_out(plan: &Plan, extent: Extent) -> (Maps, Vec<Vec<(Activation, Grid)>>) {
    let mut maps = Maps::new(plan, Storage::Full, extent, vec![None; plan.graph.maps.len()]);
    let of_map = |(map, read): (MapId, Vec<Activation>)| {
        let read = read.into_iter().filter(|read| *read != Activation::Identity);
        let place = |read: Activation| {
            let channels = padded(plan.graph.maps[map].channels);
            let grid = maps.place(map, read.copies() * channels);
            (read, Grid { beside: channels as i32, ..grid })
        };
        read.map(place).collect()
    };
    let activated = plan.graph.activations_read().into_iter().enumerate().map(of_map).collect();
    (maps, activated)
}

/// The layers of a graph by how many others they wait for, one after the other: those of a level wait for none of it. So
/// where two streams make maps side by side, a launch makes layers of both, and few images occupy more of the device.
fn levels(graph: &Graph) -> Vec<Vec<usize>> {
    // By map: the level of the layer that makes it, counted from 1; what is given is there at 0.
    let mut made = vec![0; graph.maps.len()];
    let mut levels: Vec<Vec<usize>> = Vec::new();
    for (index, layer) in graph.layers.iter().enumerate() {
        let sources = layer.taps.iter().map(|tap| tap.source).chain(layer.epilogue.add);
        let level = sources.map(|map| made[map]).max().unwrap_or(0);
        made[layer.output] = level + 1;
        levels.resize_with(levels.len().max(level + 1), Vec::new);
        levels[level].push(index);
    }
    levels
}

impl Pass {
    fn new(plan: &Plan, packed: &Packed, extent: Extent, room: Room) -> Pass {
        let (maps, activated) = lay_out(plan, extent);
        let source = |map: MapId, read: Activation| {
            let found = activated[map].iter().find(|(activation, _)| *activation == read);
            found.map_or_else(|| on_load(&maps, map, read), |(_, grid)| stored(*grid, read))
        };
        let activate = |map: MapId| {
            let from = maps.grids[map];
            // From the first position of the first row to the last of the last; between rows lies padding, which is
            // 0 through any activation.
            let lines = from.rows as usize * extent.batch;
            let positions = (lines - 1) * from.columns as usize + extent.width / plan.graph.maps[map].stride;
            activated[map].iter().map(move |&(read, to)| {
                let kernel = match read {
                    Activation::Identity => unreachable!("every map is stored as it is"),
                    Activation::Elu => Kernel::Elu,
                    Activation::Relu => Kernel::Relu,
                    Activation::ConcatElu => Kernel::ConcatElu,
                };
                Op::Activate { kernel, from, to, positions }
            })
        };
        let mut table = Table::default();
        let mut ops: Vec<_> = [IMAGE].into_iter().chain(plan.graph.input.known).flat_map(activate).collect();
        for layers in levels(&plan.graph) {
            let stage = |piece: usize| {
                let what = (Part::Whole, Span::Image);
                Stage::new(plan, piece, &packed.pieces[piece], &maps, what, 0, source)
            };
            let stages = layers.iter().flat_map(|&layer| plan.pieces_of(layer)).map(stage).collect();
            ops.push(Op::Launch(table.add(stages, extent.batch, room)));
            ops.extend(layers.iter().flat_map(|&layer| activate(plan.graph.layers[layer].output)));
        }
        let raw = |map: MapId| maps.grids[map];
        let (image, logits, known) = (raw(IMAGE), raw(plan.graph.logits()), plan.graph.input.known.map(raw));
        Pass {
            ops,
            table,
            places: Places { arena: maps.layout.len, rows: extent.height, image, known, logits },
        }
    }
}

/// The arena of a pass over a batch.
pub fn arena(plan: &Plan, extent: Extent) -> Layout {
    lay_out(plan, within(plan, extent)).0.layout
}

/// The stages of a pass over a batch, as the device gets them.
pub fn table(plan: &Plan, packed: &Packed, extent: Extent, room: Room) -> Table {
    Pass::new(plan, packed, within(plan, extent), room).table
}

impl Naive {
    /// Allocates and uploads the table.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(
        device: &Device,
        plan: &Plan,
        packed: &Packed,
        weights: &Buffer<f32>,
        extent: Extent,
        extras: Extras,
    ) -> Result<Naive> {
        let room = device.properties.launches();
        let pass = Pass::new(plan, packed, within(plan, extent), room);
        let activations = pass.ops.iter().filter_map(|op| match op {
            Op::Launch(_) => None,
            Op::Activate { kernel, .. } => Some(*kernel),
        });
        let drawn = [Kernel::Sample, Kernel::LogLikelihood];
        let kernels = pass.table.kernels().chain(activations).chain(drawn).chain(loaded::KERNELS);
        device.load(&kernels.collect::<Vec<_>>())?;
        let loaded = Loaded::new(device, &plan.graph, weights, extent, extras, &pass.table, pass.places)?;
        Ok(Naive { pass, window: Window::new(plan, extent.height), loaded })
    }

    /// Brings the rows of a pass from `first` on, as they stand, into its maps.
    fn turn_to(&mut self, device: &Device, first: usize, width: usize) -> Result<()> {
        self.loaded.turn_to(device, first)?;
        self.loaded.enter(device, first..first + self.window.rows, width)
    }

    /// Keeps the logits of the first `rows` rows, whose pixels are given.
    fn given_rows(&mut self, device: &Device, rows: usize, width: usize) -> Result<()> {
        let mut from = 0;
        while from < rows {
            let (first, end) = self.window.at(from);
            self.turn_to(device, first, width)?;
            self.pass(device)?;
            self.loaded.keep_logits(device, from..end.min(rows))?;
            from = end;
        }
        Ok(())
    }

    /// A full forward pass over the rows that were brought, as they stand.
    fn pass(&self, device: &Device) -> Result<()> {
        for op in &self.pass.ops {
            match op {
                Op::Launch(launch) => {
                    self.loaded.launch(device, [&self.pass.table.launches[*launch]].into_iter())?
                }
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
        let shape = elementwise(positions * channels as usize / 4);
        let args = [bytes_of(&source), bytes_of(&target), bytes_of(&count), bytes_of(&channels)];
        // SAFETY: the arguments of concat_elu_f32 and its like; both grids have that many positions.
        unsafe { device.launch(kernel, shape, &args) }
    }

    /// Makes a batch of this shape; with it the seconds that the device took.
    ///
    /// # Errors
    /// As for [`crate::engine::Engine::make`].
    pub fn make(&mut self, device: &Device, batch: &Batch, watch: Watch) -> Result<(Output, f64)> {
        self.loaded.begin(device, batch)?;
        let start = device.mark()?;
        let given = batch.given.map_or(0, |g| g.rows);
        if given > 0 {
            if batch.keep_logits {
                self.given_rows(device, given, batch.width)?;
            }
            device.wait()?;
            if !watch(given) && given < batch.height {
                return Err(Error::Interrupted);
            }
        }
        self.loaded.move_to(device, given)?;
        let mut turned_to = None;
        for row in given..batch.height {
            let (first, _) = self.window.at(row);
            if turned_to.replace(first) != Some(first) {
                self.turn_to(device, first, batch.width)?;
            }
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
        let output = self.loaded.finish(device)?;
        Ok((output, device.between(&start, &end)?))
    }

    /// The log-likelihoods of the pixels of a batch whose pixels are all given: `[batch, height, width]`.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn log_likelihoods(&mut self, device: &Device, batch: &Batch) -> Result<Vec<f64>> {
        self.loaded.begin(device, batch)?;
        self.given_rows(device, batch.height, batch.width)?;
        self.loaded.log_likelihoods(device)
    }
}

#[cfg(test)]
mod tests {
    use super::levels;
    use crate::models::{PixelCnnPp, WaveNet};

    #[test]
    fn a_level_waits_for_nothing_of_it_and_for_all_before() {
        for graph in [PixelCnnPp::PAPER.graph(), WaveNet::default().graph()] {
            let levels = levels(&graph);
            let mut there = vec![true; graph.maps.len()];
            graph.layers.iter().for_each(|layer| there[layer.output] = false);
            for level in &levels {
                for layer in level.iter().map(|&layer| &graph.layers[layer]) {
                    let reads = layer.taps.iter().map(|tap| tap.source).chain(layer.epilogue.add);
                    assert!(reads.into_iter().all(|map| there[map]), "{}", layer.name);
                }
                level.iter().for_each(|&layer| there[graph.layers[layer].output] = true);
            }
            assert!(there.into_iter().all(|made| made));
            println!("{} layers in {} levels", graph.layers.len(), levels.len());
        }
        // The streams of the paper's model go side by side.
        let graph = PixelCnnPp::PAPER.graph();
        assert!(levels(&graph).len() < graph.layers.len() * 2 / 3);
    }
}
