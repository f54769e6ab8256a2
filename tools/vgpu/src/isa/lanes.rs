//! The 32 lanes of a warp, and how one operation is applied to all of them.
//!
//! The idea: a register is an array of 32 values, side by side, so an instruction is a loop over arrays
//! that the compiler turns into vector instructions. It goes in chunks of eight lanes: a chunk's sources
//! are all read before its results are written, so a register may be source and result at once, and
//! chunks without an active lane are skipped.

use std::array;

use half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

use super::half;

/// Lanes of a warp.
pub const WARP: usize = 32;
/// Lanes of a chunk.
const CHUNK: usize = 8;

/// A register's place: words from the beginning of the warp's register file, or, with [`Slot::CONSTANT`]
/// set, of the kernel's constants. Before registers are allocated, it numbers a virtual register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// Marks a place among the constants.
    pub const CONSTANT: u32 = 1 << 31;
    /// The predicate that is true in all lanes.
    pub const TRUE: Slot = Slot(Slot::CONSTANT | 1);
    /// The predicate that is false in all lanes.
    pub const FALSE: Slot = Slot(Slot::CONSTANT);

    /// Whether it is a constant.
    pub fn is_constant(self) -> bool {
        self.0 & Slot::CONSTANT != 0
    }
}

/// How many bits a lane's value takes in the register file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// One bit: a predicate is a mask of one word.
    Bit,
    /// 32 bits; narrower values are extended by their sign, or with zeros if they have none.
    Word,
    /// 64 bits.
    Long,
}

impl Width {
    /// Words that all lanes take.
    pub fn words(self) -> u32 {
        match self {
            Width::Bit => 1,
            Width::Word => 32,
            Width::Long => 64,
        }
    }
}

/// The registers of a warp, while one of its instructions executes.
pub struct Lanes {
    /// The register file, and the kernel's constants.
    pub files: [*mut u32; 2],
    /// Lanes whose results are kept: the active ones, and those that have exited, which nobody reads.
    pub keep: u32,
    /// Whether approximate functions are shaken.
    pub perturb: bool,
}

impl Lanes {
    /// Where a slot's words begin.
    ///
    /// # Safety
    /// The slot is one of the kernel whose register file and constants these are.
    #[inline(always)]
    pub unsafe fn at(&self, slot: Slot) -> *mut u32 {
        // SAFETY: the decoder made the file long enough for each of its slots.
        unsafe { self.files[(slot.0 >> 31) as usize].add((slot.0 & !Slot::CONSTANT) as usize) }
    }

    /// A predicate's mask.
    ///
    /// # Safety
    /// As [`Lanes::at`]; the slot holds a predicate.
    #[inline(always)]
    pub unsafe fn mask(&self, slot: Slot) -> u32 {
        // SAFETY: by the caller's promise.
        unsafe { *self.at(slot) }
    }

    /// Sets a predicate in the lanes of `keep`.
    ///
    /// # Safety
    /// As [`Lanes::mask`].
    #[inline(always)]
    pub unsafe fn set_mask(&self, slot: Slot, bits: u32) {
        // SAFETY: by the caller's promise.
        unsafe {
            let at = self.at(slot);
            *at = (*at & !self.keep) | (bits & self.keep);
        }
    }

    /// The values of 32 bits of all lanes.
    ///
    /// # Safety
    /// As [`Lanes::at`]; the slot holds words.
    #[inline(always)]
    pub unsafe fn words(&self, slot: Slot) -> [u32; WARP] {
        // SAFETY: by the caller's promise.
        unsafe { self.at(slot).cast::<[u32; WARP]>().read_unaligned() }
    }

    /// The values of 64 bits of all lanes.
    ///
    /// # Safety
    /// As [`Lanes::at`]; the slot holds longs.
    #[inline(always)]
    pub unsafe fn longs(&self, slot: Slot) -> [u64; WARP] {
        // SAFETY: by the caller's promise.
        unsafe { self.at(slot).cast::<[u64; WARP]>().read_unaligned() }
    }

    /// The values of all lanes, of 64 bits if `long`, else of 32.
    ///
    /// # Safety
    /// As [`Lanes::at`]; the slot holds longs or words accordingly.
    #[inline(always)]
    pub unsafe fn values(&self, slot: Slot, long: bool) -> [u64; WARP] {
        // SAFETY: by the caller's promise.
        unsafe { if long { self.longs(slot) } else { self.words(slot).map(u64::from) } }
    }

    /// Sets the values of 32 bits in the lanes of `mask`.
    ///
    /// # Safety
    /// As [`Lanes::words`].
    #[inline(always)]
    pub unsafe fn set_words(&self, slot: Slot, mask: u32, values: &[u32; WARP]) {
        for (lane, &value) in values.iter().enumerate() {
            if mask >> lane & 1 == 1 {
                // SAFETY: by the caller's promise.
                unsafe { *self.at(slot).add(lane) = value };
            }
        }
    }
}

/// A type of values in registers.
pub trait Value: Copy {
    /// What it takes in the register file.
    const WIDTH: Width;

    /// Eight lanes' values.
    ///
    /// # Safety
    /// The slot has this type's width and belongs to the kernel.
    unsafe fn load(lanes: &Lanes, slot: Slot, chunk: usize) -> [Self; CHUNK];

