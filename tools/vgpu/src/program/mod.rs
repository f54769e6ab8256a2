//! Modules ready to run.
//!
//! The idea: a module is decoded once, when it is loaded, and everything that is not understood is an
//! error then, with its line, and never one during a run.

mod allocate;
mod decode;
mod flow;
mod lanes;
mod mbarrier;
mod memory;
mod warp;

use std::collections::HashMap;
use std::sync::Arc;

pub use flow::NOWHERE;

use crate::isa::instruction::{Instruction, Kind};
use crate::memory::{Memory, MemoryError};
use crate::ptx::{self, Function, Init, Space};
use decode::Decoder;

/// The mnemonics of instructions that are no row of [`crate::isa::table`], or not only.
pub const OUTSIDE_THE_TABLE: [&str; 38] = [
    "activemask",
    "applypriority",
    "atom",
    "bar",
    "barrier",
    "bra",
    "brkpt",
    "brx",
    "call",
    "cp",
    "cvta",
    "elect",
    "exit",
    "fence",
    "getctarank",
    "griddepcontrol",
    "isspacep",
    "ld",
    "ldu",
    "mapa",
    "match",
    "mbarrier",
    "membar",
    "mov",
    "nanosleep",
    "pmevent",
    "prefetch",
    "prefetchu",
    "red",
    "redux",
    "ret",
    "set",
    "setmaxnreg",
    "setp",
    "shfl",
    "st",
    "trap",
    "vote",
];

/// Why a module cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The text, or an instruction that the virtual GPU does not know.
    #[error(transparent)]
    Ptx(#[from] ptx::Error),
    /// No memory for the module's variables.
    #[error("no memory for a module's variables: {0}")]
    Memory(#[from] MemoryError),
}

/// A parameter's place in a kernel's argument bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// First byte.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Alignment.
    pub align: u32,
}

/// A variable in module scope, in `.global` or `.const` space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalVariable {
    /// Its name.
    pub name: String,
    /// Where it lies in the device's memory.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Whether it is in `.const` space.
    pub constant: bool,
}

/// A kernel ready to run.
#[derive(Debug)]
pub struct Kernel {
    /// Its entry point's name.
    pub name: String,
    /// Its parameters in order.
    pub params: Vec<Param>,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Bytes of local memory of a thread.
    pub local: u32,
    /// Registers of 32 bits of a thread: an estimate from what is live at once, and no more than keeps what the kernel
    /// promises to fit.
    pub registers: u32,
    /// `.maxntid` or `.reqntid`: the most threads of a block in each direction.
    pub max_threads: Option<[u32; 3]>,
    /// Whether `max_threads` is exact (`.reqntid`).
    pub exact_threads: bool,
    /// `.minnctapersm`.
    pub min_blocks: Option<u32>,
    /// `.reqnctapercluster`: blocks of a cluster in each direction.
    pub cluster: Option<[u32; 3]>,
    /// Its instructions.
    pub(crate) code: Vec<Instruction>,
    /// Whether barriers may be of some of a block's warps.
    pub(crate) partial_barriers: bool,
    /// For each instruction, where threads that it parts meet again.
    pub(crate) meetings: Vec<u32>,
    /// The constants' words.
    pub(crate) constants: Vec<u32>,
    /// Words of a warp's register file.
    pub(crate) file_words: u32,
    /// Memory instructions.
    pub(crate) sites: u32,
    /// The instruction of each.
    pub(crate) site_code: Vec<u32>,
}

impl Kernel {
    /// Bytes of its arguments, from the first to the end of the last.
    pub fn param_bytes(&self) -> u32 {
        self.params.iter().map(|p| p.offset + p.size).max().unwrap_or(0)
    }

    /// Bytes of shared memory with `dynamic` bytes of dynamic memory, which begin at a multiple of 16.
    pub fn shared_with(&self, dynamic: u32) -> u32 {
        if dynamic == 0 { self.static_shared } else { self.static_shared.next_multiple_of(16) + dynamic }
    }
}

/// A module ready to run.
#[derive(Debug)]
pub struct Module {
    /// `.version`.
    pub version: (u32, u32),
    /// `.target`, for instance `sm_75`.
    pub target: String,
    /// The entry points.
    pub kernels: Vec<Arc<Kernel>>,
    /// The variables in module scope.
    pub globals: Vec<GlobalVariable>,
}

impl Module {
    /// Parses and decodes a module, and places its variables in `memory`.
    ///
    /// # Errors
    /// [`LoadError`], which names the line.
    pub fn load(text: &str, memory: &mut Memory) -> Result<Module, LoadError> {
        let tree = ptx::parse(text)?;
        let globals = place_globals(&tree, memory)?;
        let mut module =
            Module { version: tree.version, target: tree.target.to_string(), kernels: Vec::new(), globals };
        for function in tree.functions.iter().filter(|f| f.entry && f.body.is_some()) {
            match kernel(&tree, function, &module.globals) {
                Ok(kernel) => module.kernels.push(Arc::new(kernel)),
                Err(error) => {
                    module.unload(memory)?;
                    return Err(error.into());
                }
            }
        }
        Ok(module)
    }

    /// Gives the memory of the module's variables back.
    ///
    /// # Errors
    /// [`MemoryError`] if the memory is not the one that the module was loaded into.
    pub fn unload(&self, memory: &mut Memory) -> Result<(), MemoryError> {
        self.globals.iter().try_for_each(|global| memory.free(global.address))
    }
}

