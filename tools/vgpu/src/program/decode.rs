//! From a function's syntax tree to instructions with virtual registers.
//!
//! The idea: one walk over the statements, with a stack of scopes for names. Calls are inlined: the
//! callee's parameters are the caller's `.param` variables, which live in the thread's local memory. The
//! parts by concern add methods to the [`Decoder`].

use std::collections::HashMap;

use super::GlobalVariable;
use crate::isa::instruction::{Instruction, Kind, Special};
use crate::isa::lanes::{Operands, Slot, Width};
use crate::isa::row::Row;
use crate::isa::table;
use crate::ptx::{Error, Function, Module, Operand, Space, Statement, StatementKind, Type, Variable};

pub(super) type Result<T> = std::result::Result<T, Error>;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    /// A virtual register.
    Register(Slot, Width),
    /// `%f<12>`: the first register, its width, the number of registers.
    Family(u32, Width, u32),
    /// A variable and its address within its space.
    Variable(Space, u64),
}

/// What is being decoded.
pub(super) struct Decoder<'m> {
    pub module: &'m Module<'m>,
    globals: &'m [GlobalVariable],
    /// The instructions so far. Branches name labels until the end.
    pub code: Vec<Instruction>,
    /// The virtual registers' widths.
    pub registers: Vec<Width>,
    /// The constants: 32 lanes each, but for predicates, of one word.
    pub constants: Vec<u32>,
    known: HashMap<(Width, u64), Slot>,
    scopes: Vec<HashMap<&'m str, Name>>,
    /// Numbers of labels in the function being decoded, by open scope.
    labels: Vec<HashMap<&'m str, u32>>,
    /// Where each label is, by its number.
    pub places: Vec<u32>,
    pub targets: HashMap<&'m str, Vec<&'m str>>,
    /// Where `ret` goes: the kernel's end if `None`.
    pub return_label: Option<u32>,
    /// The functions being inlined.
    calls: Vec<&'m str>,
    pub local_top: u64,
    pub local_bytes: u64,
    pub shared_bytes: u64,
    /// Where dynamic shared memory begins.
    dynamic: u64,
    pub uses_dynamic: bool,
    /// Memory instructions so far.
    pub sites: u32,
    /// The statement at hand.
    pub line: u32,
    source: u32,
    guard: (Slot, bool),
}

impl<'m> Decoder<'m> {
    pub fn new(module: &'m Module<'m>, globals: &'m [GlobalVariable], dynamic: u64) -> Decoder<'m> {
        Decoder {
            module,
            globals,
            code: Vec::new(),
            registers: Vec::new(),
            // The two constant predicates.
            constants: vec![0, u32::MAX],
            known: HashMap::new(),
            scopes: vec![HashMap::new()],
            labels: Vec::new(),
            places: Vec::new(),
            targets: HashMap::new(),
            return_label: None,
            calls: Vec::new(),
            local_top: 0,
            local_bytes: 0,
            shared_bytes: 0,
            dynamic,
            uses_dynamic: false,
            sites: 0,
            line: 0,
            source: 0,
            guard: (Slot::TRUE, false),
        }
    }

    pub fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(Error::new(self.line, what))
    }

    /// Decodes a kernel whose parameters lie at these offsets.
    pub fn kernel(&mut self, function: &'m Function<'m>, offsets: &[u32]) -> Result<()> {
        for (param, &offset) in function.params.iter().zip(offsets) {
            self.declare(param.name, Name::Variable(Space::Param, offset.into()));
        }
        self.calls.push(function.name);
        self.body(function.body.as_deref().unwrap_or_default())?;
        self.guard = (Slot::TRUE, false);
        self.emit(Kind::Exit, None);
        Ok(())
    }