    /// Writes eight lanes' values, those of `keep`.
    ///
    /// # Safety
    /// As [`Value::load`].
    unsafe fn store(values: [Self; CHUNK], lanes: &Lanes, slot: Slot, chunk: usize);
}

macro_rules! values {
    ($($type:ty: $width:ident as $slot:ty, $get:expr, $put:expr;)*) => {$(
        impl Value for $type {
            const WIDTH: Width = Width::$width;

            #[inline(always)]
            unsafe fn load(lanes: &Lanes, slot: Slot, chunk: usize) -> [Self; CHUNK] {
                // SAFETY: a register has four chunks, by the caller's promise.
                let bits: [$slot; CHUNK] = unsafe { lanes.at(slot).cast::<[$slot; CHUNK]>().add(chunk).read_unaligned() };
                let get = $get;
                array::from_fn(|k| get(bits[k]))
            }

            #[inline(always)]
            unsafe fn store(values: [Self; CHUNK], lanes: &Lanes, slot: Slot, chunk: usize) {
                let put = $put;
                let bits: [$slot; CHUNK] = array::from_fn(|k| put(values[k]));
                // SAFETY: as above.
                unsafe {
                    let at = lanes.at(slot).cast::<[$slot; CHUNK]>().add(chunk);
                    let keep = lanes.keep >> (chunk * CHUNK);
                    if keep as u8 == u8::MAX {
                        at.write(bits);
                    } else {
                        let old = at.read();
                        at.write(array::from_fn(|k| if keep & (1 << k) != 0 { bits[k] } else { old[k] }));
                    }
                }
            }
        }
    )*};
}

values! {
    u32: Word as u32, |x: u32| x, |x: u32| x;
    i32: Word as u32, |x: u32| x as i32, |x: i32| x as u32;
    f32: Word as u32, f32::from_bits, f32::to_bits;
    u16: Word as u32, |x: u32| x as u16, |x: u16| u32::from(x);
    // The register may be wider than the type, which is then extended by its sign.
    i16: Word as u32, |x: u32| x as i16, |x: i16| x as i32 as u32;
    u8: Word as u32, |x: u32| x as u8, |x: u8| u32::from(x);
    i8: Word as u32, |x: u32| x as i8, |x: i8| x as i32 as u32;
    u64: Long as u64, |x: u64| x, |x: u64| x;
    i64: Long as u64, |x: u64| x as i64, |x: i64| x as u64;
    f64: Long as u64, f64::from_bits, f64::to_bits;
    F16: Word as u32, |x: u32| F16(f16_to_f32(x as u16)), |x: F16| u32::from(f32_to_f16(x.0));
    Bf16: Word as u32, |x: u32| Bf16(bf16_to_f32(x as u16)), |x: Bf16| u32::from(f32_to_bf16(x.0));
}

/// A value that a register holds as `f16`; it is rounded when it is written.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct F16(pub f32);

/// A value that a register holds as `bf16`; it is rounded when it is written.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Bf16(pub f32);

impl Value for bool {
    const WIDTH: Width = Width::Bit;

    #[inline(always)]
    unsafe fn load(lanes: &Lanes, slot: Slot, chunk: usize) -> [bool; CHUNK] {
        // SAFETY: by the caller's promise.
        let bits = unsafe { lanes.mask(slot) } >> (chunk * CHUNK);
        array::from_fn(|k| bits & (1 << k) != 0)
    }

    #[inline(always)]
    unsafe fn store(values: [bool; CHUNK], lanes: &Lanes, slot: Slot, chunk: usize) {
        let mut bits = 0;
        for (k, &value) in values.iter().enumerate() {
            bits |= u32::from(value) << k;
        }
        let keep = lanes.keep & (0xff << (chunk * CHUNK));
        // SAFETY: by the caller's promise.
        unsafe {
            let at = lanes.at(slot);
            *at = (*at & !keep) | ((bits << (chunk * CHUNK)) & keep);
        }
    }
}

/// The operands of an operation: the result and up to four sources.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// The result.
    pub result: Slot,
    /// The sources; those beyond the operation's number are not read.
    pub sources: [Slot; 4],
}

/// An operation on all lanes.
pub type Operation = unsafe fn(&Lanes, &Operands);

macro_rules! apply {
    ($name:ident: $($type:ident $value:ident $index:literal),*) => {
        /// Applies a function of this many sources to all lanes.
        ///
        /// # Safety
        /// The slots have the widths of the types and belong to the kernel.
        #[inline(always)]
        pub unsafe fn $name<$($type: Value,)* R: Value>(
            lanes: &Lanes,
            operands: &Operands,
            f: impl Fn($($type),*) -> R,
        ) {
            for chunk in 0..WARP / CHUNK {
                if (lanes.keep >> (chunk * CHUNK)) as u8 == 0 {
                    continue;
                }
                // SAFETY: by the caller's promise.
                unsafe {
                    $(let $value = $type::load(lanes, operands.sources[$index], chunk);)*
                    let results = array::from_fn(|k| f($($value[k]),*));
                    R::store(results, lanes, operands.result, chunk);
                }
            }
        }
    };
}

apply!(apply1: A a 0);
apply!(apply2: A a 0, B b 1);
apply!(apply3: A a 0, B b 1, C c 2);
apply!(apply4: A a 0, B b 1, C c 2, D d 3);