/// Allocates and initialises the variables in module scope.
fn place_globals(tree: &ptx::Module<'_>, memory: &mut Memory) -> Result<Vec<GlobalVariable>, LoadError> {
    let variables = tree.variables.iter().filter(|v| matches!(v.space, Space::Global | Space::Const));
    let mut globals = Vec::new();
    let mut places = HashMap::new();
    for variable in variables.clone() {
        let size = variable.bytes();
        let address = memory.alloc(size.max(1), &format!("variable {}", variable.name))?;
        places.insert(variable.name, address);
        let constant = variable.space == Space::Const;
        globals.push(GlobalVariable { name: variable.name.to_string(), address, size, constant });
    }
    for (variable, global) in variables.zip(&globals) {
        // What is not given is zero.
        let mut bytes = Vec::with_capacity(global.size as usize);
        let width = variable.element.bytes() as usize;
        for init in &variable.init {
            let value = match init {
                Init::Bits(bits) => *bits,
                Init::Address(name, offset) => match places.get(name) {
                    Some(address) => address.wrapping_add(*offset as u64),
                    None => {
                        let what = format!("the address of {name} is not known");
                        return Err(ptx::Error::new(variable.line, what).into());
                    }
                },
            };
            bytes.extend_from_slice(&value.to_le_bytes()[..width.min(8)]);
        }
        bytes.resize(global.size as usize, 0);
        memory.write(global.address, &bytes)?;
        if global.constant {
            memory.make_constant(global.address);
        }
    }
    Ok(globals)
}

/// Registers of a thread at most, with which as many blocks of as many threads fit as a kernel promises: a compiler keeps
/// that promise by spilling.
fn most_registers(max_threads: Option<[u32; 3]>, min_blocks: Option<u32>) -> u32 {
    // Of a multiprocessor of any device since compute capability 3.0, and the step in which a thread gets them.
    const ALL: u32 = 64 << 10;
    const STEP: u32 = 8;
    let threads = max_threads.map_or(1, |[x, y, z]| x * y * z).max(1) * min_blocks.unwrap_or(1).max(1);
    (ALL / threads / STEP * STEP).clamp(16, 255)
}

/// Decodes a kernel.
fn kernel(
    tree: &ptx::Module<'_>,
    function: &Function<'_>,
    globals: &[GlobalVariable],
) -> Result<Kernel, ptx::Error> {
    let mut params: Vec<Param> = Vec::new();
    for param in &function.params {
        let end = params.last().map_or(0, |p| p.offset + p.size);
        let offset = end.next_multiple_of(param.align);
        params.push(Param { offset, size: param.bytes() as u32, align: param.align });
    }
    let offsets: Vec<u32> = params.iter().map(|p| p.offset).collect();
    let mut decoder = Decoder::new(tree, globals, 0);
    decoder.kernel(function, &offsets)?;
    if decoder.uses_dynamic {
        // Again, now that it is known where dynamic shared memory begins.
        let dynamic = decoder.shared_bytes.next_multiple_of(16);
        decoder = Decoder::new(tree, globals, dynamic);
        decoder.kernel(function, &offsets)?;
        decoder.shared_bytes = dynamic;
    }
    let places = &decoder.places;
    for instruction in &mut decoder.code {
        match &mut instruction.kind {
            Kind::Branch(target) => *target = places[*target as usize],
            Kind::BranchTable(_, targets) => {
                targets.iter_mut().for_each(|target| *target = places[*target as usize]);
            }
            _ => {}
        }
    }
    let blocks = flow::blocks(&decoder.code);
    let at_end = flow::meetings(&blocks);
    let mut meetings = vec![NOWHERE; decoder.code.len()];
    for (block, meeting) in blocks.iter().zip(at_end) {
        meetings[block.range.1 as usize - 1] = meeting;
    }
    let file = allocate::allocate(&mut decoder.code, &blocks, &decoder.registers);
    let mut site_code = vec![0; decoder.sites as usize];
    for (at, instruction) in decoder.code.iter().enumerate() {
        match &instruction.kind {
            Kind::Access(access) => site_code[access.site as usize] = at as u32,
            Kind::Mbarrier(op) => site_code[op.site as usize] = at as u32,
            Kind::StoreAsync(op) => site_code[op.site as usize] = at as u32,
            Kind::Atomic(atomic) => site_code[atomic.site as usize] = at as u32,
            Kind::Copy(copy) => copy.sites.iter().for_each(|&site| site_code[site as usize] = at as u32),
            _ => {}
        }
    }
    let partial_barrier =
        |of: &Instruction| matches!(&of.kind, Kind::Barrier(barrier) if barrier.threads.is_some());
    Ok(Kernel {
        name: function.name.to_string(),
        params,
        static_shared: decoder.shared_bytes as u32,
        local: decoder.local_bytes as u32,
        // The addresses and loop counters that the assembler adds.
        registers: (file.pressure + 8).clamp(16, most_registers(function.max_threads, function.min_blocks)),
        max_threads: function.max_threads,
        exact_threads: function.exact_threads,
        min_blocks: function.min_blocks,
        cluster: function.cluster,
        partial_barriers: decoder.code.iter().any(partial_barrier),
        code: decoder.code,
        meetings,
        constants: decoder.constants,
        file_words: file.words,
        sites: decoder.sites,
        site_code,
    })
}
