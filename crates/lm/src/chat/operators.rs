//! The operators that make text, and how values are written: as Python writes them, and counted.

use super::limits::Meter;
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use std::sync::Arc;

/// The deepest value that is written.
const DEPTH_MAX: usize = 64;
/// The most elements of a value, those of its elements included.
const ELEMENTS_MAX: usize = 10_000;
/// Bytes that are counted for a list's element.
const ELEMENT_BYTES: usize = 32;

/// Adds the operators, the writing of values and a `range` that is counted.
pub(super) fn add_to(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    environment.remove_global("debug");
    add_makers(environment, meter);
    environment.add_function("==", |a: &Value, b: &Value| compared(a, b, |a, b| a == b));
    environment.add_function("!=", |a: &Value, b: &Value| compared(a, b, |a, b| a != b));
    environment.add_function("<", |a: &Value, b: &Value| compared(a, b, |a, b| a < b));
    environment.add_function("<=", |a: &Value, b: &Value| compared(a, b, |a, b| a <= b));
    environment.add_function(">", |a: &Value, b: &Value| compared(a, b, |a, b| a > b));
    environment.add_function(">=", |a: &Value, b: &Value| compared(a, b, |a, b| a >= b));
    environment.add_function("in", |element: &Value, group: &Value| contains(element, group));
    let m = meter.clone();
    environment.add_function("range", move |a: i64, b: Option<i64>, step: Option<i64>| {
        let (from, to) = b.map_or((0, a), |b| (a, b));
        range(&m, from, to, step.unwrap_or(1))
    });
    let m = meter.clone();
    environment.set_formatter(move |out, _, value| {
        match value.as_str() {
            Some(text) => {
                m.take(text.len())?;
                out.write_str(text)
            }
            None => out.write_str(&written(&m, value)?),
        }
        .map_err(|_| wrong("the text can't be written"))
    });
}

/// Adds the operators that make values.
fn add_makers(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = meter.clone();
    environment.add_function("+", move |a: &Value, b: &Value| add(&m, a, b));
    let m = meter.clone();
    environment.add_function("*", move |a: &Value, b: &Value| multiply(&m, a, b));
    let m = meter.clone();
    environment.add_function("~", move |a: &Value, b: &Value| {
        let mut text = Writer::new(&m);
        text.plain(a)?;
        text.plain(b)?;
        Ok::<_, Error>(Value::from(text.text))
    });
    let m = meter.clone();
    environment.add_function("[:]", move |value: &Value, from: &Value, to: &Value, step: &Value| {
        slice(&m, value, from, to, step)
    });
    let m = meter.clone();
    environment.add_function("[]", move |elements: Rest<Value>| {
        m.take(elements.len().saturating_mul(ELEMENT_BYTES))?;
        let list = Value::from(elements.0);
        weigh(&list).map(|()| list)
    });
    let m = meter.clone();
    environment.add_function("{}", move |pairs: Rest<Value>| {
        m.take(pairs.len().saturating_mul(ELEMENT_BYTES))?;
        pairs.iter().step_by(2).try_for_each(weigh)?;
        let map: Value = pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        weigh(&map).map(|()| map)
    });
}

/// Refuses a value that is nested too deep or has too many elements. Comparing or writing it might never end.
pub(super) fn weigh(value: &Value) -> Result<(), Error> {
    weigh_part(value, 0, &mut 0)
}

fn weigh_part(value: &Value, depth: usize, count: &mut usize) -> Result<(), Error> {
    *count += 1;
    if *count > ELEMENTS_MAX {
        return Err(wrong(format!("a value has more than {ELEMENTS_MAX} elements")));
    }
    if depth > DEPTH_MAX {
        return Err(wrong(format!("a value is nested more than {DEPTH_MAX} deep")));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            for element in value.try_iter()? {
                weigh_part(&element, depth + 1, count)?;
            }
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                weigh_part(&value.get_item(&key)?, depth + 1, count)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// True if two values compare so; an error if they can't be compared in bounded time.
pub(super) fn compared(a: &Value, b: &Value, compare: fn(&Value, &Value) -> bool) -> Result<bool, Error> {
    weigh(a)?;
    weigh(b)?;
    Ok(compare(a, b))
}

/// True if a group has an element, or a text a part.
pub(super) fn contains(element: &Value, group: &Value) -> Result<bool, Error> {
    weigh(element)?;
    weigh(group)?;
    match group.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::String => match (group.as_str(), element.as_str()) {
            (Some(text), Some(part)) => Ok(text.contains(part)),
            _ => Err(unsupported("in", element, group)),
        },
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            Ok(group.try_iter()?.any(|found| found == *element))
        }
        _ => Err(unsupported("in", element, group)),
    }
}

