//! Text on a terminal: committed text stays; drafted text appears dimmed behind the cursor and is painted over.
//! Without a terminal, only committed text is written.
//!
//! Invariant: the dimmed tail never reaches the end of its line. So it can be erased without relying on how the
//! terminal wraps.

use std::io::{self, Write};
use unicode_width::UnicodeWidthChar;

const TAB: usize = 8;
const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const ERASE_REST: &str = "\x1b[K";

/// A colour of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// The terminal's own.
    Plain,
    /// Green.
    Green,
    /// Yellow.
    Yellow,
    /// Red.
    Red,
    /// Cyan.
    Cyan,
}

impl Colour {
    /// The escape sequence that begins it.
    pub fn begin(self) -> &'static str {
        match self {
            Self::Plain => RESET,
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Red => "\x1b[31m",
            Self::Cyan => "\x1b[36m",
        }
    }
}

/// Abilities of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Colours may be used.
    pub colour: bool,
    /// The cursor can be moved, so a tail can be shown. Requires colour, to distinguish the tail.
    pub cursor: bool,
}

/// A place text is written to.
pub struct Screen<W> {
    out: W,
    abilities: Abilities,
    /// Columns of the terminal, queried before each write.
    columns: Box<dyn Fn() -> usize>,
    column: usize,
    colour: Colour,
    tail: bool,
}

impl<W: Write> Screen<W> {
    /// A screen whose cursor stands at the beginning of a line of `columns()` columns.
    pub fn new(out: W, abilities: Abilities, columns: Box<dyn Fn() -> usize>) -> Self {
        Self { out, abilities, columns, column: 0, colour: Colour::Plain, tail: false }
    }

    /// Writes text that stays.
    ///
    /// # Errors
    /// The output can't be written to.
    pub fn commit(&mut self, text: &str, colour: Colour) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.erase_tail()?;
        self.set_colour(colour)?;
        let columns = (self.columns)().max(1);
        for character in text.chars().map(|c| if self.abilities.cursor { harmless(c) } else { c }) {
            self.column = advance(self.column, character, columns);
            write!(self.out, "{character}")?;
        }
        Ok(())
    }

    /// Shows provisional text behind the committed text; replaces the previous tail.
    ///
    /// # Errors
    /// The output can't be written to.
    pub fn tail(&mut self, text: &str) -> io::Result<()> {
        if !(self.abilities.cursor && self.abilities.colour) {
            return self.out.flush();
        }
        self.erase_tail()?;
        let room = (self.columns)().saturating_sub(self.column + 1);
        let (fitting, width) = fitting(text, room);
        if width > 0 {
            self.set_colour(Colour::Plain)?;
            write!(self.out, "{DIM}{fitting}{RESET}\x1b[{width}D")?;
            self.tail = true;
        }
        self.out.flush()
    }

    /// Ends the line, so that other output can go to the same terminal.
    ///
    /// # Errors
    /// The output can't be written to.
    pub fn end_line(&mut self) -> io::Result<()> {
        self.erase_tail()?;
        self.set_colour(Colour::Plain)?;
        if self.column > 0 {
            writeln!(self.out)?;
            self.column = 0;
        }
        self.out.flush()
    }

    fn erase_tail(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.tail) {
            write!(self.out, "{ERASE_REST}")?;
        }
        Ok(())
    }

    fn set_colour(&mut self, colour: Colour) -> io::Result<()> {
        if self.abilities.colour && colour != self.colour {
            write!(self.out, "{}", colour.begin())?;
            self.colour = colour;
        }
        Ok(())
    }
}

/// Replaces control characters: a model's text may contain escape sequences, which must not reach the terminal.
fn harmless(character: char) -> char {
    let control = character.is_control() && !matches!(character, '\n' | '\t');
    if control { char::REPLACEMENT_CHARACTER } else { character }
}

/// The column after `character`; `columns` itself means that the line is full and the terminal wraps at the next one.
fn advance(column: usize, character: char, columns: usize) -> usize {
    let column = column.min(columns);
    match character {
        '\n' => 0,
        '\t' => ((column / TAB + 1) * TAB).min(columns.saturating_sub(1)),
        character => match character.width().unwrap_or(0) {
            0 => column,
            width if column + width > columns => width,
            width => column + width,
        },
    }
}

