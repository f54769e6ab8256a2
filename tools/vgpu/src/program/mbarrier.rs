//! Decodes barriers in shared memory (mbarriers), and the stores that complete at them.
//!
//! The idea: an operation is named by its second word; scopes and caching hints make no difference to what it does.

use super::decode::{Decoder, Result, width_of};
use crate::counters::Class;
use crate::isa::instruction::{Area, Kind, Mbarrier, MbarrierKind, StoreAsync};
use crate::isa::lanes::{Slot, Width};
use crate::ptx::{Operand, Type};

impl<'m> Decoder<'m> {
    /// `mbarrier`
    pub fn mbarrier(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<()> {
        let has = |part: &str| opcode.split('.').any(|p| p == part);
        let known = |part: &str| {
            [
                "mbarrier",
                "init",
                "inval",
                "arrive",
                "expect_tx",
                "complete_tx",
                "test_wait",
                "try_wait",
                "parity",
            ]
            .contains(&part)
                || ["acquire", "release", "relaxed", "cta", "cluster", "b64"].contains(&part)
                || ["shared", "shared::cta", "shared::cluster"].contains(&part)
        };
        if let Some(part) = opcode.split('.').find(|&part| !known(part)) {
            return self.fail(format!("{opcode}: .{part} is not supported"));
        }
        let area = match () {
            () if has("shared::cluster") => Area::Cluster,
            () if has("shared") || has("shared::cta") => Area::Shared,
            () => Area::Generic,
        };
        let (zero, one) = (self.constant(Width::Word, 0), self.constant(Width::Word, 1));
        let mut result = None;
        let (kind, address) = match (opcode.split('.').nth(1).unwrap_or_default(), operands) {
            ("init", [address, count]) => (MbarrierKind::Init(self.source(count, Width::Word)?), address),
            ("inval", [address]) => (MbarrierKind::Invalidate, address),
            ("expect_tx", [address, bytes]) => {
                (MbarrierKind::Arrive { count: zero, bytes: self.source(bytes, Width::Word)? }, address)
            }
            ("complete_tx", [address, bytes]) => {
                (MbarrierKind::Complete(self.source(bytes, Width::Word)?), address)
            }
            ("arrive", [state, address, rest @ ..]) => {
                result = Some(self.result(state, Width::Long)?);
                let (count, bytes) = match rest {
                    [] => (one, zero),
                    [bytes] if has("expect_tx") => (one, self.source(bytes, Width::Word)?),
                    [count] => (self.source(count, Width::Word)?, zero),
                    _ => return self.fail(format!("{opcode} with a wrong number of operands")),
                };
                (MbarrierKind::Arrive { count, bytes }, address)
            }
            ("test_wait" | "try_wait", [done, address, phase]) | ("try_wait", [done, address, phase, _]) => {
                result = Some(self.result(done, Width::Bit)?);
                let parity = has("parity");
                let phase = self.source(phase, if parity { Width::Word } else { Width::Long })?;
                (MbarrierKind::Test { phase, parity, tries: has("try_wait") }, address)
            }
            _ => return self.fail(format!("{opcode} is not supported")),
        };
        let address = self.address(address, area)?;
        let (strong, site) = (!has("relaxed"), self.site());
        let mbarrier = Mbarrier { kind, address, result, strong, site };
        self.emit(Kind::Mbarrier(Box::new(mbarrier)), Some(Class::Barrier));
        Ok(())
    }

    /// `st.async`
    pub fn store_async(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<()> {
        let (mut count, mut element) = (1, None);
        for part in opcode.split('.').skip(2) {
            match part {
                "weak" | "shared::cluster" | "mbarrier::complete_tx::bytes" => {}
                "v2" => count = 2,
                "v4" => count = 4,
                part => element = Type::of(part),
            }
        }
        let [to, value, barrier] = operands else {
            return self.fail(format!("{opcode} with a wrong number of operands"));
        };
        let bytes = element.map_or(0, Type::bytes);
        let (Some(element), 4 | 8) = (element, bytes) else {
            return self.fail(format!("{opcode} is not supported"));
        };
        if !opcode.contains(".shared::cluster.mbarrier::complete_tx::bytes") || bytes * count > 16 {
            return self.fail(format!("{opcode} is not supported"));
        }
        let parts = match value {
            Operand::Vector(parts) => parts.clone(),
            value => vec![value.clone()],
        };
        if parts.len() != count as usize {
            return self.fail(format!("{opcode} with {} registers", parts.len()));
        }
        let mut registers = [Slot::FALSE; 4];
        for (slot, part) in registers.iter_mut().zip(&parts) {
            *slot = self.source(part, width_of(element))?;
        }
        let (to, barrier) = (self.address(to, Area::Cluster)?, self.address(barrier, Area::Cluster)?);
        let site = self.site();
        let store = StoreAsync { to, barrier, bytes, count, registers, site };
        self.emit(Kind::StoreAsync(Box::new(store)), Some(Class::SharedStore));
        Ok(())
    }
}
