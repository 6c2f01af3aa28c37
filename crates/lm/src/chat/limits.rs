//! Limits on what a rendering may take. The library counts instructions, but one instruction may make any amount of
//! text. So the instructions that make text are replaced by calls of functions that count it.

use minijinja::machinery::{
    CompiledTemplate, Instruction, Instructions, TemplateConfig, Token, Vm, WhitespaceConfig,
    make_string_output, tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The variable by which [`unfolded`] multiplies; its value is 1.
pub(super) const ONE: &str = "dunlin_one";

/// The most tokens of a tag or an expression: the compiler takes their square in time.
const EXPRESSION_TOKENS_MAX: usize = 2048;

/// Counts the bytes that a rendering makes.
#[derive(Debug)]
pub(super) struct Meter {
    left: AtomicUsize,
}

impl Meter {
    /// A meter that lets `bytes` pass.
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    /// Counts `bytes` before they are made.
    ///
    /// # Errors
    /// They exceed what is left.
    pub(super) fn take(&self, bytes: usize) -> Result<(), Error> {
        let less = |left: usize| left.checked_sub(bytes);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::InvalidOperation, "it makes too much text on its way")),
        }
    }
}

/// The source with a factor of 1 in every product. The library computes a product of constants while it compiles, and
/// so before anything counts; with a variable in it, it does not.
///
/// # Errors
/// An expression is too long; the line is that of its end.
pub(super) fn unfolded(source: &str) -> Result<String, (usize, String)> {
    let mut changed = String::with_capacity(source.len());
    let (mut done, mut length) = (0, 0);
    let tokens = tokenize(source, false, SyntaxConfig, WhitespaceConfig::default());
    // A source that is no sequence of tokens is refused when it is compiled.
    for (token, span) in tokens.map_while(Result::ok) {
        length = if matches!(token, Token::VariableStart | Token::BlockStart) { 0 } else { length + 1 };
        if length > EXPRESSION_TOKENS_MAX {
            let message = format!("an expression has more than {EXPRESSION_TOKENS_MAX} parts");
            return Err((span.end_line.into(), message));
        }
        let at = span.start_offset as usize;
        if matches!(token, Token::Mul) && source.get(at..).is_some_and(|rest| rest.starts_with('*')) {
            changed.push_str(&source[done..at]);
            changed.push_str(&format!("*{ONE}"));
            done = at;
        }
    }
    changed.push_str(&source[done..]);
    Ok(changed)
}

/// Compiles a template and replaces its operators.
pub(super) fn compile<'s>(
    environment: &Environment<'_>,
    source: &'s str,
) -> Result<CompiledTemplate<'s>, Error> {
    let config = TemplateConfig {
        syntax_config: SyntaxConfig,
        ws_config: WhitespaceConfig {
            keep_trailing_newline: environment.keep_trailing_newline(),
            lstrip_blocks: environment.lstrip_blocks(),
            trim_blocks: environment.trim_blocks(),
        },
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    let mut compiled = CompiledTemplate::new("template", source, &config)?;
    for instructions in std::iter::once(&mut compiled.instructions).chain(compiled.blocks.values_mut()) {
        replace(instructions);
    }
    Ok(compiled)
}

/// A function takes from the stack and leaves on it what an operator does. No template can write or define the names
/// of these functions.
fn replace(instructions: &mut Instructions<'_>) {
    for index in 0.. {
        let Some(instruction) = instructions.get_mut(index) else { return };
        let (name, operands) = match instruction {
            Instruction::Add => ("+", 2),
            Instruction::Mul => ("*", 2),
            Instruction::StringConcat => ("~", 2),
            Instruction::Eq => ("==", 2),
            Instruction::Ne => ("!=", 2),
            Instruction::Lt => ("<", 2),
            Instruction::Lte => ("<=", 2),
            Instruction::Gt => (">", 2),
            Instruction::Gte => (">=", 2),
            Instruction::In => ("in", 2),
            Instruction::Slice => ("[:]", 4),
            Instruction::BuildList(Some(count)) => ("[]", *count),
            Instruction::BuildMap(pairs) => ("{}", pairs.saturating_mul(2)),
            _ => continue,
        };
        // A literal with more elements than an instruction can tell stays: it is as long as the source at most.
        if let Ok(operands) = u16::try_from(operands) {
            *instruction = Instruction::CallFunction(name, Some(operands));
        }
    }
}

/// The instructions that a template may take: `most`, or fewer if its longest piece of plain text, written by each of
/// them, would exceed `bytes`.
pub(super) fn fuel(compiled: &CompiledTemplate<'_>, most: u64, bytes: usize) -> u64 {
    let all = std::iter::once(&compiled.instructions).chain(compiled.blocks.values());
    let lengths = all.flat_map(|instructions| {
        (0..).map_while(|index| instructions.get(index)).map(|instruction| match instruction {
            Instruction::EmitRaw(text) => text.len(),
            _ => 0,
        })
    });
    let longest = lengths.max().unwrap_or_default().max(1);
    most.min((bytes / longest) as u64)
}

/// The text that a compiled template writes.
pub(super) fn evaluate<'e>(
    environment: &'e Environment<'e>,
    compiled: &CompiledTemplate<'e>,
    context: Value,
) -> Result<String, Error> {
    let mut text = String::new();
    let mut output = make_string_output(&mut text);
    let vm = Vm::new(environment);
    vm.eval(&compiled.instructions, context, &compiled.blocks, &mut output, AutoEscape::None)?;
    Ok(text)
}
