//! `tojson` as `transformers` sets it: `json.dumps` of Python with `ensure_ascii=False`.

use super::limits::Meter;
use super::operators::wrong;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error};
use std::fmt::Write;
use std::sync::Arc;

/// The deepest value that is written.
const DEPTH_MAX: usize = 64;
/// The widest indentation of a level.
const INDENT_MAX: usize = 16;

/// Adds the filter `tojson`.
pub(super) fn add_to(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let meter = meter.clone();
    environment.add_filter("tojson", move |value: &Value, indent: Option<Value>, options: Kwargs| {
        let named: Option<Value> = options.get("indent")?;
        let sorted: Option<bool> = options.get("sort_keys")?;
        let ascii: Option<bool> = options.get("ensure_ascii")?;
        let separators: Option<Value> = options.get("separators")?;
        options.assert_all_used()?;
        let indent = indent.or(named).and_then(|value| usize::try_from(value.as_i64()?).ok());
        let (mut comma, mut colon) = (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
        if let Some(pair) = separators.filter(|value| !value.is_none()) {
            let part = |index: i64| pair.get_item(&Value::from(index)).map(|part| part.to_string());
            (comma, colon) = (part(0)?, part(1)?);
        }
        let mut json = Json {
            meter: &meter,
            text: String::new(),
            indent: indent.map(|width| width.min(INDENT_MAX)),
            sorted: sorted.unwrap_or(false),
            ascii: ascii.unwrap_or(false),
            comma,
            colon,
        };
        json.value(value, 0)?;
        Ok::<_, Error>(Value::from(json.text))
    });
}

struct Json<'m> {
    meter: &'m Meter,
    text: String,
    indent: Option<usize>,
    sorted: bool,
    ascii: bool,
    comma: String,
    colon: String,
}

impl Json<'_> {
    fn push(&mut self, text: &str) -> Result<(), Error> {
        self.meter.take(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(wrong(format!("tojson: a value is nested more than {DEPTH_MAX} deep")));
        }
        match value.kind() {
            ValueKind::None => self.push("null"),
            ValueKind::Bool => self.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.push(&number(value)),
            ValueKind::String => {
                let text = quoted(value.as_str().unwrap_or_default(), self.ascii);
                self.push(&text)
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let elements = value.try_iter()?.map(|element| Ok((None, element)));
                self.group(['[', ']'], elements, depth)
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                let pairs = keys.into_iter().map(|key| {
                    let element = value.get_item(&key)?;
                    Ok((Some(key), element))
                });
                self.group(['{', '}'], pairs, depth)
            }
            kind => Err(wrong(format!("tojson can't write {kind}"))),
        }
    }

    fn group(
        &mut self,
        brackets: [char; 2],
        elements: impl Iterator<Item = Result<(Option<Value>, Value), Error>>,
        depth: usize,
    ) -> Result<(), Error> {
        self.push(brackets[0].encode_utf8(&mut [0; 4]))?;
        let mut is_empty = true;
        for element in elements {
            let (key, element) = element?;
            if !is_empty {
                self.push(&self.comma.clone())?;
            }
            is_empty = false;
            self.line(depth + 1)?;
            if let Some(key) = key {
                let key = key.as_str().map_or_else(|| key.to_string(), String::from);
                self.push(&quoted(&key, self.ascii))?;
                self.push(&self.colon.clone())?;
            }
            self.value(&element, depth + 1)?;
        }
        if !is_empty {
            self.line(depth)?;
        }
        self.push(brackets[1].encode_utf8(&mut [0; 4]))
    }

    /// Begins a line, if there are any.
    fn line(&mut self, depth: usize) -> Result<(), Error> {
        match self.indent {
            Some(width) => self.push(&format!("\n{}", " ".repeat(width * depth))),
            None => Ok(()),
        }
    }
}

/// A number as `repr` of Python writes it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else { return value.to_string() };
    if float.is_nan() {
        return "NaN".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let size = float.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{float:?}");
    }
    let text = format!("{float:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

fn quoted(text: &str, ascii: bool) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            c if c < ' ' || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(quoted, "\\u{unit:04x}").expect("a String takes every write");
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pythons() {
        let cases = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
        ];
        for (float, expected) in cases {
            assert_eq!(number(&Value::from(float)), expected);
        }
        assert_eq!(number(&Value::from(3)), "3");
    }

    #[test]
    fn strings_are_pythons() {
        assert_eq!(quoted("a\"\\\n\t\u{1}\u{7f}é</", false), "\"a\\\"\\\\\\n\\t\\u0001\u{7f}é</\"");
        assert_eq!(quoted("é🐦", true), "\"\\u00e9\\ud83d\\udc26\"");
    }
}
