//! Reading valid files.

use crate::build::{File, whole};
use dunlin_gguf::{Array, BlockType, TensorInfo, Value};

#[test]
fn every_kind_of_value_is_read() {
    for version in 1..=3 {
        let header = whole(version).read().unwrap();
        let value = |key: &str| &header.metadata()[key];
        assert_eq!(header.metadata().len(), 14);
        assert_eq!(value("u8"), &Value::U8(200));
        assert_eq!(value("i8"), &Value::I8(-56));
        assert_eq!(value("u16"), &Value::U16(40_000));
        assert_eq!(value("i16"), &Value::I16(-2));
        assert_eq!(value("i32"), &Value::I32(-3));
        assert_eq!(value("f32"), &Value::F32(0.5));
        assert_eq!(value("bool"), &Value::Bool(true));
        assert_eq!(value("u64"), &Value::U64(u64::MAX));
        assert_eq!(value("i64"), &Value::I64(9));
        assert_eq!(value("f64"), &Value::F64(0.25));
        assert_eq!(value("texts"), &Value::Array(Array::String(vec!["a".into(), "ß".into()])));
        let nested = Array::Array(vec![Array::I32(vec![7, -1])]);
        assert_eq!(value("nested"), &Value::Array(nested));
    }
}

#[test]
fn typed_values_are_those_of_the_key() {
    let header = whole(3).read().unwrap();
    assert_eq!(header.string("general.architecture").unwrap(), "llama");
    assert_eq!(header.context_length().unwrap(), 512);
    assert_eq!(header.vocabulary_size().unwrap(), 3);
    assert_eq!(header.u32("i64").unwrap(), 9);
    assert_eq!(header.optional_u32("missing").unwrap(), None);
    assert_eq!(header.optional_f32("f64").unwrap(), Some(0.25));
    let said = |error: dunlin_gguf::Error| error.to_string();
    assert_eq!(said(header.u32("i32").unwrap_err()), "i32: expected an unsigned integer, found I32(-3)");
    assert_eq!(
        said(header.u32("u64").unwrap_err()),
        format!("u64: expected an unsigned integer, found U64({})", u64::MAX)
    );
    assert_eq!(said(header.u32("none").unwrap_err()), "none: expected an unsigned integer, found nothing");
    assert_eq!(said(header.string("texts").unwrap_err()), "texts: expected a string, found an array of 2");
    assert_eq!(said(header.optional_f32("bool").unwrap_err()), "bool: expected a number, found Bool(true)");
}

#[test]
fn tensors_lie_where_the_file_says() {
    for version in 1..=3 {
        let file = whole(version);
        let (_, data) = file.bytes();
        let header = file.read().unwrap();
        let info = |kind, shape: &[u64], offset, bytes| TensorInfo {
            kind,
            shape: shape.into(),
            offset: data as u64 + offset,
            bytes,
        };
        assert_eq!(
            header.tensors().keys().collect::<Vec<_>>(),
            ["norm", "output.weight", "token_embd.weight"]
        );
        assert_eq!(header.tensors()["token_embd.weight"], info(BlockType::Q8_0, &[3, 32], 0, 102));
        assert_eq!(header.tensors()["norm"], info(BlockType::F32, &[5], 128, 20));
        assert_eq!(header.tensors()["output.weight"], info(BlockType::IQ4_NL, &[2, 256], 160, 288));
    }
}

#[test]
fn a_file_may_align_its_tensors_otherwise() {
    let mut file = whole(3).key("general.alignment", 4, &256u32.to_le_bytes());
    file.alignment = 256;
    let (_, data) = file.bytes();
    assert_eq!(file.read().unwrap().tensors()["norm"].offset, data as u64 + 128);
}

#[test]
fn zeros_at_the_end_of_a_string_are_left_out() {
    let header = File::new().text("a", "b\0\0").read().unwrap();
    assert_eq!(header.string("a").unwrap(), "b");
}

#[test]
fn lists_and_flags_are_read_by_type() {
    let numbers = |kind, bytes: &[u8]| File::new().array(kind, bytes.len() / 4, bytes);
    let header = whole(3)
        .key("floats", 9, &numbers(6, &0.5f32.to_le_bytes()))
        .key("integers", 9, &numbers(5, &(-4i32).to_le_bytes()))
        .read()
        .unwrap();
    assert_eq!(header.strings("texts").unwrap().unwrap(), ["a", "ß"]);
    assert_eq!(header.floats("floats").unwrap().unwrap(), [0.5]);
    assert_eq!(header.integers("integers").unwrap().unwrap(), [-4]);
    assert_eq!(header.optional_bool("bool").unwrap(), Some(true));
    assert_eq!(header.optional_string("general.architecture").unwrap(), Some("llama"));
    assert!(header.strings("missing").unwrap().is_none() && header.floats("missing").unwrap().is_none());
    assert!(
        header.integers("missing").unwrap().is_none() && header.optional_bool("missing").unwrap().is_none()
    );
    let said = |error: dunlin_gguf::Error| error.to_string();
    assert_eq!(said(header.strings("u8").unwrap_err()), "u8: expected an array of strings, found U8(200)");
    assert_eq!(
        said(header.floats("integers").unwrap_err()),
        "integers: expected an array of 32-bit floats, found an array of 1"
    );
    assert_eq!(
        said(header.integers("floats").unwrap_err()),
        "floats: expected an array of integers, found an array of 1"
    );
    assert_eq!(said(header.optional_bool("u8").unwrap_err()), "u8: expected true or false, found U8(200)");
    assert_eq!(said(header.optional_string("u8").unwrap_err()), "u8: expected a string, found U8(200)");
}

#[test]
fn bytes_that_are_not_utf8_are_told() {
    let text = [&2u64.to_le_bytes()[..], b"\xff\xfe"].concat();
    let list = File::new().array(8, 1, &text);
    let header = whole(3).key("text", 8, &text).key("list", 9, &list).read().unwrap();
    assert!(header.is_replaced("text") && header.is_replaced("list") && !header.is_replaced("texts"));
    let said = |error: dunlin_gguf::Error| error.to_string();
    assert_eq!(said(header.optional_string("text").unwrap_err()), "text: expected UTF-8, found other bytes");
    assert_eq!(said(header.strings("list").unwrap_err()), "list: expected UTF-8, found other bytes");
    assert_eq!(header.string("text").unwrap(), "\u{fffd}\u{fffd}");
}
