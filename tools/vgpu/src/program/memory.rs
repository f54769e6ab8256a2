//! Decodes loads, stores, atomic operations and asynchronous copies.
//!
//! The idea: their modifiers come in any number but each says one thing, so they are read one by one
//! into a description; caching hints say nothing that matters here.

use super::decode::{Decoder, Name, Result, width_of};
use crate::check::Scope;
use crate::counters::Class;
use crate::isa::instruction::{Access, Address, Area, Atomic, AtomicKind, Copy, Kind, Order};
use crate::isa::lanes::{Slot, Width};
use crate::ptx::{Operand, Space, Type};

/// What the modifiers of a memory instruction say.
struct Modifiers<'a> {
    area: Area,
    order: Order,
    nc: bool,
    relaxed: bool,
    count: u32,
    element: Option<Type>,
    operation: Option<&'a str>,
}

/// Reads the modifiers; the error is the one that is not known.
fn modifiers(opcode: &str) -> std::result::Result<Modifiers<'_>, &str> {
    let mut all = Modifiers {
        area: Area::Generic,
        order: Order { scope: Scope::Device, ..Order::default() },
        nc: false,
        relaxed: false,
        count: 1,
        element: None,
        operation: None,
    };
    for part in opcode.split('.').skip(1) {
        match part {
            "global" => all.area = Area::Global,
            "const" => all.area = Area::Const,
            "shared" | "shared::cta" => all.area = Area::Shared,
            "shared::cluster" => all.area = Area::Cluster,
            "local" => all.area = Area::Local,
            "param" | "param::entry" | "param::func" => all.area = Area::Param,
            "volatile" | "mmio" => all.order.strong = true,
            "relaxed" => (all.order.strong, all.relaxed) = (true, true),
            "acquire" => (all.order.strong, all.order.acquire) = (true, true),
            "release" => (all.order.strong, all.order.release) = (true, true),
            "acq_rel" => all.order = Order { strong: true, acquire: true, release: true, ..all.order },
            "cta" => all.order.scope = Scope::Block,
            "cluster" => all.order.scope = Scope::Cluster,
            "gpu" | "sys" | "weak" => {}
            "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" => {}
            part if part.starts_with("L1::") || part.starts_with("L2::") => {}
            "nc" => all.nc = true,
            "v2" => all.count = 2,
            "v4" => all.count = 4,
            "v8" => all.count = 8,
            "noftz" => {}
            "add" | "min" | "max" | "and" | "or" | "xor" | "exch" | "cas" | "inc" | "dec" => {
                all.operation = Some(part);
            }
            part => match Type::of(part) {
                Some(element) => all.element = Some(element),
                None => return Err(part),
            },
        }
    }
    Ok(all)
}

