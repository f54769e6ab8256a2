//! The statements of a function's body.
//!
//! The idea: a body is flat: a scope within it only makes names end, which a statement of its own says.

use super::Error;
use super::parse::Parser;
use super::tokens::Token;
use super::tree::{Operand, Result, Statement, StatementKind, Type};

impl<'a> Parser<'a> {
    pub(super) fn body(&mut self) -> Result<Vec<Statement<'a>>> {
        self.expect('{')?;
        self.source = 0;
        let mut all = Vec::new();
        let mut depth = 1;
        loop {
            let line = self.line();
            let kind = match self.peek() {
                Token::Mark('}') => {
                    self.at += 1;
                    depth -= 1;
                    if depth == 0 {
                        return Ok(all);
                    }
                    StatementKind::Close
                }
                Token::Mark('{') => {
                    self.at += 1;
                    depth += 1;
                    StatementKind::Open
                }
                Token::Mark(';') => {
                    self.at += 1;
                    continue;
                }
                Token::Word(".loc") => {
                    self.at += 1;
                    self.int()?;
                    self.source = self.int()? as u32;
                    while self.line() == line {
                        self.at += 1;
                    }
                    continue;
                }
                Token::Word(".pragma") => {
                    self.skip_line();
                    continue;
                }
                Token::Word(".reg") => {
                    self.at += 1;
                    self.registers(line, &mut all)?;
                    continue;
                }
                Token::Word(".shared" | ".local" | ".param" | ".const" | ".global") => {
                    let variable = self.variable(false)?;
                    self.expect(';')?;
                    StatementKind::Variable(variable)
                }
                Token::Mark('@') => self.instruction()?,
                Token::Word(word) if self.tokens[self.at + 1].0 == Token::Mark(':') => {
                    self.at += 2;
                    if self.peek() == Token::Word(".branchtargets") {
                        self.at += 1;
                        let mut targets = vec![self.word("a label")?];
                        while self.take(',') {
                            targets.push(self.word("a label")?);
                        }
                        self.expect(';')?;
                        StatementKind::Targets(word, targets)
                    } else {
                        StatementKind::Label(word)
                    }
                }
                Token::Word(word) if !word.starts_with('.') => self.instruction()?,
                _ => return self.fail("a statement"),
            };
            all.push(Statement { line, source: self.source, kind });
        }
    }

    /// `.f32 %f<12>, %x;` after `.reg`.
    fn registers(&mut self, line: u32, all: &mut Vec<Statement<'a>>) -> Result<()> {
        let word = self.word("a type")?;
        let element = word.strip_prefix('.').and_then(Type::of);
        let Some(element) = element else {
            return Err(Error::new(line, format!("registers of type {word} are not supported")));
        };
        loop {
            let name = self.word("a register's name")?;
            let mut count = None;
            if self.take('<') {
                count = Some(self.int()? as u32);
                self.expect('>')?;
            }
            let kind = StatementKind::Registers { element, name, count };
            all.push(Statement { line, source: self.source, kind });
            if !self.take(',') {
                break;
            }
        }
        self.expect(';')
    }

    fn instruction(&mut self) -> Result<StatementKind<'a>> {
        let mut guard = None;
        if self.take('@') {
            let negated = self.take('!');
            guard = Some((self.word("a predicate")?, negated));
        }
        let opcode = self.word("an opcode")?;
        let mut operands = Vec::new();
        while !self.take(';') {
            operands.push(self.operand()?);
            if !self.take(',') && self.peek() != Token::Mark(';') {
                return self.fail("',' or ';'");
            }
        }
        Ok(StatementKind::Instruction { guard, opcode, operands })
    }

    fn operand(&mut self) -> Result<Operand<'a>> {
        match self.peek() {
            Token::Mark('[') => {
                self.at += 1;
                let base = match self.peek() {
                    Token::Word(word) => {
                        self.at += 1;
                        Some(word)
                    }
                    _ => None,
                };
                let plus = self.take('+');
                let offset = if plus || self.peek() != Token::Mark(']') { self.int()? as i64 } else { 0 };
                self.expect(']')?;
                Ok(Operand::Address(base, offset))
            }
            Token::Mark('{') => {
                self.at += 1;
                let mut all = Vec::new();
                while !self.take('}') {
                    all.push(self.operand()?);
                    self.take(',');
                }
                Ok(Operand::Vector(all))
            }
            Token::Mark('(') => {
                self.at += 1;
                let mut all = Vec::new();
                while !self.take(')') {
                    all.push(self.word("an argument's name")?);
                    self.take(',');
                }
                Ok(Operand::List(all))
            }
            Token::Mark('!') => {
                self.at += 1;
                Ok(Operand::Not(self.word("a predicate")?))
            }
            Token::Word(word) => {
                self.at += 1;
                if self.take('|') {
                    return Ok(Operand::Pair(word, self.word("a predicate")?));
                }
                if self.take('+') {
                    // `mov %rd1, variable+8`
                    return Ok(Operand::Address(Some(word), self.int()? as i64));
                }
                Ok(Operand::Name(word))
            }
            Token::F32(bits) => {
                self.at += 1;
                Ok(Operand::F32(bits))
            }
            Token::F64(bits) => {
                self.at += 1;
                Ok(Operand::F64(bits))
            }
            _ => Ok(Operand::Int(self.int()?)),
        }
    }
}
