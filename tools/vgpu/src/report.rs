//! What a program did with the device, for people and tests.
//!
//! The idea: one JSON object of plain counts: what the host asked for here, what the kernels did from
//! [`crate::counters`].

use std::collections::BTreeMap;

use serde::Serialize;

use crate::counters::Counters;
use crate::memory::Memory;

/// How often, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Calls.
    pub calls: u64,
    /// Bytes of all calls.
    pub bytes: u64,
}

impl Traffic {
    /// Counts a call.
    pub fn add(&mut self, bytes: u64) {
        self.calls += 1;
        self.bytes += bytes;
    }
}

/// How a kernel was launched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Launches {
    /// By the host, one by one.
    pub plain: u64,
    /// As a node of a graph.
    pub by_graph: u64,
    /// Cooperatively.
    pub cooperative: u64,
    /// Those of them that may begin before the launch before has ended.
    pub early: u64,
}

/// What the host asked of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Launches by kernel.
    pub launches: BTreeMap<String, Launches>,
    /// Launches of graphs.
    pub graph_launches: u64,
    /// Copies from host to device.
    pub uploads: Traffic,
    /// Copies from device to host.
    pub downloads: Traffic,
    /// Fills.
    pub fills: Traffic,
    /// Allocations.
    pub allocations: Traffic,
    /// Calls that waited for the device.
    pub waits: u64,
    /// The most bytes allocated at a time.
    pub peak_bytes: u64,
    /// What went wrong, one sentence each.
    pub faults: Vec<String>,
}

impl Usage {
    /// Counts a kernel that ran.
    pub fn ran(&mut self, kernel: &str, in_graph: bool, cooperative: bool, early: bool) {
        let launches = self.launches.entry(kernel.to_string()).or_default();
        match (in_graph, cooperative) {
            (_, true) => launches.cooperative += 1,
            (true, _) => launches.by_graph += 1,
            _ => launches.plain += 1,
        }
        launches.early += u64::from(early);
    }
}

/// The report.
#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    device: &'a str,
    #[serde(flatten)]
    usage: &'a Usage,
    /// What has not been freed: address, bytes.
    live: Vec<(u64, u64)>,
    /// What else has not been given back: modules, streams, events, graphs, graphs that are ready to run.
    handles: [usize; 5],
    kernels: &'a BTreeMap<String, crate::counters::KernelCounters>,
}

/// The report as JSON.
pub fn json(
    device: &str,
    usage: &Usage,
    memory: &Memory,
    handles: [usize; 5],
    counters: &Counters,
) -> String {
    let live = memory.live().iter().map(|l| (l.address, l.bytes)).collect();
    let report = Report { schema: "vgpu-report-1", device, usage, live, handles, kernels: &counters.kernels };
    serde_json::to_string_pretty(&report).expect("numbers and strings")
}
