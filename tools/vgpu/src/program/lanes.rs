//! Decodes what acts on each lane on its own: rows of the table, with their modifiers.
//!
//! The idea: an opcode that is a row's name is that row. Otherwise modifiers are taken off it, `.ftz`,
//! `.sat`, `.relu`, a comparison's combination, and become operations before or after the row.

use super::decode::{Decoder, Name, Result, width_of};
use crate::isa::instruction::Kind;
use crate::isa::lanes::{Slot, Width};
use crate::isa::row::Row;
use crate::isa::table;
use crate::memory::window;
use crate::ptx::{Operand, Type};

impl<'m> Decoder<'m> {
    /// One instruction of any kind.
    pub fn instruction(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<()> {
        let mnemonic = opcode.split('.').next().unwrap_or_default();
        let outside = super::OUTSIDE_THE_TABLE.contains(&mnemonic)
            && (self.control(opcode, operands)?
                || self.memory(opcode, operands)?
                || self.exchange(opcode, operands)?
                || self.formed(opcode, operands)?);
        if outside || self.lanes(opcode, operands)? {
            return Ok(());
        }
        self.fail(format!("{opcode} is not supported"))
    }

    /// Whether the opcode is one that rows are put together for, by its operands' form.
    fn formed(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<bool> {
        let (mnemonic, modifiers) = opcode.split_once('.').unwrap_or((opcode, ""));
        match (mnemonic, operands) {
            ("mov", [to, from]) => self.mov(opcode, to, from)?,
            ("setp", [to, rest @ ..]) => self.setp(modifiers, to, rest)?,
            ("set", [to, rest @ ..]) => self.set(modifiers, to, rest)?,
            ("cvta", [to, from]) => self.cvta(modifiers, to, from)?,
            ("isspacep", [to, from]) => self.isspacep(modifiers, to, from)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn lanes(&mut self, opcode: &str, operands: &[Operand<'m>]) -> Result<bool> {
        let (mnemonic, modifiers) = opcode.split_once('.').unwrap_or((opcode, ""));
        if table::INTERNAL.contains(&mnemonic) {
            return Ok(false);
        }
        if let ("cvt", [to, from]) = (mnemonic, operands)
            && modifiers.contains("sat.")
            && self.saturating(modifiers, to, from)?
        {
            return Ok(true);
        }
        if let Some(row) = table::find(opcode) {
            return self.row(row, operands, [false; 3]).map(|()| true);
        }
        let mut base = opcode.to_string();
        let modifiers = ["ftz", "sat", "relu"].map(|name| take_modifier(&mut base, name));
        match table::find(&base) {
            Some(row) => self.row(row, operands, modifiers).map(|()| true),
            None => Ok(false),
        }
    }

    /// A row with `.ftz`, `.sat` and `.relu` around it.
    fn row(&mut self, row: &Row, operands: &[Operand<'m>], [ftz, sat, relu]: [bool; 3]) -> Result<()> {
        let [to, from @ ..] = operands else { return self.fail("an instruction without operands") };
        if from.len() != row.sources.len() {
            return self.fail(format!("expected {} operands", row.sources.len() + 1));
        }
        let mut types = row.names[0].rsplit('.');
        let source_type = types.next().unwrap_or_default();
        let convert = row.names[0].starts_with("cvt.");
        let result_type = if convert { types.next().unwrap_or_default() } else { source_type };
        // What `slct` chooses between it does not touch; only what it compares is a number.
        let selects = row.names[0].starts_with("slct.");
        let flushes = result_type == "f32" && row.result == Width::Word && !selects;
        if ftz && source_type != "f32" && !flushes {
            return self.fail(".ftz on this type is not supported");
        }
        if relu && !(convert && source_type == "f32") {
            return self.fail(".relu on this type is not supported");
        }
        let mut sources = Vec::with_capacity(from.len());
        for (k, (operand, &width)) in from.iter().zip(row.sources).enumerate() {
            let mut slot = self.source(operand, width)?;
            if width == Width::Word && source_type == "f32" && (!selects || k == 2) {
                if ftz {
                    slot = self.helper("flush.f32", &[slot]);
                }
                if relu {
                    slot = self.helper("relu.f32", &[slot]);
                }
            }
            sources.push(slot);
        }
        let result = self.result(to, row.result)?;
        let mut after = Vec::new();
        if row.approximate() {
            after.push("shake.f32");
        }
        if ftz && flushes {
            after.push("flush.f32");
        }
        match (result_type, row.result) {
            _ if !sat => {}
            ("f32", Width::Word) if !selects => after.push("saturate.f32"),
            ("f64", Width::Long) => after.push("saturate.f64"),
            _ => return self.fail(".sat on this type is not supported"),
        }
        let Some((last, before)) = after.split_last() else {
            self.emit_row(row, result, &sources, true);
            return Ok(());
        };
        let mut value = self.temporary(row.result);
        self.emit_row(row, value, &sources, true);
        for name in before {
            value = self.helper(name, &[value]);
        }
        self.emit_row(table::find(last).expect("an internal row"), result, &[value], false);
        Ok(())
    }

    fn named(&mut self, name: &str, result: Slot, sources: &[Slot], counted: bool) {
        self.emit_row(
            table::find(name).expect("the decoder names rows that exist"),
            result,
            sources,
            counted,
        );
    }

    fn mov(&mut self, opcode: &str, to: &Operand<'m>, from: &Operand<'m>) -> Result<()> {
        let Some(element) = Type::of(opcode.rsplit('.').next().unwrap_or_default()) else {
            return self.fail(format!("{opcode} is not supported"));
        };
        let width = width_of(element);
        match (to, from) {
            (Operand::Vector(parts), whole) => {
                let name = match (element.bytes(), parts.len()) {
                    (4, 2) => "unpack.b16.b32",
                    (8, 2) => "unpack.b32.b64",
                    (8, 4) => "unpack.b16.b64",
                    _ => return self.fail("this vector does not fit its register"),
                };
                let mut whole = self.source(whole, width)?;
                // A part may be the whole's own register.
                whole = self.helper(if width == Width::Long { "mov.b64" } else { "mov.b32" }, &[whole]);
                let mut counted = true;
                for (k, part) in parts.iter().enumerate() {
                    if *part == Operand::Name("_") {
                        continue;
                    }
                    let k = self.constant(Width::Word, k as u64);
                    let result = self.result(part, Width::Word)?;
                    self.named(name, result, &[whole, k], counted);
                    counted = false;
                }
                Ok(())
            }
            (whole, Operand::Vector(parts)) => {
                let name = match (element.bytes(), parts.len()) {
                    (4, 2) => "pack.b32.b16",
                    (4, 4) => "pack.b32.b8",
                    (8, 2) => "pack.b64.b32",
                    (8, 4) => "pack.b64.b16",
                    _ => return self.fail("this vector does not fit its register"),
                };
                let mut sources = Vec::new();
                for part in parts {
                    sources.push(self.source(part, Width::Word)?);
                }
                let result = self.result(whole, width)?;
                self.named(name, result, &sources, true);
                Ok(())
            }
            (to, Operand::Name(name)) if super::decode::special(name).is_some() => {
                let (what, found) = super::decode::special(name).expect("it was there just now");
                if found == width {
                    let result = self.result(to, width)?;
                    self.emit(Kind::Special(result, what), Some(crate::counters::Class::Integer));
                    return Ok(());
                }
                self.plain_mov(width, to, from)
            }
            _ => self.plain_mov(width, to, from),
        }
    }

    fn plain_mov(&mut self, width: Width, to: &Operand<'m>, from: &Operand<'m>) -> Result<()> {
        let name = match width {
            Width::Bit => "mov.pred",
            Width::Word => "mov.b32",
            Width::Long => "mov.b64",
        };
        let source = self.source(from, width)?;
        let result = self.result(to, width)?;
        self.named(name, result, &[source], true);
        Ok(())
    }

    /// `setp.lt.and.f32 p|q, a, b, c`: `modifiers` is what follows the mnemonic.
    fn setp(&mut self, modifiers: &str, to: &Operand<'m>, rest: &[Operand<'m>]) -> Result<()> {
        let (p, q) = match to {
            Operand::Pair(p, q) => (
                self.result(&Operand::Name(p), Width::Bit)?,
                Some(self.result(&Operand::Name(q), Width::Bit)?),
            ),
            to => (self.result(to, Width::Bit)?, None),
        };
        let (compared, combine) = self.compare(modifiers, rest)?;
        if let Some(q) = q {
            let not = self.helper("not.pred", &[compared]);
            match &combine {
                Some((name, with)) => self.named(name, q, &[not, *with], false),
                None => self.named("mov.pred", q, &[not], false),
            }
        }
        match &combine {
            Some((name, with)) => self.named(name, p, &[compared, *with], false),
            None => {
                // The comparison itself can write the result.
                if q.is_none()
                    && let Some(Kind::Lanes(_, operands, _)) = self.code.last_mut().map(|i| &mut i.kind)
                {
                    operands.result = p;
                } else {
                    self.named("mov.pred", p, &[compared], false);
                }
            }
        }
        Ok(())
    }

    /// The comparison of `setp` and `set`, and with what it is combined, by which row.
    fn compare(
        &mut self,
        modifiers: &str,
        rest: &[Operand<'m>],
    ) -> Result<(Slot, Option<(&'static str, Slot)>)> {
        let mut base = format!("setp.{modifiers}");
        let ftz = take_modifier(&mut base, "ftz");
        let combine = [("and", "and.pred"), ("or", "or.pred"), ("xor", "xor.pred")];
        let combine = combine.into_iter().find(|(name, _)| take_modifier(&mut base, name));
        let Some(row) = table::find(&base) else { return self.fail(format!("{base} is not supported")) };
        let (Some(a), Some(b)) = (rest.first(), rest.get(1)) else { return self.fail("expected operands") };
        let combine = match (combine, rest.get(2)) {
            (Some((_, name)), Some(with)) => Some((name, self.source(with, Width::Bit)?)),
            (None, None) => None,
            _ => return self.fail("a comparison with a predicate too few or too many"),
        };
        let mut sources = [self.source(a, row.sources[0])?, self.source(b, row.sources[1])?];
        if ftz {
            if !row.names[0].ends_with(".f32") {
                return self.fail(".ftz on this type is not supported");
            }
            sources = sources.map(|slot| self.helper("flush.f32", &[slot]));
        }
        let compared = self.temporary(Width::Bit);
        self.emit_row(row, compared, &sources, true);
        Ok((compared, combine))
    }

    /// `set.lt.u32.f32`: all ones, or 1.0, where the comparison holds.
    fn set(&mut self, modifiers: &str, to: &Operand<'m>, rest: &[Operand<'m>]) -> Result<()> {
        let parts: Vec<&str> = modifiers.split('.').collect();
        let Some(&result_type) = parts.len().checked_sub(2).and_then(|k| parts.get(k)) else {
            return self.fail("set without its types");
        };
        let mut compare = modifiers.to_string();
        take_modifier(&mut compare, result_type);
        let (mut holds, combine) = self.compare(&compare, rest)?;
        if let Some((name, with)) = combine {
            holds = self.helper(name, &[holds, with]);
        }
        let yes = match result_type {
            "f32" => 1.0_f32.to_bits(),
            "u32" | "s32" => u32::MAX,
            _ => return self.fail(format!("set to .{result_type} is not supported")),
        };
        let yes = self.constant(Width::Word, yes.into());
        let no = self.constant(Width::Word, 0);
        let result = self.result(to, Width::Word)?;
        self.named("selp.b32", result, &[yes, no, holds], false);
        Ok(())
    }

    /// Between generic addresses and those of a space.
    fn cvta(&mut self, modifiers: &str, to: &Operand<'m>, from: &Operand<'m>) -> Result<()> {
        let parts: Vec<&str> = modifiers.split('.').collect();
        let away = parts[0] == "to";
        let space = parts[usize::from(away)].split("::").next().unwrap_or_default();
        let base = match space {
            "global" | "const" => 0,
            "shared" => window::SHARED,
            "local" => window::LOCAL,
            "param" => window::PARAM,
            _ => return self.fail(format!("cvta.{modifiers} is not supported")),
        };
        if parts.last() == Some(&"u32") {
            return self.fail("generic addresses of 32 bits");
        }
        let source = self.source(from, Width::Long)?;
        let result = self.result(to, Width::Long)?;
        if base == 0 {
            self.named("mov.b64", result, &[source], true);
        } else {
            let base = self.constant(Width::Long, base);
            self.named(if away { "sub.u64" } else { "add.u64" }, result, &[source, base], true);
        }
        Ok(())
    }

    fn isspacep(&mut self, modifiers: &str, to: &Operand<'m>, from: &Operand<'m>) -> Result<()> {
        let base = match modifiers.split("::").next().unwrap_or_default() {
            "shared" if modifiers != "shared::cluster" => return self.is_own(to, from),
            "shared" => window::SHARED,
            "local" => window::LOCAL,
            "param" => window::PARAM,
            "global" | "const" => 0,
            _ => return self.fail(format!("isspacep.{modifiers} is not supported")),
        };
        let source = self.source(from, Width::Long)?;
        let result = self.result(to, Width::Bit)?;
        let shift = self.constant(Width::Word, 32);
        let high = self.helper("shr.u64", &[source, shift]);
        if base == 0 {
            let last = self.constant(Width::Long, window::PARAM >> 32);
            self.named("setp.gt.u64", result, &[high, last], true);
        } else {
            let base = self.constant(Width::Long, base >> 32);
            self.named("setp.eq.u64", result, &[high, base], true);
        }
        Ok(())
    }

    /// Whether a generic address is of the block's own shared memory.
    fn is_own(&mut self, to: &Operand<'m>, from: &Operand<'m>) -> Result<()> {
        let source = self.source(from, Width::Long)?;
        let result = self.result(to, Width::Bit)?;
        let [base, size] = [window::SHARED, window::RANK].map(|value| self.constant(Width::Long, value));
        let within = self.helper("sub.u64", &[source, base]);
        self.named("setp.lt.u64", result, &[within, size], true);
        Ok(())
    }

    /// `cvt.sat` between integers: by way of 64 bits.
    fn saturating(&mut self, modifiers: &str, to: &Operand<'m>, from: &Operand<'m>) -> Result<bool> {
        let parts: Vec<&str> = modifiers.split('.').filter(|p| *p != "sat").collect();
        let [result_type, source_type] = parts[..] else { return Ok(false) };
        let (Some(Type::Int { bytes, signed }), Some(Type::Int { signed: from_signed, .. })) =
            (Type::of(result_type), Type::of(source_type))
        else {
            return Ok(false);
        };
        let long = if from_signed { "s64" } else { "u64" };
        let widen = table::find(&format!("cvt.{long}.{source_type}")).expect("a row for each pair");
        let source = self.source(from, widen.sources[0])?;
        let wide = self.helper(widen.names[0], &[source]);
        let bits = 8 * bytes - u32::from(signed);
        let high = if bits == 64 && !from_signed { u64::MAX } else { (1 << bits.min(63)) - 1 };
        let low = if signed && from_signed { (-1_i64) << bits } else { 0 };
        let (low, high) = (self.constant(Width::Long, low as u64), self.constant(Width::Long, high));
        let clamped = self.helper(&format!("clamp.{long}"), &[wide, low, high]);
        let narrow = table::find(&format!("cvt.{result_type}.{long}")).expect("a row for each pair");
        let result = self.result(to, narrow.result)?;
        self.emit_row(narrow, result, &[clamped], true);
        Ok(true)
    }

    /// A call of `vprintf`: nothing is printed, and 0 returned.
    pub(super) fn printf(&mut self, results: &[&'m str]) -> Result<()> {
        if let [result] = results
            && let Some(Name::Variable(_, at)) = self.lookup(result)
        {
            self.store_local_zero(at);
        }
        Ok(())
    }
}

/// Takes a modifier out of an opcode if it is there.
fn take_modifier(opcode: &mut String, name: &str) -> bool {
    let found = opcode.split('.').skip(1).position(|part| part == name);
    if let Some(k) = found {
        let parts: Vec<&str> =
            opcode.split('.').enumerate().filter(|(i, _)| *i != k + 1).map(|(_, p)| p).collect();
        *opcode = parts.join(".");
    }
    found.is_some()
}
