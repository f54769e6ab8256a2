//! What host and teams share, field by field as in `cuda/team_tables.cuh`.

use bytemuck::{Pod, Zeroable};

use super::Grid;

/// Threads of a block of a team, by what they do: of adders and bringers there are two groups, and one warp more.
pub const TEAM_MULTIPLIERS: usize = 160;
pub const TEAM_ADDERS: usize = 64;
pub const TEAM_BRINGERS: usize = 32;
/// Records in its shared memory.
pub const TEAM_RECORDS: usize = 8;

/// `struct Task`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Task {
    pub weights: u32,
    pub place: u16,
    pub apart: u16,
    pub sums: u32,
    pub stride: u16,
    pub line: u16,
}

/// `WIDE`, which is added to a task's stride.
pub const WIDE: u16 = 1 << 15;

/// `struct Sum`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Sum {
    pub chunks: i32,
    pub to_gates: i32,
    pub begun: i32,
    pub channel: i32,
    pub add_at: i32,
    pub put_at: i32,
    pub padding: [i32; 2],
}

/// `struct Half`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Half {
    pub source: Grid,
    pub row: i32,
    pub column: i32,
    pub channel: i32,
    pub place: u16,
    pub apart: u16,
}

/// `struct Site`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Site {
    pub place: u16,
    pub apart: u16,
}

impl Site {
    /// `NOWHERE`.
    pub const NONE: Site = Site { place: u16::MAX, apart: 0 };
}

/// `struct Step`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Step {
    pub next: [i32; 2],
    pub flags: [u32; 2],
    pub tasks_at: i32,
    pub tasks: i32,
    pub sums_at: i32,
    pub sums: i32,
    pub halves_at: i32,
    pub halves: i32,
    pub of_halves: u32,
    pub of_sums: u32,
    pub sites: [Site; 3],
    pub chunks: i32,
}

/// `enum Flag`.
pub mod flag {
    pub const LAST: u32 = 1;
    pub const SHARED: u32 = 2;
    pub const MEETS: u32 = 4;
    pub const CLOSES: u32 = 8;
    pub const LATE: u32 = 16;
    pub const NEGATIVES: u32 = 32;
    pub const FURTHER: u32 = 64;
    pub const PADS: u32 = 128;
    pub const HYPERBOLIC: u32 = 256;
    pub const GATED: u32 = 512;
    pub const ADDS: u32 = 1024;
    pub const READ: u32 = 2048;
    pub const MANY: u32 = 4096;
}

/// Bytes of `struct Places`, where an image's outputs of a step lie, and of `struct Now`, the step of a pixel.
pub const PLACES: usize = 32;
pub const NOW: usize = 16;

/// `struct Team`: pointers are device addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Team {
    pub records: u64,
    pub tasks: u64,
    pub sums: u64,
    pub halves: u64,
    pub counters: u64,
    pub blocks_shift: i32,
    pub images: i32,
    pub values: i32,
    pub room: i32,
    pub values_at: i32,
    pub sums_at: i32,
    pub now_at: i32,
    pub places_at: i32,
    pub classes_at: i32,
    pub padding: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(text: &str) -> bool {
        let source = include_str!("../../../cuda/team_tables.cuh");
        source.lines().any(|line| line.trim_start().starts_with(text))
    }

    #[test]
    fn structs_are_as_long_as_in_the_kernel() {
        for (name, size) in [
            ("Task", size_of::<Task>()),
            ("Sum", size_of::<Sum>()),
            ("Half", size_of::<Half>()),
            ("Step", size_of::<Step>()),
            ("Places", PLACES),
            ("Now", NOW),
            ("Team", size_of::<Team>()),
        ] {
            assert!(stated(&format!("static_assert(sizeof({name}) == {size});")), "{name} has {size} bytes");
        }
    }

    #[test]
    fn constants_are_those_of_the_kernel() {
        for (name, value) in [
            ("TEAM_MULTIPLIERS", TEAM_MULTIPLIERS),
            ("TEAM_ADDERS", TEAM_ADDERS),
            ("TEAM_BRINGERS", TEAM_BRINGERS),
            ("TEAM_RECORDS", TEAM_RECORDS),
            ("WIDE", usize::from(WIDE)),
        ] {
            assert!(stated(&format!("constexpr int {name} = {value};")), "{name} is {value}");
        }
        assert!(stated(&format!("constexpr unsigned short NOWHERE = {:#x};", Site::NONE.place)));
        for (name, value) in [
            ("LAST", flag::LAST),
            ("SHARED", flag::SHARED),
            ("MEETS", flag::MEETS),
            ("CLOSES", flag::CLOSES),
            ("LATE", flag::LATE),
            ("NEGATIVES", flag::NEGATIVES),
            ("FURTHER", flag::FURTHER),
            ("PADS", flag::PADS),
            ("HYPERBOLIC", flag::HYPERBOLIC),
            ("GATED", flag::GATED),
            ("ADDS", flag::ADDS),
            ("READ", flag::READ),
            ("MANY", flag::MANY),
        ] {
            assert!(stated(&format!("{name} = {value},")), "{name} is {value}");
        }
    }
}
