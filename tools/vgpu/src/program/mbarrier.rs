//! Decodes operations on mbarriers, and stores that tell them of their arrival.
//!
//! The idea: an operation's name says which of its operands are there; where it says neither order nor scope, an
//! arrival releases and a wait acquires, for the block.

use super::decode::{Decoder, Result, width_of};
use crate::counters::Class;
use crate::isa::asynchronous::{Mbarrier, MbarrierKind, Send};
use crate::isa::instruction::{Area, Kind, Order, Scope};
use crate::isa::lanes::{Slot, Width};
use crate::ptx::{Operand, Type};

/// Where an operation's mbarrier lies, and its order.
fn place(kind: MbarrierKind, modifiers: &[&str]) -> Option<(Area, Order)> {
    use MbarrierKind::{Arrive, ArriveExpecting, Wait, WaitParity};
    let mut area = Area::Generic;
    let mut order = Order {
        strong: true,
        acquire: matches!(kind, Wait | WaitParity),
        release: matches!(kind, Arrive | ArriveExpecting),
        scope: Scope::Block,
    };
    for &part in modifiers {
        match part {
            "shared" | "shared::cta" => area = Area::Shared,
            "shared::cluster" => area = Area::Cluster,
            "acquire" if order.acquire => {}
            "release" if order.release => {}
            "relaxed" => (order.acquire, order.release) = (false, false),
            "cta" => order.scope = Scope::Block,
            "cluster" => order.scope = Scope::Cluster,
            "b64" => {}
            _ => return None,
        }
    }
    Some((area, order))
}

impl<'m> Decoder<'m> {
    /// `mbarrier`
    pub(super) fn mbarrier(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<()> {
        let parts: Vec<&str> = opcode.split('.').skip(1).collect();
        let (kind, rest) = match parts[..] {
            ["init", ref rest @ ..] => (MbarrierKind::Init, rest),
            ["inval", ref rest @ ..] => (MbarrierKind::Invalidate, rest),
            ["arrive", "expect_tx", ref rest @ ..] => (MbarrierKind::ArriveExpecting, rest),
            ["arrive", ref rest @ ..] => (MbarrierKind::Arrive, rest),
            ["expect_tx", ref rest @ ..] => (MbarrierKind::Expect, rest),
            ["complete_tx", ref rest @ ..] => (MbarrierKind::Complete, rest),
            ["test_wait" | "try_wait", "parity", ref rest @ ..] => (MbarrierKind::WaitParity, rest),
            ["test_wait" | "try_wait", ref rest @ ..] => (MbarrierKind::Wait, rest),
            _ => return self.fail(format!("{opcode} is not supported")),
        };
        let Some((area, order)) = place(kind, rest) else {
            return self.fail(format!("{opcode} is not supported"));
        };
        let one = self.constant(Width::Word, 1);
        let (result, address, value) = match (kind, operands) {
            (MbarrierKind::Invalidate, [address]) => (None, address, one),
            (MbarrierKind::Init | MbarrierKind::Expect | MbarrierKind::Complete, [address, value]) => {
                (None, address, self.source(value, Width::Word)?)
            }
            (MbarrierKind::Arrive, [state, address]) => {
                (Some(self.result(state, Width::Long)?), address, one)
            }
            (MbarrierKind::Arrive | MbarrierKind::ArriveExpecting, [state, address, value]) => {
                (Some(self.result(state, Width::Long)?), address, self.source(value, Width::Word)?)
            }
            // For how long to wait at most says nothing here.
            (MbarrierKind::Wait, [done, address, state] | [done, address, state, _]) => {
                (Some(self.result(done, Width::Bit)?), address, self.source(state, Width::Long)?)
            }
            (MbarrierKind::WaitParity, [done, address, parity] | [done, address, parity, _]) => {
                (Some(self.result(done, Width::Bit)?), address, self.source(parity, Width::Word)?)
            }
            _ => return self.fail(format!("{opcode} with a wrong number of operands")),
        };
        let address = self.address(address, area)?;
        let site = self.site();
        let mbarrier = Mbarrier { kind, address, value, result, order, site };
        self.emit(Kind::Mbarrier(Box::new(mbarrier)), Some(Class::Barrier));
        Ok(())
    }

    /// `st.async`
    pub(super) fn send(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<()> {
        let mut count = 1;
        let mut element = None;
        let (mut cluster, mut counted) = (false, false);
        for part in opcode.split('.').skip(2) {
            match part {
                "weak" => {}
                "shared::cluster" => cluster = true,
                "mbarrier::complete_tx::bytes" => counted = true,
                "v2" => count = 2,
                "v4" => count = 4,
                part => match Type::of(part) {
                    Some(found) if matches!(found.bytes(), 4 | 8) => element = Some(found),
                    _ => return self.fail(format!("{opcode}: .{part} is not supported")),
                },
            }
        }
        let (Some(element), true) = (element, cluster && counted) else {
            return self.fail(format!("{opcode} is not supported"));
        };
        let [address, value, mbarrier] = operands else {
            return self.fail(format!("{opcode} with a wrong number of operands"));
        };
        let single = std::slice::from_ref(value);
        let parts: &[Operand<'m>] = if let Operand::Vector(parts) = value { parts } else { single };
        if parts.len() != count {
            return self.fail(format!("{opcode} with {} registers", parts.len()));
        }
        let mut registers = [Slot::FALSE; 4];
        for (slot, part) in registers.iter_mut().zip(parts) {
            *slot = self.source(part, width_of(element))?;
        }
        let address = self.address(address, Area::Cluster)?;
        let mbarrier = self.address(mbarrier, Area::Cluster)?;
        let (bytes, count, site) = (element.bytes(), count as u32, self.site());
        let send = Send { address, mbarrier, bytes, count, registers, site };
        self.emit(Kind::Send(Box::new(send)), Some(Class::SharedStore));
        Ok(())
    }
}
