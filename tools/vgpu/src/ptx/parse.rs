//! From tokens to the tree.
//!
//! The idea: recursive descent with one token to look at. Whatever only a debugger reads is skipped,
//! but for `.loc`, which tells the source line of the statements that follow.

use super::Error;
use super::tokens::{Token, tokens};
use super::tree::{Function, Init, Module, Result, Space, Type, Variable};

/// Parses a module.
///
/// # Errors
/// [`Error`] with the first line that is not understood.
pub fn parse(text: &str) -> Result<Module<'_>> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, source: 0 };
    parser.module()
}

/// The tokens, and how far they are read.
pub(super) struct Parser<'a> {
    pub(super) tokens: Vec<(Token<'a>, u32)>,
    pub(super) at: usize,
    /// The source line of the last `.loc`.
    pub(super) source: u32,
}

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Token<'a> {
        self.tokens[self.at].0
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    pub(super) fn fail<T>(&self, expected: &str) -> Result<T> {
        Err(Error::new(self.line(), format!("expected {expected}, found {:?}", self.peek())))
    }

    /// Takes a mark if it is the next token.
    pub(super) fn take(&mut self, mark: char) -> bool {
        let found = self.peek() == Token::Mark(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, mark: char) -> Result<()> {
        if self.take(mark) { Ok(()) } else { self.fail(&format!("'{mark}'")) }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.peek() {
            Token::Word(word) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.fail(what),
        }
    }

    /// An integer with its sign.
    pub(super) fn int(&mut self) -> Result<u64> {
        let negative = self.take('-');
        match self.peek() {
            Token::Int(value) => {
                self.at += 1;
                Ok(if negative { value.wrapping_neg() } else { value })
            }
            _ => self.fail("an integer"),
        }
    }

    pub(super) fn skip_line(&mut self) {
        let line = self.line();
        while self.line() == line && self.peek() != Token::End {
            self.at += 1;
        }
    }

    fn module(&mut self) -> Result<Module<'a>> {
        let mut module = Module {
            version: (0, 0),
            target: "",
            variables: Vec::new(),
            functions: Vec::new(),
            files: Vec::new(),
        };
        loop {
            match self.peek() {
                Token::End => break,
                Token::Word(".version") => {
                    self.at += 1;
                    // `9.0` reads as a fraction.
                    let Token::F64(bits) = self.next() else { return self.fail("a version") };
                    let version = format!("{}", f64::from_bits(bits));
                    let (major, minor) = version.split_once('.').unwrap_or((&version, "0"));
                    module.version = (major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
                }
                Token::Word(".target") => {
                    self.at += 1;
                    module.target = self.word("a target")?;
                    self.skip_rest_of_list()?;
                }
                Token::Word(".address_size") => {
                    self.at += 1;
                    if self.int()? != 64 {
                        return self.fail("addresses of 64 bits");
                    }
                }
                Token::Word(".file") => {
                    self.at += 1;
                    let number = self.int()? as u32;
                    if let Token::Text(path) = self.next() {
                        module.files.push((number, path));
                    }
                    while self.take(',') {
                        self.int()?;
                    }
                }
                Token::Word(".section") => self.section()?,
                Token::Word(".loc" | ".pragma") => self.skip_line(),
                Token::Word(".visible" | ".extern" | ".weak" | ".common" | ".entry" | ".func") => {
                    self.item(&mut module)?;
                }
                Token::Word(".global" | ".const" | ".shared") => {
                    let variable = self.variable(false)?;
                    self.expect(';')?;
                    module.variables.push(variable);
                }
                Token::Mark(';') => self.at += 1,
                _ => return self.fail("a directive of a module"),
            }
        }
        if module.version == (0, 0) {
            return Err(Error::new(1, "there is no .version: not PTX"));
        }
        Ok(module)
    }

    fn skip_rest_of_list(&mut self) -> Result<()> {
        while self.take(',') {
            self.word("a word")?;
        }
        Ok(())
    }

    /// `.section name { ... }`, which only debuggers read.
    fn section(&mut self) -> Result<()> {
        while self.peek() != Token::Mark('{') {
            if self.next() == Token::End {
                return self.fail("a section's contents");
            }
        }
        while self.peek() != Token::Mark('}') {
            if self.next() == Token::End {
                return self.fail("the end of a section");
            }
        }
        self.expect('}')
    }

    /// A function or variable with its linkage.
    fn item(&mut self, module: &mut Module<'a>) -> Result<()> {
        let mut external = false;
        loop {
            match self.peek() {
                Token::Word(".extern") => external = true,
                Token::Word(".visible" | ".weak" | ".common") => {}
                _ => break,
            }
            self.at += 1;
        }
        match self.peek() {
            Token::Word(".entry") | Token::Word(".func") => {
                let function = self.function()?;
                // A definition may follow a declaration.
                let known = module.functions.iter_mut().find(|f| f.name == function.name);
                match known {
                    Some(known) if known.body.is_none() => *known = function,
                    Some(_) => {}
                    None => module.functions.push(function),
                }
            }
            _ => {
                let variable = self.variable(external)?;
                self.expect(';')?;
                module.variables.push(variable);
            }
        }
        Ok(())
    }

    fn function(&mut self) -> Result<Function<'a>> {
        let line = self.line();
        let entry = self.next() == Token::Word(".entry");
        if let Token::Word(".attribute") = self.peek() {
            return self.fail("no attributes");
        }
        let returns = if self.peek() == Token::Mark('(') { self.parameters()? } else { Vec::new() };
        let name = self.word("a function's name")?;
        let params = if self.peek() == Token::Mark('(') { self.parameters()? } else { Vec::new() };
        let mut function = Function {
            line,
            entry,
            name,
            returns,
            params,
            max_threads: None,
            exact_threads: false,
            min_blocks: None,
            cluster: None,
            body: None,
        };
        while let Token::Word(directive) = self.peek() {
            self.at += 1;
            match directive {
                ".maxntid" | ".reqntid" => {
                    function.max_threads = Some(self.directions()?);
                    function.exact_threads |= directive == ".reqntid";
                }
                ".minnctapersm" => function.min_blocks = Some(self.int()? as u32),
                ".maxnreg" => {
                    self.int()?;
                }
                ".reqnctapercluster" => function.cluster = Some(self.directions()?),
                ".maxclusterrank" => {
                    self.int()?;
                }
                ".noreturn" | ".explicitcluster" => {}
                ".pragma" => self.skip_line(),
                _ => return Err(Error::new(self.line(), format!("{directive} is not supported"))),
            }
        }
        if !self.take(';') {
            function.body = Some(self.body()?);
        }
        Ok(function)
    }

    /// One to three numbers, those not given 1.
    fn directions(&mut self) -> Result<[u32; 3]> {
        let mut all = [self.int()? as u32, 1, 1];
        for n in &mut all[1..] {
            if self.take(',') {
                *n = self.int()? as u32;
            }
        }
        Ok(all)
    }

    fn parameters(&mut self) -> Result<Vec<Variable<'a>>> {
        self.expect('(')?;
        let mut all = Vec::new();
        while !self.take(')') {
            all.push(self.variable(false)?);
            self.take(',');
        }
        Ok(all)
    }

    /// `.space .align 4 .b8 name[12] = {...}`, up to its semicolon or comma.
    pub(super) fn variable(&mut self, external: bool) -> Result<Variable<'a>> {
        let line = self.line();
        let space = match self.word("a state space")? {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            // Parameters of device functions may be registers.
            ".param" | ".reg" => Space::Param,
            other => return Err(Error::new(line, format!("{other} is no state space"))),
        };
        let (mut align, mut element) = (None, None);
        let name = loop {
            let word = self.word("a variable")?;
            if let Some(found) = word.strip_prefix('.').and_then(Type::of) {
                // The first is the variable's; a pointer's attributes follow it.
                element = element.or(Some(found));
                continue;
            }
            match word {
                // `.ptr .global .align 16` tells about the memory pointed at.
                ".ptr" => {
                    while let Token::Word(word) = self.peek() {
                        match word {
                            ".align" => {
                                self.at += 1;
                                self.int()?;
                            }
                            w if w.starts_with('.') => self.at += 1,
                            _ => break,
                        }
                    }
                }
                ".align" => align = Some(self.int()? as u32),
                ".attribute" => {
                    self.expect('(')?;
                    while !self.take(')') {
                        self.next();
                    }
                }
                w if w.starts_with('.') => {
                    return Err(Error::new(line, format!("{w} in a declaration is not supported")));
                }
                name => break name,
            }
        };
        let Some(element) = element else { return self.fail("a variable with a type") };
        let mut count = 1;
        while self.take('[') {
            if self.take(']') {
                count = 0;
            } else {
                count *= self.int()?;
                self.expect(']')?;
            }
        }
        let mut init = Vec::new();
        if self.take('=') {
            if self.take('{') {
                while !self.take('}') {
                    init.push(self.init(element)?);
                    self.take(',');
                }
            } else {
                init.push(self.init(element)?);
            }
        }
        let align = align.unwrap_or(element.bytes()).max(1);
        Ok(Variable { line, space, external, align, element, name, count, init })
    }

    fn init(&mut self, element: Type) -> Result<Init<'a>> {
        match self.peek() {
            Token::F32(bits) => {
                self.at += 1;
                Ok(Init::Bits(u64::from(bits)))
            }
            Token::F64(bits) => {
                self.at += 1;
                let bits = match element {
                    Type::Float { bytes: 4 } => u64::from((f64::from_bits(bits) as f32).to_bits()),
                    _ => bits,
                };
                Ok(Init::Bits(bits))
            }
            Token::Word(word) => {
                self.at += 1;
                let name = if word == "generic" {
                    self.expect('(')?;
                    let name = self.word("a variable's name")?;
                    self.expect(')')?;
                    name
                } else {
                    word
                };
                let offset = if self.take('+') { self.int()? as i64 } else { 0 };
                Ok(Init::Address(name, offset))
            }
            Token::Mark('{') => self.fail("a plain initial value"),
            _ => Ok(Init::Bits(self.int()?)),
        }
    }
}