/// The part of a text or list between two places, as Python cuts it.
fn slice(meter: &Meter, value: &Value, from: &Value, to: &Value, step: &Value) -> Result<Value, Error> {
    let bound = |bound: &Value| match bound.kind() {
        ValueKind::None => Ok(None),
        _ => bound.as_i64().map(Some).ok_or_else(|| wrong(format!("a bound is {}", bound.kind()))),
    };
    let (from, to, step) = (bound(from)?, bound(to)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(wrong("a slice needs a step other than 0"));
    }
    if let Some(text) = value.as_str() {
        meter.take(text.len())?;
        let length = text.chars().count();
        let part: String = if step == 1 {
            let places = (place(from, 0, length), place(to, length, length));
            text.chars().take(places.1).skip(places.0).collect()
        } else {
            let letters: Vec<char> = text.chars().take(ELEMENTS_MAX).collect();
            places(from, to, step, letters.len()).map(|index| letters[index]).collect()
        };
        return Ok(Value::from(part));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(Value::from(Vec::<Value>::new())),
        _ if is_list(value) => {
            let list = elements(meter, value, 1)?;
            Ok(places(from, to, step, list.len()).map(|index| list[index].clone()).collect())
        }
        kind => Err(wrong(format!("{kind} can't be sliced"))),
    }
}

/// A bound as a place from 0 to `length`; a negative one counts from the end.
fn place(bound: Option<i64>, default: usize, length: usize) -> usize {
    let Some(bound) = bound else { return default };
    let size = usize::try_from(bound.unsigned_abs()).unwrap_or(usize::MAX);
    if bound < 0 { length.saturating_sub(size) } else { size.min(length) }
}

/// The places that a slice of `length` elements takes.
fn places(from: Option<i64>, to: Option<i64>, step: i64, length: usize) -> impl Iterator<Item = usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let at = |bound: Option<i64>, default: i64| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(length).clamp(low, high),
        Some(bound) => bound.clamp(low, high),
    };
    let (first, last) = if step > 0 { (at(from, low), at(to, high)) } else { (at(from, high), at(to, low)) };
    let next = move |place: &i64| place.checked_add(step);
    std::iter::successors(Some(first), next)
        .take_while(move |place| if step > 0 { *place < last } else { *place > last })
        .filter_map(|place| usize::try_from(place).ok())
}

/// The text of a value as `str` of Python writes it.
pub(super) fn written(meter: &Meter, value: &Value) -> Result<String, Error> {
    let mut text = Writer::new(meter);
    text.plain(value)?;
    Ok(text.text)
}

/// The error of an operation that can't be done.
pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

fn add(meter: &Meter, a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        meter.take(a.len().saturating_add(b.len()))?;
        return Ok(Value::from([a, b].concat()));
    }
    if is_list(a) && is_list(b) {
        let mut list = elements(meter, a, 1)?;
        list.extend(elements(meter, b, 1)?);
        return Ok(Value::from(list));
    }
    numbers(a, b, i64::checked_add, |a, b| a + b).ok_or_else(|| unsupported("+", a, b))
}

fn multiply(meter: &Meter, a: &Value, b: &Value) -> Result<Value, Error> {
    let (what, times) = if is_number(a) { (b, a) } else { (a, b) };
    if what.as_str().is_some() || is_list(what) {
        let times = times.as_i64().ok_or_else(|| unsupported("*", a, b))?;
        let times = usize::try_from(times).unwrap_or(0);
        if let Some(text) = what.as_str() {
            meter.take(text.len().saturating_mul(times))?;
            return Ok(Value::from(text.repeat(times)));
        }
        let elements = elements(meter, what, times)?;
        let count = elements.len() * times;
        return Ok(elements.into_iter().cycle().take(count).collect());
    }
    numbers(a, b, i64::checked_mul, |a, b| a * b).ok_or_else(|| unsupported("*", a, b))
}