impl<'m> Decoder<'m> {
    /// Whether the opcode is one of memory.
    pub fn memory(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<bool> {
        let mnemonic = opcode.split('.').next().unwrap_or_default();
        match mnemonic {
            "st" if opcode.starts_with("st.async.") => self.store_async(opcode, operands)?,
            "mbarrier" => self.mbarrier(opcode, operands)?,
            "ld" | "ldu" | "st" => self.access(opcode, operands)?,
            "atom" | "red" => self.atomic(opcode, operands)?,
            "cp" => self.copy(opcode, operands)?,
            "prefetch" | "prefetchu" | "applypriority" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn site(&mut self) -> u32 {
        self.sites += 1;
        self.sites - 1
    }

    fn modifiers<'o>(&self, opcode: &'o str) -> Result<Modifiers<'o>> {
        match modifiers(opcode) {
            Ok(all) => Ok(all),
            Err(part) => self.fail(format!("{opcode}: .{part} is not supported")),
        }
    }

    pub(super) fn address(&mut self, operand: &Operand<'m>, area: Area) -> Result<Address> {
        let (base, offset) = match operand {
            Operand::Address(base, offset) => (*base, *offset as u64),
            _ => return self.fail("expected an address"),
        };
        let Some(base) = base else { return Ok(Address { base: None, long: true, offset, area }) };
        match self.lookup(base) {
            Some(Name::Register(slot, width)) => {
                // Parameters of a device function are in local memory.
                let inlined = self.return_label.is_some() && area == Area::Param;
                let area = if inlined { Area::Local } else { area };
                Ok(Address { base: Some(slot), long: width == Width::Long, offset, area })
            }
            Some(Name::Variable(space, at)) => {
                let space = match space {
                    Space::Global => Area::Global,
                    Space::Const => Area::Const,
                    Space::Shared => Area::Shared,
                    Space::Local => Area::Local,
                    Space::Param => Area::Param,
                };
                let fits = area == space
                    || area == Area::Generic
                    || (area == Area::Param && space == Area::Local)
                    || (area == Area::Cluster && space == Area::Shared)
                    || (area == Area::Global && space == Area::Const);
                if !fits {
                    return self.fail(format!("{base} is not in this instruction's space"));
                }
                Ok(Address { base: None, long: true, offset: at.wrapping_add(offset), area: space })
            }
            _ => self.fail(format!("{base} is not declared")),
        }
    }

    fn access(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<()> {
        let all = self.modifiers(opcode)?;
        let store = opcode.starts_with("st");
        let Some(element) = all.element else { return self.fail(format!("{opcode} has no type")) };
        let (address, value) = match operands {
            [value, address] if !store => (address, value),
            [address, value] if store => (address, value),
            _ => return self.fail(format!("{opcode} with other operands than a register and an address")),
        };
        let address = self.address(address, all.area)?;
        let single;
        let parts: &[Operand<'m>] = match value {
            Operand::Vector(parts) => parts,
            value => {
                single = [value.clone()];
                &single
            }
        };
        if parts.len() != all.count as usize {
            return self.fail(format!("{opcode} with {} registers", parts.len()));
        }
        let bytes = element.bytes();
        if bytes == 0 || bytes > 8 {
            return self.fail(format!("{opcode} is not supported"));
        }
        // A register may be wider than what is loaded or stored.
        let mut long = bytes == 8;
        for part in parts {
            if let Operand::Name(name) = part
                && *name != "_"
                && let Some(Name::Register(_, Width::Long)) = self.lookup(name)
            {
                long = true;
            }
        }
        let width = if long { Width::Long } else { Width::Word };
        let mut registers = [Slot::FALSE; 8];
        for (slot, part) in registers.iter_mut().zip(parts) {
            *slot = if store { self.source(part, width)? } else { self.result(part, width)? };
        }
        let class = match (address.area, store) {
            (Area::Global | Area::Generic, false) => Class::GlobalLoad,
            (Area::Global | Area::Generic, true) => Class::GlobalStore,
            (Area::Shared | Area::Cluster, false) => Class::SharedLoad,
            (Area::Shared | Area::Cluster, true) => Class::SharedStore,
            _ => Class::Other,
        };
        let signed = matches!(element, Type::Int { signed: true, .. });
        let count = all.count;
        let (nc, order, site) = (all.nc, all.order, self.site());
        let handover = all.relaxed && order.scope == Scope::Device && element == Type::Float { bytes: 4 };
        let access =
            Access { store, address, bytes, count, signed, long, registers, nc, order, handover, site };
        self.emit(Kind::Access(Box::new(access)), Some(class));
        Ok(())
    }

    /// Stores the result of a function that does nothing.
    pub(super) fn store_local_zero(&mut self, at: u64) {
        let zero = self.constant(Width::Word, 0);
        let access = Access {
            store: true,
            address: Address { base: None, long: true, offset: at, area: Area::Local },
            bytes: 4,
            count: 1,
            signed: false,
            long: false,
            registers: [zero; 8],
            nc: false,
            order: Order::default(),
            handover: false,
            site: self.site(),
        };
        self.emit(Kind::Access(Box::new(access)), None);
    }

    fn atomic(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<()> {
        let all = self.modifiers(opcode)?;
        let (Some(operation), Some(element)) = (all.operation, all.element) else {
            return self.fail(format!("{opcode} is not supported"));
        };
        let signed = matches!(element, Type::Int { signed: true, .. });
        let kind = match (operation, element) {
            ("add", Type::Float { bytes: 4 }) => AtomicKind::AddF32,
            ("add", Type::Float { bytes: 8 }) => AtomicKind::AddF64,
            (_, Type::Int { bytes: 4 | 8, .. }) => match operation {
                "add" => AtomicKind::Add,
                "min" if signed => AtomicKind::MinS,
                "min" => AtomicKind::MinU,
                "max" if signed => AtomicKind::MaxS,
                "max" => AtomicKind::MaxU,
                "and" => AtomicKind::And,
                "or" => AtomicKind::Or,
                "xor" => AtomicKind::Xor,
                "exch" => AtomicKind::Exchange,
                "cas" => AtomicKind::CompareSwap,
                "inc" => AtomicKind::Increment,
                _ => AtomicKind::Decrement,
            },
            _ => return self.fail(format!("{opcode} is not supported")),
        };
        if all.count != 1 {
            return self.fail(format!("{opcode} is not supported"));
        }
        let width = width_of(element);
        let (result, operands) = match operands {
            [result, rest @ ..] if opcode.starts_with("atom") => (Some(self.result(result, width)?), rest),
            rest => (None, rest),
        };
        let (address, value, swap) = match operands {
            [address, value] => (address, value, None),
            [address, value, swap] if kind == AtomicKind::CompareSwap => (address, value, Some(swap)),
            _ => return self.fail(format!("{opcode} with a wrong number of operands")),
        };
        let address = self.address(address, all.area)?;
        let value = self.source(value, width)?;
        let swap = match swap {
            Some(swap) => self.source(swap, width)?,
            None => value,
        };
        let order = Order { strong: true, ..all.order };
        let (bytes, site) = (element.bytes(), self.site());
        let atomic = Atomic { kind, address, bytes, result, value, swap, order, site };
        self.emit(Kind::Atomic(Box::new(atomic)), Some(Class::Atomic));
        Ok(())
    }

    fn copy(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<()> {
        match (opcode, operands) {
            ("cp.async.commit_group", _) => self.emit(Kind::CopyCommit, Some(Class::Other)),
            ("cp.async.wait_all", _) => {
                // Of what belongs to no group yet too.
                self.emit(Kind::CopyCommit, None);
                self.emit(Kind::CopyWait(0), Some(Class::Other));
            }
            ("cp.async.wait_group", [Operand::Int(groups)]) => {
                self.emit(Kind::CopyWait(*groups as u32), Some(Class::Other));
            }
            (name, [to, from, Operand::Int(bytes), rest @ ..])
                if name.starts_with("cp.async.ca.shared") || name.starts_with("cp.async.cg.shared") =>
            {
                let to = self.address(to, Area::Shared)?;
                let from = self.address(from, Area::Global)?;
                let present = match rest {
                    [] => None,
                    [present] => Some(self.source(present, Width::Word)?),
                    _ => return self.fail(format!("{opcode} with a cache policy is not supported")),
                };
                let bytes = *bytes as u32;
                if !matches!((name.starts_with("cp.async.cg"), bytes), (_, 16) | (false, 4 | 8)) {
                    return self.fail(format!("{opcode} of {bytes} bytes"));
                }
                let sites = [self.site(), self.site()];
                let copy = Copy { to, from, bytes, present, sites };
                self.emit(Kind::Copy(Box::new(copy)), Some(Class::GlobalLoad));
            }
            _ => return self.fail(format!("{opcode} is not supported")),
        }
        Ok(())
    }
}
