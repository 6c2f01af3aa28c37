//! Methods of Python's strings, lists and mappings, and the filters that make text, all counted.

use super::limits::Meter;
use super::operators::{compared, contains, weigh, written, wrong};
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, FormatStyle, State, filters, format_filter};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::sync::Arc;

/// Filters of the library that make text of any length or that no template of a model needs.
const REMOVED: [&str; 9] =
    ["batch", "chain", "groupby", "lines", "pprint", "slice", "split", "urlencode", "zip"];
/// Bytes that are counted for a list's element.
const ELEMENT_BYTES: usize = 32;
/// The most digits in a row in a format: a width.
const WIDTH_DIGITS_MAX: usize = 3;
/// The most bytes that a width adds.
const WIDTH_BYTES: usize = 1000;

/// Puts a guard before filters and tests of the library, which it keeps under a name that no template can write.
macro_rules! guard {
    ($environment:ident, $meter:ident, $($name:literal: $filter:path),* $(,)?) => {$(
        $environment.add_filter(concat!("|", $name), $filter);
        let m = $meter.clone();
        $environment.add_filter($name, move |state: &State<'_, '_>, arguments: Rest<Value>| {
            arguments.iter().try_for_each(weigh)?;
            let most = arguments.iter().filter_map(Value::as_str).map(str::len).sum::<usize>();
            m.take(most)?;
            let made = state.apply_filter(concat!("|", $name), &arguments)?;
            m.take(made.as_str().map_or_else(|| made.len().unwrap_or(1) * ELEMENT_BYTES, str::len))?;
            Ok::<_, Error>(made)
        });
    )*};
}

/// Adds the methods, filters and tests.
pub(super) fn add_to(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    for name in REMOVED {
        environment.remove_filter(name);
    }
    add_guarded(environment, meter);
    add_methods(environment, meter);
    add_texts(environment, meter);
    // As in Jinja2, where nothing can't be iterated over, and texts and mappings are sequences.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    for name in [
        "eq",
        "equalto",
        "==",
        "ne",
        "!=",
        "lt",
        "lessthan",
        "<",
        "le",
        "<=",
        "gt",
        "greaterthan",
        ">",
        "ge",
        ">=",
    ] {
        let compare: fn(&Value, &Value) -> bool = match name {
            "eq" | "equalto" | "==" => |a, b| a == b,
            "ne" | "!=" => |a, b| a != b,
            "lt" | "lessthan" | "<" => |a, b| a < b,
            "le" | "<=" => |a, b| a <= b,
            "gt" | "greaterthan" | ">" => |a, b| a > b,
            _ => |a, b| a >= b,
        };
        environment.add_test(name, move |a: &Value, b: &Value| compared(a, b, compare));
    }
    environment.add_test("in", |element: &Value, group: &Value| contains(element, group));
}

/// Adds the library's filters that make no more than they get.
fn add_guarded(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    guard!(environment, meter,
        "abs": filters::abs, "attr": filters::attr, "bool": filters::bool, "count": filters::length,
        "d": filters::default, "default": filters::default, "dictsort": filters::dictsort,
        "e": filters::escape, "escape": filters::escape, "first": filters::first, "float": filters::float,
        "int": filters::int, "items": filters::items, "last": filters::last, "length": filters::length,
        "list": filters::list, "map": filters::map, "max": filters::max, "min": filters::min,
        "reject": filters::reject, "rejectattr": filters::rejectattr, "reverse": filters::reverse,
        "round": filters::round, "safe": filters::safe, "select": filters::select,
        "selectattr": filters::selectattr, "sort": filters::sort, "sum": filters::sum,
        "unique": filters::unique,
    );
}

/// Adds the methods.
fn add_methods(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = meter.clone();
    environment.set_unknown_method_callback(move |state, value, method, args| {
        let subject = value.as_str();
        m.take(subject.map_or(0, str::len))?;
        match (subject, method, args) {
            // A library's trim and Python's differ in a few control characters.
            (Some(text), "strip", []) => Ok(Value::from(text.trim_matches(is_space))),
            (Some(text), "lstrip", []) => Ok(Value::from(text.trim_start_matches(is_space))),
            (Some(text), "rstrip", []) => Ok(Value::from(text.trim_end_matches(is_space))),
            (Some(text), "replace", [from, to, ..]) => {
                m.take(grown(text, from, to))?;
                unknown_method_callback(state, value, method, args)
            }
            (Some(separator), "join", [list]) => joined(&m, list, separator),
            (Some(text), "format", _) => formatted(&m, FormatStyle::StrFormat, text, args),
            (None, _, _) => {
                weigh(value)?;
                unknown_method_callback(state, value, method, args)
            }
            (Some(text), "split" | "splitlines" | "capitalize" | "title" | "upper" | "lower", _) => {
                m.take(text.len().saturating_mul(32))?;
                unknown_method_callback(state, value, method, args)
            }
            _ => unknown_method_callback(state, value, method, args),
        }
    });
}

