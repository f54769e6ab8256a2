//! What a launch adds to the counters.
//!
//! The idea: instructions are counted where they stand, and sorted by their class only at the end.

use super::machine::Machine;
use crate::counters::{Class, Counters, Requests, SharedRequests};
use crate::isa::instruction::{Area, Kind};

/// Adds what was executed to the counters.
pub fn count(machine: &Machine<'_>, counters: &mut Counters) {
    let launch = machine.launch;
    let by_line = counters.by_line;
    let all = counters.kernels.entry(launch.kernel.name.clone()).or_default();
    all.launches += 1;
    let blocks: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
    all.blocks += blocks;
    all.threads += blocks * launch.block.iter().map(|&n| u64::from(n)).product::<u64>();
    all.block_barriers += machine.barriers;
    all.cluster_barriers += machine.cluster_barriers;
    all.mbarrier_phases += machine.mbarrier_phases;
    all.mbarrier_waits += machine.mbarrier_waits;
    all.grid_releases += machine.synchronised[0];
    all.grid_acquires += machine.synchronised[1];
    let add = |to: &mut Requests, from: &Requests| {
        to.requests += from.requests;
        to.bytes += from.bytes;
        to.sectors += from.sectors;
        to.ideal_sectors += from.ideal_sectors;
        to.distinct_bytes += from.distinct_bytes;
    };
    let add_shared = |to: &mut SharedRequests, from: &[u64; 3]| {
        to.requests += from[0];
        to.bytes += from[1];
        to.conflicts += from[2];
    };
    for (instruction, executed) in launch.kernel.code.iter().zip(&machine.executed) {
        let Some(mut class) = instruction.class else { continue };
        if executed[0] == 0 {
            continue;
        }
        let mut sites = Vec::new();
        match &instruction.kind {
            Kind::Access(access) => {
                let totals = machine.totals(access.site);
                let (global, shared) = match (access.store, access.nc) {
                    (true, _) => (&mut all.stores, &mut all.shared_stores),
                    (false, true) => (&mut all.nc_loads, &mut all.shared_loads),
                    (false, false) => (&mut all.loads, &mut all.shared_loads),
                };
                if access.address.area != Area::Const {
                    add(global, &totals.global);
                    sites.push(totals);
                }
                add_shared(shared, &totals.shared);
                let distributed = match access.store {
                    true => &mut all.distributed_stores,
                    false => &mut all.distributed_loads,
                };
                add_shared(distributed, &totals.distributed);
                // A generic address shows only now what it was.
                let shared = totals.shared[0] + totals.distributed[0];
                if access.address.area == Area::Generic && shared > totals.global.requests {
                    class = if access.store { Class::SharedStore } else { Class::SharedLoad };
                }
            }
            Kind::StoreAsync(op) => {
                let totals = machine.totals(op.site);
                all.async_stores.requests += totals.later.requests;
                all.async_stores.bytes += totals.later.bytes;
                sites.push(totals);
            }
            Kind::Atomic(atomic) => {
                let totals = machine.totals(atomic.site);
                add(&mut all.atomics, &totals.global);
                add_shared(&mut all.shared_stores, &totals.shared);
                add_shared(&mut all.distributed_stores, &totals.distributed);
                sites.push(totals);
            }
            Kind::Copy(copy) => {
                let [load, store] = copy.sites.map(|site| machine.totals(site));
                add(&mut all.loads, &load.global);
                add_shared(&mut all.shared_stores, &store.shared);
                sites.extend([load, store]);
            }
            _ => {}
        }
        let instructions = all.instructions.entry(class).or_default();
        instructions.warps += executed[0];
        instructions.threads += executed[1];
        if by_line {
            for totals in sites {
                let line = totals.line(instruction.source);
                let sum = all.lines.entry(instruction.line).or_default();
                sum.source_line = line.source_line;
                sum.requests += line.requests;
                sum.sectors += line.sectors;
                sum.ideal_sectors += line.ideal_sectors;
                sum.conflicts += line.conflicts;
            }
        }
    }
}
