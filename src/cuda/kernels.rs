//! The kernels by name, the PTX they are in, and what arguments that PTX says they take.
//!
//! The idea: the driver copies as many bytes from each argument's address as the kernel's declaration says,
//! without any check. So the declarations are read from the PTX, and every launch is held to them.

use crate::precision::Precision;

include!(concat!(env!("OUT_DIR"), "/ptx.rs"));

/// The kernels that the engine launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Gemv,
    Gemm,
    Split,
    Spread,
    Sample,
    LogLikelihood,
    ConcatElu,
    Elu,
    Relu,
    Reset,
    Expect,
    Enter,
    Push,
    Pop,
    Cursor,
    Persistent,
    Cluster,
    Team,
}

/// Each kernel, its file and its name, in the enum's order; those that read weights for float32.
pub const KERNELS: [(Kernel, &str, &str); 18] = [
    (Kernel::Gemv, "masked_conv_gemv", "masked_conv_gemv_f32"),
    (Kernel::Gemm, "masked_conv_gemm", "masked_conv_gemm_f32"),
    (Kernel::Split, "masked_conv_split", "masked_conv_split_f32"),
    (Kernel::Spread, "masked_conv_spread", "masked_conv_spread_f32"),
    (Kernel::Sample, "sample", "sample_f32"),
    (Kernel::LogLikelihood, "sample", "log_likelihood_f32"),
    (Kernel::ConcatElu, "concat_elu", "concat_elu_f32"),
    (Kernel::Elu, "concat_elu", "elu_f32"),
    (Kernel::Relu, "concat_elu", "relu_f32"),
    (Kernel::Reset, "cache", "cache_reset_f32"),
    (Kernel::Expect, "cache", "cache_expect_f32"),
    (Kernel::Enter, "cache", "cache_enter_f32"),
    (Kernel::Push, "cache", "cache_push_f32"),
    (Kernel::Pop, "cache", "cache_pop_f32"),
    (Kernel::Cursor, "cache", "cursor_f32"),
    (Kernel::Persistent, "persistent", "persistent_f32"),
    (Kernel::Cluster, "cluster", "cluster_f32"),
    (Kernel::Team, "team", "team_f32"),
];

/// What those that read weights are called, and their files, for weights in bfloat16.
const BF16: [(Kernel, &str); 7] = [
    (Kernel::Gemv, "masked_conv_gemv_bf16"),
    (Kernel::Gemm, "masked_conv_gemm_bf16"),
    (Kernel::Split, "masked_conv_split_bf16"),
    (Kernel::Spread, "masked_conv_spread_bf16"),
    (Kernel::Persistent, "persistent_bf16"),
    (Kernel::Cluster, "cluster_bf16"),
    (Kernel::Team, "team_bf16"),
];

impl Kernel {
    /// Its file in `cuda/`, without the end, and its name in the PTX, and in a profile.
    pub fn place(self, precision: Precision) -> (&'static str, &'static str) {
        let (_, file, name) = KERNELS[self as usize];
        let of_bf16 = BF16.iter().find(|(kernel, _)| *kernel == self && precision == Precision::Bf16);
        of_bf16.map_or((file, name), |(_, name)| (name, name))
    }
}

/// The kernels of a file, by name.
pub fn of_file(file: &str, precision: Precision) -> impl Iterator<Item = (Kernel, &'static str)> {
    let places = KERNELS.into_iter().map(move |(kernel, ..)| (kernel, kernel.place(precision)));
    places.filter(move |(_, (of, _))| *of == file).map(|(kernel, (_, name))| (kernel, name))
}

/// The PTX of a file in `cuda/`.
pub fn ptx(file: &str) -> &'static str {
    let found = MODULES.iter().find(|(stem, _)| *stem == file);
    found.expect("build.rs compiles every file in cuda/").1
}

/// Bytes of each argument of a kernel, from its declaration.
pub fn arguments(ptx: &str, kernel: &str) -> Vec<usize> {
    let declared = ptx.split_once(&format!(".entry {kernel}(")).and_then(|(_, rest)| rest.split_once(')'));
    let (parameters, _) = declared.expect("nvcc declares every kernel in its file");
    let bytes = |parameter: &str| {
        // `.param .u64 name` or `.param .align 8 .b8 name[48]`.
        let elements = match parameter.split_once('[') {
            Some((_, rest)) => rest.trim_end().trim_end_matches(']').parse().ok()?,
            None => 1,
        };
        let element = parameter.split_whitespace().rev().nth(1)?;
        let bits: usize = element.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
        Some(elements * bits / 8)
    };
    let all = parameters.split(',').map(|p| bytes(p.trim()));
    all.collect::<Option<_>>().expect("nvcc declares parameters of known sizes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_as_long_as_declared() {
        let text = ".visible .entry f(\n\t.param .u64 f_param_0,\n\t.param .align 8 .b8 f_param_1[48],\n\t.param .u32 x\n)\n{}";
        assert_eq!(arguments(text, "f"), [8, 48, 4]);
        for (at, (kernel, ..)) in KERNELS.into_iter().enumerate() {
            assert_eq!(at, kernel as usize);
            let [found, of_bf16] = Precision::ALL.map(|precision| {
                let (file, name) = kernel.place(precision);
                arguments(ptx(file), name)
            });
            assert!(found.len() >= 2 && found.iter().all(|&n| n >= 4), "{kernel:?}: {found:?}");
            assert_eq!(found, of_bf16, "{kernel:?}");
        }
    }
}
