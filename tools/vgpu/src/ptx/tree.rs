//! The syntax tree.
//!
//! The idea: as flat as the text. A body is a list of statements, in which braces are statements too;
//! scopes are resolved by the decoder.

use super::Error;

/// A fundamental type, as in `.f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `.pred`
    Pred,
    /// Untyped, unsigned and signed bits: `.b8 .u8 .s8` and so on, by their bytes and sign.
    Int {
        /// 1, 2, 4, 8 or 16.
        bytes: u32,
        /// `.s8` to `.s64`.
        signed: bool,
    },
    /// `.f16`, `.f32`, `.f64`, by their bytes.
    Float {
        /// 2, 4 or 8.
        bytes: u32,
    },
    /// `.bf16`
    Bf16,
    /// `.f16x2`
    F16x2,
    /// `.bf16x2`
    Bf16x2,
}

impl Type {
    /// The type of a suffix such as `f32`.
    pub fn of(suffix: &str) -> Option<Type> {
        let int = |bytes, signed| Some(Type::Int { bytes, signed });
        match suffix {
            "pred" => Some(Type::Pred),
            "b8" | "u8" => int(1, false),
            "b16" | "u16" => int(2, false),
            "b32" | "u32" => int(4, false),
            "b64" | "u64" => int(8, false),
            "b128" => int(16, false),
            "s8" => int(1, true),
            "s16" => int(2, true),
            "s32" => int(4, true),
            "s64" => int(8, true),
            "f16" => Some(Type::Float { bytes: 2 }),
            "f32" => Some(Type::Float { bytes: 4 }),
            "f64" => Some(Type::Float { bytes: 8 }),
            "bf16" => Some(Type::Bf16),
            "f16x2" => Some(Type::F16x2),
            "bf16x2" => Some(Type::Bf16x2),
            _ => None,
        }
    }

    /// Bytes of a value; 0 for a predicate, which has no place in memory.
    pub fn bytes(self) -> u32 {
        match self {
            Type::Pred => 0,
            Type::Int { bytes, .. } | Type::Float { bytes } => bytes,
            Type::Bf16 => 2,
            Type::F16x2 | Type::Bf16x2 => 4,
        }
    }
}

/// Where a variable lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// `.global`
    Global,
    /// `.const`
    Const,
    /// `.shared`
    Shared,
    /// `.local`
    Local,
    /// `.param`
    Param,
}

/// An initial value of a variable's element.
#[derive(Clone, Debug, PartialEq)]
pub enum Init<'a> {
    /// An integer, or the bits of a float.
    Bits(u64),
    /// The address of another variable.
    Address(&'a str, i64),
}

/// A variable or parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable<'a> {
    /// Line of the declaration.
    pub line: u32,
    /// Where it lies.
    pub space: Space,
    /// `.extern`
    pub external: bool,
    /// Its alignment, the type's if not given.
    pub align: u32,
    /// Type of an element.
    pub element: Type,
    /// Its name.
    pub name: &'a str,
    /// Elements: 1 for a scalar, 0 for an array without size.
    pub count: u64,
    /// Initial values, of the first elements.
    pub init: Vec<Init<'a>>,
}

impl Variable<'_> {
    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.count * u64::from(self.element.bytes())
    }
}

/// An operand of an instruction.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// A register, special register, variable or label.
    Name(&'a str),
    /// An integer, as its 64 bits.
    Int(u64),
    /// `0f...`
    F32(u32),
    /// `0d...`, or a decimal fraction.
    F64(u64),
    /// `[base+offset]`; the base is a name or absent.
    Address(Option<&'a str>, i64),
    /// `{a, b}`
    Vector(Vec<Operand<'a>>),
    /// `!p`
    Not(&'a str),
    /// `p|q`
    Pair(&'a str, &'a str),
    /// `(a, b)`: arguments of a call.
    List(Vec<&'a str>),
}

/// A statement of a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement<'a> {
    /// Line in the PTX text.
    pub line: u32,
    /// Line in the source file, from `.loc`; 0 if unknown.
    pub source: u32,
    /// What it is.
    pub kind: StatementKind<'a>,
}

/// What a statement is.
#[derive(Clone, Debug, PartialEq)]
pub enum StatementKind<'a> {
    /// `label:`
    Label(&'a str),
    /// An instruction.
    Instruction {
        /// `@p` or `@!p`: the predicate and whether it is negated.
        guard: Option<(&'a str, bool)>,
        /// With all its modifiers, as written.
        opcode: &'a str,
        /// Left to right.
        operands: Vec<Operand<'a>>,
    },
    /// `.reg .f32 %f<12>`: `count` is `None` for a plain name.
    Registers {
        /// Their type.
        element: Type,
        /// The name, or its beginning.
        name: &'a str,
        /// How many, numbered from 0.
        count: Option<u32>,
    },
    /// A variable in the body's scope.
    Variable(Variable<'a>),
    /// `label: .branchtargets a, b;`
    Targets(&'a str, Vec<&'a str>),
    /// `{`
    Open,
    /// `}`
    Close,
}

/// A kernel or device function.
#[derive(Clone, Debug, PartialEq)]
pub struct Function<'a> {
    /// Line of its declaration.
    pub line: u32,
    /// `.entry`
    pub entry: bool,
    /// Its name.
    pub name: &'a str,
    /// What a device function returns.
    pub returns: Vec<Variable<'a>>,
    /// Its parameters.
    pub params: Vec<Variable<'a>>,
    /// `.maxntid` or `.reqntid`
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`
    pub exact_threads: bool,
    /// `.minnctapersm`
    pub min_blocks: Option<u32>,
    /// `.reqnctapercluster`
    pub cluster: Option<[u32; 3]>,
    /// `None` for a declaration.
    pub body: Option<Vec<Statement<'a>>>,
}

/// A module.
#[derive(Clone, Debug, PartialEq)]
pub struct Module<'a> {
    /// `.version`
    pub version: (u32, u32),
    /// `.target`
    pub target: &'a str,
    /// Variables in module scope.
    pub variables: Vec<Variable<'a>>,
    /// Kernels and functions.
    pub functions: Vec<Function<'a>>,
    /// `.file`: number and path.
    pub files: Vec<(u32, &'a str)>,
}

impl Module<'_> {
    /// The number of the target: 90 of `sm_90a`.
    pub fn architecture(&self) -> u32 {
        let number = self.target.trim_start_matches("sm_").trim_end_matches(|c: char| !c.is_ascii_digit());
        number.parse().unwrap_or(0)
    }
}

/// The result of parsing.
pub type Result<T> = std::result::Result<T, Error>;
