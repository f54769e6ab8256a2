//! Stores that arrive later, and that an mbarrier counts.
//!
//! The idea: a lane's store is a message with its data and the name of an mbarrier. Without a seed it arrives at once;
//! with one, messages are on their way for a while, and pass each other.

use super::access::addresses;
use super::block::Block;
use super::cluster::{Cluster, ranked};
use super::machine::Machine;
use super::random::Random;
use super::warp::At;
use crate::fault::{Fault, FaultKind};
use crate::isa::asynchronous::Send;
use crate::isa::lanes::{Lanes, WARP};

/// Bytes of a message at most.
const MOST: usize = 32;

/// A store on its way.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The ranks in the cluster of sender and receiver.
    ranks: [usize; 2],
    /// In its shared memory, the data's place.
    to: u64,
    /// The same, the mbarrier's.
    mbarrier: u64,
    data: [u8; MOST],
    bytes: u64,
    /// Where it was sent.
    at: At,
}

impl Machine<'_> {
    /// `st.async`
    pub fn send(&mut self, block: &mut Block, lanes: &Lanes, send: &Send, at: At) -> Result<(), Fault> {
        // SAFETY: the addresses are operands of this kernel.
        let (to, mbarriers) = unsafe { (addresses(lanes, &send.address), addresses(lanes, &send.mbarrier)) };
        let width = u64::from(send.bytes * send.count);
        let mut site = self.take_site(send.site);
        site.totals.messages[0] += 1;
        site.totals.messages[1] += width * u64::from(at.mask.count_ones());
        self.put_site(send.site, site);
        let rank = |address: u64| ranked(address).0.unwrap_or(block.rank);
        for lane in (0..WARP as u32).filter(|lane| at.mask >> lane & 1 == 1) {
            let [data, mbarrier] = [to, mbarriers].map(|a| rank(a[lane as usize]));
            if data != mbarrier {
                let what = format!(
                    "data for block {data} of the cluster, which an mbarrier of block {mbarrier} is to count"
                );
                return Err(self.fault(FaultKind::Mbarrier, block, at, lane, Some(to[lane as usize]), &what));
            }
        }
        let own = block.rank;
        self.by_rank(block, at, &to, width, |machine, block, at, within| {
            let mut released = None;
            for lane in (0..WARP).filter(|lane| at.mask >> lane & 1 == 1) {
                let of = At { mask: 1 << lane, ..at };
                if !within[lane].is_multiple_of(width) {
                    return Err(machine.misaligned(block, of, within, width));
                }
                if !block.shared.holds(within[lane], within[lane].saturating_add(width)) {
                    let what =
                        format!("{width} bytes out of bounds of {} of shared memory", block.shared.len());
                    let kind = FaultKind::OutOfBounds;
                    return Err(machine.fault(kind, block, at, lane as u32, Some(within[lane]), &what));
                }
                let mut data = [0; MOST];
                for (k, &slot) in send.registers[..send.count as usize].iter().enumerate() {
                    // SAFETY: the register is one of this kernel, of the elements' width.
                    let value = unsafe { lanes.values(slot, send.bytes == 8)[lane] };
                    let at = k * send.bytes as usize;
                    data[at..at + send.bytes as usize]
                        .copy_from_slice(&value.to_le_bytes()[..send.bytes as usize]);
                }
                let ranks = [own, ranked(to[lane]).0.unwrap_or(own)];
                let mbarrier = ranked(mbarriers[lane]).1;
                let message = Message { ranks, to: within[lane], mbarrier, data, bytes: width, at: of };
                if machine.order.on && released != Some(mbarrier) {
                    released = Some(mbarrier);
                    let key = (block.home + 1) << 48 | mbarrier;
                    machine.order.publish(&mut block.order, at.warp, key, true, false);
                }
                match machine.schedule.seed {
                    None => machine.arrives_at(block, &message)?,
                    Some(_) => machine.cluster.messages.push(message),
                }
            }
            Ok(())
        })
    }

    /// A block's message arrives.
    fn message_arrives(&mut self, block: &mut Block, message: &Message) -> Result<(), Fault> {
        let [own, rank] = message.ranks;
        let mut receiver = if rank == own { None } else { self.cluster.blocks[rank].take() };
        if receiver.as_ref().map_or(block.done(), |receiver| receiver.done()) {
            let [x, y, z] = receiver.as_ref().map_or(block.place, |receiver| receiver.place);
            let what = format!("a store that arrives in block ({x},{y},{z}), which has exited");
            let (at, lane) = (message.at, message.at.mask.trailing_zeros());
            return Err(self.fault(FaultKind::UseAfterFree, block, at, lane, Some(message.to), &what));
        }
        receiver.iter_mut().for_each(|receiver| block.exchange(receiver));
        let done = self.arrives_at(block, message);
        receiver.iter_mut().for_each(|receiver| block.exchange(receiver));
        if let Some(receiver) = receiver {
            self.cluster.blocks[rank] = Some(receiver);
        }
        done
    }

    /// The same, in the shared memory that the block has for now.
    fn arrives_at(&mut self, block: &mut Block, message: &Message) -> Result<(), Fault> {
        let data = &message.data[..message.bytes as usize];
        block.shared.bytes_mut(message.to, message.bytes).copy_from_slice(data);
        block.shared.mark_written(message.to, message.bytes);
        self.count(block, message.at, message.mbarrier, 0, -(message.bytes as i64))
    }

    /// Some messages of a cluster, of which there are, arrive; at least one if `all` wait for them.
    pub fn some_arrive(
        &mut self,
        cluster: &mut Cluster,
        random: &mut Random,
        all: bool,
    ) -> Result<(), Fault> {
        /// One in so many turns none arrives.
        const NONE: u64 = 2;
        if !all && random.below(NONE) == 0 {
            return Ok(());
        }
        let most = random.below(8);
        for _ in 0..1 + random.below(1 << most) {
            if cluster.messages.is_empty() {
                break;
            }
            let next = random.below(cluster.messages.len() as u64) as usize;
            let message = cluster.messages.swap_remove(next);
            self.with(cluster, message.ranks[0], |machine, block| machine.message_arrives(block, &message))?;
        }
        Ok(())
    }
}