/// The longest prefix of the text's first line that is at most `room` wide, and its width.
fn fitting(text: &str, room: usize) -> (String, usize) {
    let (mut fitting, mut width) = (String::new(), 0);
    for character in text.chars().take_while(|c| *c != '\n') {
        let character = if character == '\t' { ' ' } else { harmless(character) };
        let next = width + character.width().unwrap_or(0);
        if next > room {
            break;
        }
        if next == 0 {
            continue; // it would combine with a committed character
        }
        fitting.push(character);
        width = next;
    }
    (fitting, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: usize = 10;

    /// A model of a terminal, as far as the screen relies on it: cells, a cursor, and a pending wrap.
    #[derive(Default)]
    struct Terminal {
        lines: Vec<Vec<char>>,
        column: usize,
    }

    impl Terminal {
        fn show(bytes: &[u8]) -> Self {
            let mut terminal = Self { lines: vec![Vec::new()], column: 0 };
            let text = std::str::from_utf8(bytes).unwrap();
            let mut rest = text.chars();
            while let Some(character) = rest.next() {
                if character != '\x1b' {
                    terminal.put(character);
                    continue;
                }
                assert_eq!(rest.next(), Some('['));
                let sequence: String = rest.by_ref().take_while_inclusive();
                terminal.obey(&sequence);
            }
            terminal
        }

        fn put(&mut self, character: char) {
            if character == '\n' {
                self.lines.push(Vec::new());
                self.column = 0;
                return;
            }
            let width = character.width().unwrap();
            if width == 0 {
                return; // combines with the previous character
            }
            if self.column + width > COLUMNS {
                self.lines.push(Vec::new());
                self.column = 0;
            }
            let line = self.lines.last_mut().unwrap();
            line.resize(line.len().max(self.column + width), ' ');
            line[self.column] = character;
            for covered in &mut line[self.column + 1..self.column + width] {
                *covered = '\0';
            }
            self.column += width;
        }

        fn obey(&mut self, sequence: &str) {
            let (argument, verb) = sequence.split_at(sequence.len() - 1);
            match verb {
                "m" => {}
                "K" => {
                    assert!(self.column < COLUMNS, "erases where a wrap is due");
                    self.lines.last_mut().unwrap().truncate(self.column);
                }
                "D" => {
                    let back: usize = argument.parse().unwrap();
                    assert!(self.column < COLUMNS && back <= self.column);
                    self.column -= back;
                }
                other => panic!("sequence {other}"),
            }
        }

        fn text(&self) -> Vec<String> {
            let cells = |line: &Vec<char>| line.iter().filter(|c| **c != '\0').collect::<String>();
            self.lines.iter().map(cells).collect()
        }
    }

    trait TakeWhileInclusive {
        fn take_while_inclusive(self) -> String;
    }

    impl<I: Iterator<Item = char>> TakeWhileInclusive for I {
        fn take_while_inclusive(mut self) -> String {
            let mut taken = String::new();
            for character in self.by_ref() {
                taken.push(character);
                if character.is_ascii_alphabetic() {
                    break;
                }
            }
            taken
        }
    }

    fn screen(abilities: Abilities) -> Screen<Vec<u8>> {
        Screen::new(Vec::new(), abilities, Box::new(|| COLUMNS))
    }

    const ALL: Abilities = Abilities { colour: true, cursor: true };

    #[test]
    fn a_tail_is_painted_over() {
        let mut screen = screen(ALL);
        screen.commit("ab", Colour::Green).unwrap();
        screen.tail("cdefghijklm").unwrap();
        assert_eq!(Terminal::show(&screen.out).text(), ["abcdefghi"]);
        screen.commit("X", Colour::Yellow).unwrap();
        assert_eq!(Terminal::show(&screen.out).text(), ["abX"]);
        screen.tail("y").unwrap();
        screen.end_line().unwrap();
        assert_eq!(Terminal::show(&screen.out).text(), ["abX", ""]);
    }

    #[test]
    fn any_text_comes_out_as_if_there_were_no_tail() {
        let pieces = ["Grüße, ", "日本", "語", "x", "\n", "…", "😀", "0123456789", "ab ", "e\u{301}", "後"];
        for start in 0..pieces.len() {
            let (mut tailed, mut plain) = (screen(ALL), screen(ALL));
            for step in 0..60 {
                let piece = pieces[(start + step * (start + 1)) % pieces.len()].replace('\u{301}', "");
                let ahead = pieces[(start + step) % pieces.len()].repeat(step % 4);
                tailed.commit(&piece, Colour::Green).unwrap();
                tailed.tail(&ahead).unwrap();
                plain.commit(&piece, Colour::Green).unwrap();
            }
            tailed.tail("").unwrap();
            assert_eq!(Terminal::show(&tailed.out).text(), Terminal::show(&plain.out).text());
        }
    }

    #[test]
    fn a_full_line_shows_no_tail() {
        let mut screen = screen(ALL);
        screen.commit("0123456789", Colour::Plain).unwrap();
        screen.tail("abc").unwrap();
        assert_eq!(Terminal::show(&screen.out).text(), ["0123456789"]);
        screen.commit("a", Colour::Plain).unwrap();
        screen.tail("bc").unwrap();
        assert_eq!(Terminal::show(&screen.out).text(), ["0123456789", "abc"]);
    }

    #[test]
    fn escape_sequences_of_the_model_are_not_obeyed() {
        let mut screen = screen(ALL);
        screen.commit("a\x1b[2Jb\r", Colour::Plain).unwrap();
        screen.tail("\x1b[H").unwrap();
        assert_eq!(Terminal::show(&screen.out).text(), ["a\u{fffd}[2Jb\u{fffd}\u{fffd}["]);
    }

    #[test]
    fn a_pipe_gets_the_text_alone() {
        let mut screen = screen(Abilities { colour: false, cursor: false });
        screen.commit("ab\r", Colour::Green).unwrap();
        screen.tail("cd").unwrap();
        screen.commit("é\n", Colour::Red).unwrap();
        assert_eq!(screen.out, "ab\ré\n".as_bytes());
    }
}
