//! Modules ready to run.

use std::sync::Arc;

use crate::memory::{Memory, MemoryError};
use crate::ptx;

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
    /// Registers of 32 bits that a thread needs: an estimate from what is live at once.
    pub registers: u32,
    /// `.maxntid` or `.reqntid`: the most threads of a block in each direction.
    pub max_threads: Option<[u32; 3]>,
    /// Whether `max_threads` is exact (`.reqntid`).
    pub exact_threads: bool,
    /// `.minnctapersm`.
    pub min_blocks: Option<u32>,
}

impl Kernel {
    /// Bytes of its arguments, from the first to the end of the last.
    pub fn param_bytes(&self) -> u32 {
        self.params.iter().map(|p| p.offset + p.size).max().unwrap_or(0)
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
    pub fn load(_text: &str, _memory: &mut Memory) -> Result<Module, LoadError> {
        todo!()
    }

    /// Gives the memory of the module's variables back.
    ///
    /// # Errors
    /// [`MemoryError`] if the memory is not the one that the module was loaded into.
    pub fn unload(&self, _memory: &mut Memory) -> Result<(), MemoryError> {
        todo!()
    }
}