    fn body(&mut self, statements: &'m [Statement<'m>]) -> Result<()> {
        self.open_labels(statements);
        for statement in statements {
            if let StatementKind::Targets(name, targets) = &statement.kind {
                self.targets.insert(name, targets.clone());
            }
        }
        // Local memory in use when each open scope began.
        let mut tops = Vec::new();
        for (at, statement) in statements.iter().enumerate() {
            (self.line, self.source) = (statement.line, statement.source);
            match &statement.kind {
                StatementKind::Open => {
                    self.open_labels(&statements[at + 1..]);
                    self.scopes.push(HashMap::new());
                    tops.push(self.local_top);
                }
                StatementKind::Close => {
                    self.labels.pop();
                    self.scopes.pop();
                    self.local_top = tops.pop().expect("the parser matched the braces");
                }
                StatementKind::Label(name) => self.place(self.label(name)?),
                StatementKind::Targets(..) => {}
                StatementKind::Registers { element, name, count } => {
                    let width = width_of(*element);
                    if *element == (Type::Int { bytes: 16, signed: false }) {
                        return self.fail("registers of 128 bits are not supported");
                    }
                    let name_is = match count {
                        Some(count) => {
                            let first = self.registers.len() as u32;
                            self.registers.extend(std::iter::repeat_n(width, *count as usize));
                            Name::Family(first, width, *count)
                        }
                        None => Name::Register(self.temporary(width), width),
                    };
                    self.declare(name, name_is);
                }
                StatementKind::Variable(variable) => self.variable(variable)?,
                StatementKind::Instruction { guard, opcode, operands } => {
                    self.guard = match guard {
                        None => (Slot::TRUE, false),
                        Some((name, negated)) => (self.predicate(name)?, *negated),
                    };
                    self.instruction(opcode, operands)?;
                    self.guard = (Slot::TRUE, false);
                }
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: &Variable<'m>) -> Result<()> {
        let align = u64::from(variable.align);
        let at = match variable.space {
            Space::Shared => {
                let at = self.shared_bytes.next_multiple_of(align);
                self.shared_bytes = at + variable.bytes();
                Name::Variable(Space::Shared, at)
            }
            Space::Local | Space::Param => Name::Variable(Space::Local, self.reserve(variable)),
            Space::Global | Space::Const => return self.fail("a global variable in a function"),
        };
        self.declare(variable.name, at);
        Ok(())
    }

    /// A place in local memory.
    fn reserve(&mut self, variable: &Variable<'_>) -> u64 {
        // Whole registers are stored to it.
        let at = self.local_top.next_multiple_of(u64::from(variable.align).max(8));
        self.local_top = at + variable.bytes();
        self.local_bytes = self.local_bytes.max(self.local_top.next_multiple_of(8));
        at
    }

    fn declare(&mut self, name: &'m str, is: Name) {
        self.scopes.last_mut().expect("there is a scope").insert(name, is);
    }

    /// Inlines a call.
    pub fn call(&mut self, name: &str, results: &[&'m str], arguments: &[&'m str]) -> Result<()> {
        let function = self.module.functions.iter().find(|f| !f.entry && f.name == name);
        let Some(function) = function else {
            return self.fail(format!("call of {name}, which the module does not declare"));
        };
        let Some(body) = &function.body else {
            match name {
                "__assertfail" => return self.emit_ok(Kind::Trap("an assertion failed")),
                // Prints nothing and returns 0.
                "vprintf" => return self.printf(results),
                _ => return self.fail(format!("call of {name}, which the module does not define")),
            }
        };
        if self.calls.contains(&function.name) {
            return self.fail(format!("{name} calls itself, which is not supported"));
        }
        if results.len() != function.returns.len() || arguments.len() != function.params.len() {
            return self.fail(format!("call of {name} with another number of arguments"));
        }
        let mut bound = HashMap::new();
        let formals = function.returns.iter().chain(&function.params);
        for (formal, actual) in formals.zip(results.iter().chain(arguments)) {
            let Some(at @ Name::Variable(Space::Local, _)) = self.lookup(actual) else {
                return self.fail(format!("{actual} is not a variable of the caller"));
            };
            bound.insert(formal.name, at);
        }
        let done = self.new_label();
        let line = self.line;
        let scopes = std::mem::replace(&mut self.scopes, vec![bound]);
        let labels = std::mem::take(&mut self.labels);
        let targets = std::mem::take(&mut self.targets);
        let return_label = self.return_label.replace(done);
        let guard = std::mem::replace(&mut self.guard, (Slot::TRUE, false));
        let top = self.local_top;
        self.calls.push(function.name);
        // A guarded call is a branch around the callee.
        if guard.0 != Slot::TRUE {
            self.guard = (guard.0, !guard.1);
            self.emit(Kind::Branch(done), None);
            self.guard = (Slot::TRUE, false);
        }
        self.body(body)?;
        self.calls.pop();
        self.local_top = top;
        self.return_label = return_label;
        self.targets = targets;
        self.labels = labels;
        self.scopes = scopes;
        self.line = line;
        self.place(done);
        Ok(())
    }

    pub fn new_label(&mut self) -> u32 {
        self.places.push(u32::MAX);
        self.places.len() as u32 - 1
    }

    fn place(&mut self, label: u32) {
        self.places[label as usize] = self.code.len() as u32;
    }

    /// Numbers the labels of a scope that begins with these statements; it may jump ahead.
    fn open_labels(&mut self, statements: &[Statement<'m>]) {
        let mut labels = HashMap::new();
        let mut depth = 0;
        for statement in statements {
            match statement.kind {
                StatementKind::Open => depth += 1,
                StatementKind::Close if depth == 0 => break,
                StatementKind::Close => depth -= 1,
                StatementKind::Label(name) if depth == 0 => {
                    labels.insert(name, self.new_label());
                }
                _ => {}
            }
        }
        self.labels.push(labels);
    }

    /// The number of a label of the function at hand.
    pub fn label(&self, name: &str) -> Result<u32> {
        match self.labels.iter().rev().find_map(|scope| scope.get(name)) {
            Some(&label) => Ok(label),
            None => self.fail(format!("there is no label {name}")),
        }
    }

    /// Adds an instruction under the statement's guard.
    pub fn emit(&mut self, kind: Kind, class: Option<crate::counters::Class>) {
        let (guard, negated) = self.guard;
        self.code.push(Instruction { kind, guard, negated, class, line: self.line, source: self.source });
    }

    fn emit_ok(&mut self, kind: Kind) -> Result<()> {
        self.emit(kind, None);
        Ok(())
    }

    /// Adds a row's operation; one that the decoder adds of its own accord is not counted.
    pub fn emit_row(&mut self, row: &Row, result: Slot, sources: &[Slot], counted: bool) {
        let mut all = [Slot::FALSE; 4];
        all[..sources.len()].copy_from_slice(sources);
        let operands = Operands { result, sources: all };
        let kind = Kind::Lanes(row.operation(), operands, sources.len() as u8);
        self.emit(kind, counted.then_some(row.class));
    }

    /// Adds an operation of the table by its name, with a new register for its result.
    pub fn helper(&mut self, name: &str, sources: &[Slot]) -> Slot {
        let row = table::find(name).expect("the decoder names rows that exist");
        let result = self.temporary(row.result);
        self.emit_row(row, result, sources, false);
        result
    }

    pub fn temporary(&mut self, width: Width) -> Slot {
        self.registers.push(width);
        Slot(self.registers.len() as u32 - 1)
    }

    /// A constant in all lanes.
    pub fn constant(&mut self, width: Width, value: u64) -> Slot {
        if width == Width::Bit {
            return if value == 0 { Slot::FALSE } else { Slot::TRUE };
        }
        let constants = &mut self.constants;
        *self.known.entry((width, value)).or_insert_with(|| {
            let at = constants.len().next_multiple_of(64);
            constants.resize(at, 0);
            for _ in 0..32 {
                constants.push(value as u32);
                if width == Width::Long {
                    constants.push((value >> 32) as u32);
                }
            }
            Slot(Slot::CONSTANT | at as u32)
        })
    }

    /// What a name stands for.
    pub fn lookup(&mut self, name: &str) -> Option<Name> {
        for scope in self.scopes.iter().rev() {
            if let Some(is) = scope.get(name) {
                return Some(*is);
            }
            let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
            if let Ok(number) = name[digits..].parse::<u32>()
                && let Some(&Name::Family(first, width, count)) = scope.get(&name[..digits])
                && number < count
            {
                return Some(Name::Register(Slot(first + number), width));
            }
        }
        if let Some(global) = self.globals.iter().find(|g| g.name == name) {
            let space = if global.constant { Space::Const } else { Space::Global };
            return Some(Name::Variable(space, global.address));
        }
        let module = self.module;
        let shared = module.variables.iter().find(|v| v.name == name && v.space == Space::Shared)?;
        if shared.count == 0 {
            self.uses_dynamic = true;
            return Some(Name::Variable(Space::Shared, self.dynamic));
        }
        let at = self.shared_bytes.next_multiple_of(shared.align.into());
        self.shared_bytes = at + shared.bytes();
        self.scopes[0].insert(shared.name, Name::Variable(Space::Shared, at));
        Some(Name::Variable(Space::Shared, at))
    }

    /// A register by its name.
    pub fn register(&mut self, name: &str) -> Result<(Slot, Width)> {
        match self.lookup(name) {
            Some(Name::Register(slot, width)) => Ok((slot, width)),
            _ => self.fail(format!("{name} is not a register")),
        }
    }

    fn predicate(&mut self, name: &str) -> Result<Slot> {
        match self.register(name)? {
            (slot, Width::Bit) => Ok(slot),
            _ => self.fail(format!("{name} is not a predicate")),
        }
    }

    /// A source operand of this width.
    pub fn source(&mut self, operand: &Operand<'m>, width: Width) -> Result<Slot> {
        match operand {
            Operand::Int(value) => {
                let value = if width == Width::Word { u64::from(*value as u32) } else { *value };
                Ok(self.constant(width, value))
            }
            Operand::F32(bits) if width == Width::Word => Ok(self.constant(width, u64::from(*bits))),
            Operand::F64(bits) if width == Width::Long => Ok(self.constant(width, *bits)),
            Operand::F64(bits) if width == Width::Word => {
                let value = (f64::from_bits(*bits) as f32).to_bits();
                Ok(self.constant(width, value.into()))
            }
            Operand::Not(name) if width == Width::Bit => {
                let slot = self.predicate(name)?;
                Ok(self.helper("not.pred", &[slot]))
            }
            Operand::Address(Some(name), offset) => match self.lookup(name) {
                Some(Name::Variable(_, at)) => Ok(self.constant(width, at.wrapping_add(*offset as u64))),
                _ => self.fail(format!("{name} is not a variable")),
            },
            Operand::Name(name) => match self.lookup(name) {
                Some(Name::Register(slot, found)) => self.fit(name, slot, found, width),
                Some(Name::Variable(_, at)) => Ok(self.constant(width, at)),
                Some(Name::Family(..)) => self.fail(format!("{name} is not a register")),
                None => match special(name) {
                    Some((what, found)) => {
                        let slot = self.temporary(found);
                        self.emit(Kind::Special(slot, what), None);
                        self.fit(name, slot, found, width)
                    }
                    None => self.fail(format!("{name} is not declared")),
                },
            },
            _ => self.fail(format!("operand {operand:?} does not fit this instruction")),
        }
    }

    fn fit(&mut self, name: &str, slot: Slot, found: Width, wanted: Width) -> Result<Slot> {
        match (found, wanted) {
            (f, w) if f == w => Ok(slot),
            (Width::Long, Width::Word) => {
                let zero = self.constant(Width::Word, 0);
                Ok(self.helper("unpack.b32.b64", &[slot, zero]))
            }
            (Width::Word, Width::Long) => Ok(self.helper("cvt.u64.u32", &[slot])),
            _ => self.fail(format!("{name} has another width than the instruction")),
        }
    }

    /// A result operand of this width; `_` is a register that nobody reads.
    pub fn result(&mut self, operand: &Operand<'m>, width: Width) -> Result<Slot> {
        match operand {
            Operand::Name("_") => Ok(self.temporary(width)),
            Operand::Name(name) => match self.register(name)? {
                (slot, found) if found == width => Ok(slot),
                _ => self.fail(format!("{name} has another width than the instruction")),
            },
            _ => self.fail("the result is not a register"),
        }
    }
}

/// The register width of a type.
pub(super) fn width_of(element: Type) -> Width {
    match element {
        Type::Pred => Width::Bit,
        other if other.bytes() == 8 => Width::Long,
        _ => Width::Word,
    }
}

/// A special register and its width.
pub(super) fn special(name: &str) -> Option<(Special, Width)> {
    let component = |prefix: &str| {
        let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
        "xyz".find(rest).filter(|_| rest.len() == 1).map(|k| k as u8)
    };
    let word = |special| Some((special, Width::Word));
    if let Some(k) = component("%tid") {
        return word(Special::Thread(k));
    } else if let Some(k) = component("%ntid") {
        return word(Special::Threads(k));
    } else if let Some(k) = component("%ctaid") {
        return word(Special::Block(k));
    } else if let Some(k) = component("%nctaid") {
        return word(Special::Blocks(k));
    } else if let Some(k) = component("%clusterid") {
        return word(Special::Cluster(k));
    } else if let Some(k) = component("%nclusterid") {
        return word(Special::Clusters(k));
    } else if let Some(k) = component("%cluster_ctaid") {
        return word(Special::Member(k));
    } else if let Some(k) = component("%cluster_nctaid") {
        return word(Special::Members(k));
    }
    match name {
        "%cluster_ctarank" => word(Special::MemberRank),
        "%cluster_nctarank" => word(Special::MemberCount),
        "%is_explicit_cluster" => Some((Special::Clustered, Width::Bit)),
        "%laneid" => word(Special::Lane),
        "%warpid" => word(Special::Warp),
        "%nwarpid" => word(Special::Warps),
        "WARP_SZ" => word(Special::Value(32)),
        "%smid" => word(Special::Multiprocessor),
        "%nsmid" => word(Special::Multiprocessors),
        "%gridid" => word(Special::Value(1)),
        "%lanemask_eq" => word(Special::LaneMask(0)),
        "%lanemask_le" => word(Special::LaneMask(1)),
        "%lanemask_lt" => word(Special::LaneMask(2)),
        "%lanemask_ge" => word(Special::LaneMask(3)),
        "%lanemask_gt" => word(Special::LaneMask(4)),
        "%clock" | "%clock_hi" | "%globaltimer_lo" => word(Special::Clock),
        "%clock64" | "%globaltimer" => Some((Special::Clock64, Width::Long)),
        "%dynamic_smem_size" => word(Special::DynamicShared),
        "%total_smem_size" | "%aggr_smem_size" => word(Special::TotalShared),
        "%envreg1" => word(Special::Workspace(true)),
        "%envreg2" => word(Special::Workspace(false)),
        _ if name.starts_with("%envreg") || name.starts_with("%globaltimer_hi") => word(Special::Value(0)),
        _ => None,
    }
}