/// The elements of a list that will be there `times` times.
fn elements(meter: &Meter, list: &Value, times: usize) -> Result<Vec<Value>, Error> {
    let mut elements = Vec::new();
    for element in list.try_iter()? {
        meter.take(ELEMENT_BYTES.saturating_mul(times.max(1)))?;
        elements.push(element);
    }
    if elements.len().saturating_mul(times) > ELEMENTS_MAX {
        return Err(wrong(format!("a list has more than {ELEMENTS_MAX} elements")));
    }
    Ok(elements)
}

fn numbers(
    a: &Value,
    b: &Value,
    whole: fn(i64, i64) -> Option<i64>,
    broken: fn(f64, f64) -> f64,
) -> Option<Value> {
    if !is_number(a) || !is_number(b) {
        return None;
    }
    if let (Some(a), Some(b)) = (integer(a), integer(b)) {
        return whole(a, b).map(Value::from);
    }
    Some(Value::from(broken(f64::try_from(a.clone()).ok()?, f64::try_from(b.clone()).ok()?)))
}

/// A whole number; a truth value counts as 0 or 1, as in Python.
fn integer(value: &Value) -> Option<i64> {
    match value.kind() {
        ValueKind::Bool => Some(i64::from(value.is_true())),
        _ if value.is_integer() => value.as_i64(),
        _ => None,
    }
}

fn unsupported(operator: &str, a: &Value, b: &Value) -> Error {
    wrong(format!("{operator} is not possible with {} and {}", a.kind(), b.kind()))
}

fn range(meter: &Meter, from: i64, to: i64, step: i64) -> Result<Value, Error> {
    if step == 0 {
        return Err(wrong("range needs a step other than 0"));
    }
    let span = if step > 0 { i128::from(to) - i128::from(from) } else { i128::from(from) - i128::from(to) };
    let count = (span.max(0) as u128).div_ceil(u128::from(step.unsigned_abs()));
    if count > ELEMENTS_MAX as u128 {
        return Err(wrong(format!("range has more than {ELEMENTS_MAX} elements")));
    }
    let count = count as usize;
    meter.take(count * ELEMENT_BYTES)?;
    let numbers = std::iter::successors(Some(from), |number| number.checked_add(step));
    Ok(numbers.take(count).map(Value::from).collect())
}

/// Writes values as Python does, and counts before it writes.
struct Writer<'m> {
    meter: &'m Meter,
    text: String,
}

impl<'m> Writer<'m> {
    fn new(meter: &'m Meter) -> Self {
        Self { meter, text: String::new() }
    }

    fn push(&mut self, text: &str) -> Result<(), Error> {
        self.meter.take(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    fn plain(&mut self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.push(text),
            None => self.value(value, 0),
        }
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(wrong(format!("a value is nested more than {DEPTH_MAX} deep")));
        }
        match value.kind() {
            ValueKind::Undefined => Ok(()),
            ValueKind::None => self.push("None"),
            ValueKind::Bool => self.push(if value.is_true() { "True" } else { "False" }),
            ValueKind::String => {
                let text = value.as_str().unwrap_or_default();
                let quote = if text.contains('\'') && !text.contains('"') { "\"" } else { "'" };
                let text = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
                let text = text.replace('\t', "\\t");
                let text = if quote == "'" { text.replace('\'', "\\'") } else { text };
                self.push(&format!("{quote}{text}{quote}"))
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.push("[")?;
                for (index, element) in value.try_iter()?.enumerate() {
                    self.push(if index == 0 { "" } else { ", " })?;
                    self.value(&element, depth + 1)?;
                }
                self.push("]")
            }
            ValueKind::Map => {
                self.push("{")?;
                for (index, key) in value.try_iter()?.enumerate() {
                    self.push(if index == 0 { "" } else { ", " })?;
                    self.value(&key, depth + 1)?;
                    self.push(": ")?;
                    self.value(&value.get_item(&key)?, depth + 1)?;
                }
                self.push("}")
            }
            // Numbers, and objects of the library, which are short.
            _ => self.push(&value.to_string()),
        }
    }
}
