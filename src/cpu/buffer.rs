//! Memory that a team of threads fills together.
//!
//! The idea: everything a batch needs lies in one block, allocated once; the parts are offsets. Threads
//! share it through [`Shared`], which hands out raw pointers: who may write where is decided by the
//! schedule (each output element has one writer, and a barrier stands between writers and readers).

use std::marker::PhantomData;

use memmap2::{MmapMut, MmapOptions};

use crate::error::{Error, Result};

/// A zeroed block of floats, aligned to a page.
///
/// It comes from the system in large pages where there are any: a pixel's weights are 15 MB, more than
/// the processor has addresses of small pages at hand.
pub struct Buffer {
    /// `None` for a block of no floats, which the system would refuse.
    pages: Option<MmapMut>,
}

impl Buffer {
    /// Allocates at least `len` floats, all 0.
    ///
    /// # Errors
    /// [`Error::Allocate`].
    pub fn zeroed(len: usize) -> Result<Buffer> {
        if len == 0 {
            return Ok(Buffer { pages: None });
        }
        let bytes = len.saturating_mul(size_of::<f32>());
        let pages = MmapOptions::new().len(bytes).map_anon();
        let pages = pages.map_err(|source| Error::Allocate { bytes: bytes as u64, source })?;
        // A hint: where it is not known or not heeded, all is only slower.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        Ok(Buffer { pages: Some(pages) })
    }

    /// The floats.
    pub fn as_slice(&self) -> &[f32] {
        self.pages.as_ref().map_or(&[], |pages| bytemuck::cast_slice(pages))
    }

    /// The floats, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self.pages.as_mut().map_or(&mut [], |pages| bytemuck::cast_slice_mut(pages))
    }

    /// A handle that several threads may write through.
    pub fn share(&mut self) -> Shared<'_> {
        Shared::new(self.as_mut_slice())
    }
}

/// A block of floats that several threads write through raw pointers.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    base: *mut f32,
    len: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Shared` is a pointer and a length; every access through it is an unsafe operation whose
// caller answers for the absence of data races, and the exclusive borrow lasts as long as the handle.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Takes the exclusive borrow of a slice apart, to be shared out among threads.
    pub fn new(slice: &'a mut [f32]) -> Shared<'a> {
        Shared { base: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// Pointer to the `count` floats that begin at `offset`.
    ///
    /// # Safety
    /// `offset + count` is at most the block's length, and no other thread writes these floats while
    /// the pointer is read through, nor reads them while it is written through.
    pub unsafe fn at(&self, offset: usize, count: usize) -> *mut f32 {
        debug_assert!(offset + count <= self.len, "{offset} + {count} > {}", self.len);
        // SAFETY: within the block, by the caller's promise.
        unsafe { self.base.add(offset) }
    }

    /// The `count` floats that begin at `offset`, to read.
    ///
    /// # Safety
    /// `offset + count` is at most the block's length, and nobody writes these floats while they are
    /// borrowed.
    pub unsafe fn slice(&self, offset: usize, count: usize) -> &'a [f32] {
        // SAFETY: by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.at(offset, count), count) }
    }
}