/// Adds the filters that make text.
fn add_texts(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = meter.clone();
    environment.add_filter("join", move |list: &Value, separator: Option<&str>| {
        joined(&m, list, separator.unwrap_or_default())
    });
    let m = meter.clone();
    environment.add_filter("replace", move |text: &Value, from: &Value, to: &Value| {
        let (text, from, to) = (written(&m, text)?, written(&m, from)?, written(&m, to)?);
        m.take(grown(&text, &Value::from(from.as_str()), &Value::from(to.as_str())))?;
        Ok::<_, Error>(Value::from(text.replace(&from, &to)))
    });
    let m = meter.clone();
    environment.add_filter("indent", move |text: &str, width: Option<usize>, first: Option<bool>| {
        indented(&m, text, width.unwrap_or(4), first.unwrap_or(false))
    });
    let m = meter.clone();
    environment.add_filter("trim", move |text: &Value, chars: Option<&str>| {
        let text = written(&m, text)?;
        Ok::<_, Error>(Value::from(match chars {
            Some(chars) => text.trim_matches(|c| chars.contains(c)),
            None => text.trim_matches(is_space),
        }))
    });
    let m = meter.clone();
    environment.add_filter("format", move |text: &str, arguments: Rest<Value>| {
        formatted(&m, FormatStyle::Printf, text, &arguments)
    });
    for name in ["title", "capitalize"] {
        let m = meter.clone();
        environment.add_filter(name, move |state: &State<'_, '_>, text: &Value| {
            let text = Value::from(written(&m, text)?);
            unknown_method_callback(state, &text, name, &[])
        });
    }
    for name in ["string", "upper", "lower"] {
        let m = meter.clone();
        environment.add_filter(name, move |text: &Value| {
            let text = written(&m, text)?;
            m.take(text.len())?;
            Ok::<_, Error>(Value::from(match name {
                "upper" => text.to_uppercase(),
                "lower" => text.to_lowercase(),
                _ => text,
            }))
        });
    }
}

/// A blank to Python's `strip`.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The most bytes of `text` with `from` replaced.
fn grown(text: &str, from: &Value, to: &Value) -> usize {
    let (from, to) = (from.as_str().unwrap_or_default(), to.as_str().unwrap_or_default());
    let places = if from.is_empty() { text.len() + 1 } else { text.matches(from).count() };
    text.len().saturating_add(places.saturating_mul(to.len()))
}

/// A text formatted with arguments. Only short widths are taken.
fn formatted(meter: &Meter, style: FormatStyle, text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let mut digits = 0;
    for c in text.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > WIDTH_DIGITS_MAX {
            return Err(wrong(format!("format: a number has more than {WIDTH_DIGITS_MAX} digits")));
        }
    }
    // A width may also be an argument.
    if text.contains('*') || text.split('{').skip(1).any(|field| field.contains(':') && !field.contains('}'))
    {
        return Err(wrong("format: a width must be a number"));
    }
    let mut longest: usize = WIDTH_BYTES;
    for argument in arguments {
        weigh(argument)?;
        longest = longest.saturating_add(written(meter, argument)?.len());
    }
    let fields = text.matches(['{', '%']).count();
    meter.take(text.len().saturating_add(fields.saturating_mul(longest)))?;
    format_filter(style, text, arguments).map(Value::from)
}

fn joined(meter: &Meter, list: &Value, separator: &str) -> Result<Value, Error> {
    if !matches!(list.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::String) {
        return Err(wrong(format!("join is not possible with {}", list.kind())));
    }
    let mut text = String::new();
    let push = |text: &mut String, part: &str| {
        meter.take(part.len() + 1)?;
        text.push_str(part);
        Ok::<_, Error>(())
    };
    if let Some(letters) = list.as_str() {
        for (index, letter) in letters.chars().enumerate() {
            push(&mut text, if index == 0 { "" } else { separator })?;
            push(&mut text, letter.encode_utf8(&mut [0; 4]))?;
        }
        return Ok(Value::from(text));
    }
    for (index, part) in list.try_iter()?.enumerate() {
        push(&mut text, if index == 0 { "" } else { separator })?;
        match part.as_str() {
            Some(part) => push(&mut text, part)?,
            None => text.push_str(&written(meter, &part)?),
        }
    }
    Ok(Value::from(text))
}

fn indented(meter: &Meter, text: &str, width: usize, first: bool) -> Result<Value, Error> {
    let lines = text.split('\n').count();
    meter.take(text.len().saturating_add(lines.saturating_mul(width)))?;
    let blank = " ".repeat(width);
    let mut indented = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        if !line.is_empty() && (index > 0 || first) {
            indented.push_str(&blank);
        }
        indented.push_str(line);
    }
    Ok(Value::from(indented))
}
