//! A lane-wise instruction as a row of a table, and how such rows are written.
//!
//! The idea: each row is compiled twice, for any x86-64 and for processors with AVX2 and fused
//! multiply-add, and the loader picks one for good.

use std::sync::OnceLock;

use super::lanes::{Operation, Width};
use crate::counters::Class;

/// An instruction that acts on each lane on its own.
pub struct Row {
    /// Its opcodes: without `.ftz`, and for floats without `.sat`, which the decoder adds to any.
    pub names: &'static [&'static str],
    /// How it is counted.
    pub class: Class,
    /// The result's width.
    pub result: Width,
    /// The sources' widths.
    pub sources: &'static [Width],
    /// The operation for any processor.
    pub portable: Operation,
    /// The operation for AVX2 and FMA; on other machines than x86-64 as the portable one.
    pub wide: Operation,
}

impl Row {
    /// Whether the hardware's result, an `f32`, is only near this one.
    pub fn approximate(&self) -> bool {
        self.names.iter().any(|n| n.ends_with(".f32") && (n.contains(".approx") || n.contains(".full")))
    }

    /// The operation for this processor.
    pub fn operation(&self) -> Operation {
        static WIDE: OnceLock<bool> = OnceLock::new();
        #[cfg(target_arch = "x86_64")]
        let has = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        #[cfg(not(target_arch = "x86_64"))]
        let has = || false;
        let wide = WIDE.get_or_init(|| has() && std::env::var_os("VGPU_PORTABLE").is_none());
        if *wide { self.wide } else { self.portable }
    }
}

/// Writes rows: `"name" "other.name" => |a: f32, b: f32| -> f32 { a + b };` under a class.
macro_rules! rows {
    ($(#[$meta:meta])* $table:ident: $class:ident;
        $($($name:expr),+ => |$($arg:ident: $type:ty),+| -> $result:ty $body:block)*) => {
        $(#[$meta])*
        pub static $table: &[$crate::isa::row::Row] = &[$(
            $crate::isa::row::Row {
                names: &[$($name),+],
                class: $crate::counters::Class::$class,
                result: <$result as $crate::isa::lanes::Value>::WIDTH,
                sources: &[$(<$type as $crate::isa::lanes::Value>::WIDTH),+],
                portable: {
                    unsafe fn portable(
                        lanes: &$crate::isa::lanes::Lanes,
                        operands: &$crate::isa::lanes::Operands,
                    ) {
                        // SAFETY: the decoder gave each operand the row's width.
                        unsafe {
                            $crate::isa::row::apply!(lanes, operands, |$($arg: $type),+| -> $result $body)
                        }
                    }
                    portable
                },
                wide: {
                    #[cfg_attr(
                        target_arch = "x86_64",
                        target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")
                    )]
                    unsafe fn wide(
                        lanes: &$crate::isa::lanes::Lanes,
                        operands: &$crate::isa::lanes::Operands,
                    ) {
                        // SAFETY: as above.
                        unsafe {
                            $crate::isa::row::apply!(lanes, operands, |$($arg: $type),+| -> $result $body)
                        }
                    }
                    wide
                },
            },
        )*];
    };
}
pub(crate) use rows;

/// Picks the function for the number of sources.
macro_rules! apply {
    ($l:expr, $o:expr, |$a:ident: $at:ty| -> $r:ty $f:block) => {
        $crate::isa::lanes::apply1(
            $l,
            $o,
            #[inline(always)]
            |$a: $at| -> $r { $f },
        )
    };
    ($l:expr, $o:expr, |$a:ident: $at:ty, $b:ident: $bt:ty| -> $r:ty $f:block) => {
        $crate::isa::lanes::apply2(
            $l,
            $o,
            #[inline(always)]
            |$a: $at, $b: $bt| -> $r { $f },
        )
    };
    ($l:expr, $o:expr, |$a:ident: $at:ty, $b:ident: $bt:ty, $c:ident: $ct:ty| -> $r:ty $f:block) => {
        $crate::isa::lanes::apply3(
            $l,
            $o,
            #[inline(always)]
            |$a: $at, $b: $bt, $c: $ct| -> $r { $f },
        )
    };
    ($l:expr, $o:expr, |$a:ident: $at:ty, $b:ident: $bt:ty, $c:ident: $ct:ty, $d:ident: $dt:ty| -> $r:ty
        $f:block) => {
        $crate::isa::lanes::apply4(
            $l,
            $o,
            #[inline(always)]
            |$a: $at, $b: $bt, $c: $ct, $d: $dt| -> $r { $f },
        )
    };
}
pub(crate) use apply;
