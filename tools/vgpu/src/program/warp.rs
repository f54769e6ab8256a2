//! Decodes control, barriers and exchanges between lanes.
//!
//! The idea: a branch names its label by number until all code is there.

use super::decode::{Decoder, Result};
use crate::check::Scope;
use crate::counters::Class;
use crate::isa::instruction::{
    AtomicKind, Barrier, BarrierKind, Exchange, ExchangeKind, Kind, Map, Shuffle, ShuffleMode,
};
use crate::isa::lanes::{Slot, Width};
use crate::ptx::Operand;

impl<'m> Decoder<'m> {
    /// Whether the opcode is one of control.
    pub fn control(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<bool> {
        let mut parts = opcode.split('.');
        let mnemonic = parts.next().unwrap_or_default();
        match (mnemonic, operands) {
            ("bra", [Operand::Name(label)]) => {
                let label = self.label(label)?;
                self.emit(Kind::Branch(label), Some(Class::Branch));
            }
            ("brx", [index, Operand::Name(table)]) => {
                let Some(names) = self.targets.get(table).cloned() else {
                    return self.fail(format!("there is no table {table}"));
                };
                let index = self.source(index, Width::Word)?;
                let targets: Result<Vec<u32>> = names.iter().map(|name| self.label(name)).collect();
                self.emit(Kind::BranchTable(index, targets?.into()), Some(Class::Branch));
            }
            ("ret", _) => match self.return_label {
                Some(label) => self.emit(Kind::Branch(label), Some(Class::Branch)),
                None => self.emit(Kind::Exit, Some(Class::Branch)),
            },
            ("exit", _) => self.emit(Kind::Exit, Some(Class::Branch)),
            ("trap", _) => self.emit(Kind::Trap("the kernel executed trap"), Some(Class::Branch)),
            ("brkpt" | "pmevent" | "setmaxnreg", _) => {}
            ("griddepcontrol", []) => self.launch_control(opcode)?,
            ("nanosleep", _) => self.emit(Kind::Sleep, Some(Class::Other)),
            ("call", _) => self.call_with(operands)?,
            ("membar", _) => self.fence(opcode),
            ("fence", _) if opcode.contains(".proxy") => {}
            ("fence", _) => self.fence(opcode),
            ("barrier", []) => self.cluster_barrier(opcode)?,
            ("bar" | "barrier", _) => self.barrier(opcode, operands)?,
            ("mapa", [to, from, rank]) => self.map(opcode, to, from, Some(rank))?,
            ("getctarank", [to, from]) => self.map(opcode, to, from, None)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn fence(&mut self, opcode: &str) {
        let scope = match opcode.rsplit('.').next() {
            Some("cta") => Scope::Block,
            Some("cluster") => Scope::Cluster,
            _ => Scope::Device,
        };
        self.emit(Kind::Fence(scope), Some(Class::Barrier));
    }

    fn call_with(&mut self, operands: &[Operand<'m>]) -> Result<()> {
        let (results, name, arguments): (&[&'m str], _, &[&'m str]) = match operands {
            [Operand::Name(name)] => (&[], name, &[]),
            [Operand::Name(name), Operand::List(arguments)] => (&[], name, arguments),
            [Operand::List(results), Operand::Name(name)] => (results, name, &[]),
            [Operand::List(results), Operand::Name(name), Operand::List(arguments)] => {
                (results, name, arguments)
            }
            _ => return self.fail("calls through pointers are not supported"),
        };
        self.call(name, results, arguments)
    }

    fn barrier(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<()> {
        if opcode.starts_with("bar.warp.sync") {
            let [members] = operands else { return self.fail("expected a mask") };
            let members = self.source(members, Width::Word)?;
            self.emit(Kind::WarpSync(members), Some(Class::Barrier));
            return Ok(());
        }
        let has = |part| opcode.split('.').any(|p| p == part);
        let kind = match () {
            () if has("sync") => BarrierKind::Sync,
            () if has("arrive") => BarrierKind::Arrive,
            () if has("popc") => BarrierKind::Count,
            () if has("and") => BarrierKind::And,
            () if has("or") => BarrierKind::Or,
            () => return self.fail(format!("{opcode} is not supported")),
        };
        let reduces = !matches!(kind, BarrierKind::Sync | BarrierKind::Arrive);
        let (result, operands, predicate) = match operands {
            [result, middle @ .., predicate] if reduces => {
                let width = if kind == BarrierKind::Count { Width::Word } else { Width::Bit };
                (self.result(result, width)?, middle, self.source(predicate, Width::Bit)?)
            }
            operands => (Slot::FALSE, operands, Slot::FALSE),
        };
        let (id, threads) = match operands {
            [id] => (self.source(id, Width::Word)?, None),
            [id, threads] => (self.source(id, Width::Word)?, Some(self.source(threads, Width::Word)?)),
            _ => return self.fail(format!("{opcode} with a wrong number of operands")),
        };
        let barrier = Barrier { kind, id, threads, predicate, result };
        self.emit(Kind::Barrier(Box::new(barrier)), Some(Class::Barrier));
        Ok(())
    }

    fn cluster_barrier(&mut self, opcode: &str) -> Result<()> {
        let kind = match opcode.strip_suffix(".aligned").unwrap_or(opcode) {
            "barrier.cluster.arrive" | "barrier.cluster.arrive.release" => Kind::ClusterArrive(true),
            "barrier.cluster.arrive.relaxed" => Kind::ClusterArrive(false),
            "barrier.cluster.wait" | "barrier.cluster.wait.acquire" => Kind::ClusterWait,
            _ => return self.fail(format!("{opcode} is not supported")),
        };
        self.emit(kind, Some(Class::Barrier));
        Ok(())
    }

    /// `griddepcontrol`
    fn launch_control(&mut self, opcode: &str) -> Result<()> {
        let kind = match opcode {
            "griddepcontrol.wait" => Kind::LaunchWait,
            "griddepcontrol.launch_dependents" => Kind::LaunchDependents,
            _ => return self.fail(format!("{opcode} is not supported")),
        };
        let module = self.module;
        if module.version < (7, 8) || module.architecture() < 90 {
            return self.fail(format!("{opcode} is new in PTX 7.8 and needs sm_90"));
        }
        self.emit(kind, Some(Class::Other));
        Ok(())
    }

    /// `mapa`, and `getctarank`, which has no rank among its operands.
    fn map(
        &mut self,
        opcode: &str,
        to: &Operand<'m>,
        from: &Operand<'m>,
        rank: Option<&Operand<'m>>,
    ) -> Result<()> {
        let long = opcode.ends_with(".u64");
        if !long && !opcode.ends_with(".u32") {
            return self.fail(format!("{opcode} is not supported"));
        }
        let width = if long { Width::Long } else { Width::Word };
        let address = self.source(from, width)?;
        let result = self.result(to, if rank.is_some() { width } else { Width::Word })?;
        let rank = rank.map(|rank| self.source(rank, Width::Word)).transpose()?;
        self.emit(Kind::Map(Box::new(Map { result, address, rank, long })), Some(Class::Integer));
        Ok(())
    }

    /// Whether the opcode exchanges values between lanes.
    pub fn exchange(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<bool> {
        let parts: Vec<&str> = opcode.split('.').collect();
        let integer_signed = parts.last() == Some(&"s32");
        let kind = match parts[..] {
            ["shfl", "sync", mode, "b32"] => {
                let mode = match mode {
                    "up" => ShuffleMode::Up,
                    "down" => ShuffleMode::Down,
                    "bfly" => ShuffleMode::Butterfly,
                    "idx" => ShuffleMode::Index,
                    _ => return Ok(false),
                };
                return self.shuffle(mode, operands).map(|()| true);
            }
            ["vote", "sync", "all", "pred"] => ExchangeKind::All,
            ["vote", "sync", "any", "pred"] => ExchangeKind::Any,
            ["vote", "sync", "uni", "pred"] => ExchangeKind::Uniform,
            ["vote", "sync", "ballot", "b32"] => ExchangeKind::Ballot,
            ["match", "any", "sync", _] => ExchangeKind::MatchAny,
            ["match", "all", "sync", _] => ExchangeKind::MatchAll,
            ["redux", "sync", operation, "u32" | "s32" | "b32"] => ExchangeKind::Reduce(match operation {
                "add" => AtomicKind::Add,
                "min" if integer_signed => AtomicKind::MinS,
                "min" => AtomicKind::MinU,
                "max" if integer_signed => AtomicKind::MaxS,
                "max" => AtomicKind::MaxU,
                "and" => AtomicKind::And,
                "or" => AtomicKind::Or,
                "xor" => AtomicKind::Xor,
                _ => return Ok(false),
            }),
            ["activemask", "b32"] => ExchangeKind::ActiveMask,
            ["elect", "sync"] => ExchangeKind::Elect,
            _ => return Ok(false),
        };
        let bit = matches!(kind, ExchangeKind::All | ExchangeKind::Any | ExchangeKind::Uniform);
        let long = parts.last() == Some(&"b64");
        let (to, rest) = match operands {
            [to, rest @ ..] => (to, rest),
            [] => return self.fail(format!("{opcode} without operands")),
        };
        let (result, predicate) = self.pair(to, if bit { Width::Bit } else { Width::Word }, Width::Bit)?;
        let (value, members) = match (kind, rest) {
            (ExchangeKind::ActiveMask, []) => (Slot::FALSE, None),
            (ExchangeKind::Elect, [members]) => (Slot::FALSE, Some(self.source(members, Width::Word)?)),
            (_, [value, members]) => {
                let width = match kind {
                    ExchangeKind::Ballot => Width::Bit,
                    _ if bit => Width::Bit,
                    _ if long => Width::Long,
                    _ => Width::Word,
                };
                (self.source(value, width)?, Some(self.source(members, Width::Word)?))
            }
            _ => return self.fail(format!("{opcode} with a wrong number of operands")),
        };
        let exchange = Exchange { kind, result, predicate, value, long, members };
        self.emit(Kind::Exchange(Box::new(exchange)), Some(Class::Warp));
        Ok(true)
    }

    /// `d|p`, of which either may be missing.
    fn pair(&mut self, to: &Operand<'m>, first: Width, second: Width) -> Result<(Slot, Slot)> {
        match to {
            Operand::Pair(a, b) => {
                Ok((self.result(&Operand::Name(a), first)?, self.result(&Operand::Name(b), second)?))
            }
            to => Ok((self.result(to, first)?, self.temporary(second))),
        }
    }

    fn shuffle(&mut self, mode: ShuffleMode, operands: &[Operand<'m>]) -> Result<()> {
        let [to, value, lane, clamp, members] = operands else {
            return self.fail("a shuffle with a wrong number of operands");
        };
        let (result, valid) = self.pair(to, Width::Word, Width::Bit)?;
        let shuffle = Shuffle {
            mode,
            result,
            valid,
            value: self.source(value, Width::Word)?,
            lane: self.source(lane, Width::Word)?,
            clamp: self.source(clamp, Width::Word)?,
            members: self.source(members, Width::Word)?,
        };
        self.emit(Kind::Shuffle(Box::new(shuffle)), Some(Class::Warp));
        Ok(())
    }
}
