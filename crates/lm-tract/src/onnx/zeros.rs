//! A search for holes in weights that no checksum covers.

use super::Warning;
use super::weights::{data_file, integer, location, number, stored};
use dunlin_lm::{Error, Result, ZeroSearch};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

const ADVICE: &str = "this can be a damaged file";
/// Bytes that are read at once.
const PIECE_BYTES: u64 = 1 << 16;

/// Searches the matrices that lie outside of the files that were compared with their checksums: `summed`, and the graph's
/// own file with them.
///
/// # Errors
/// A matrix has a hole, or its file can't be read.
pub(super) fn search(path: &Path, proto: &ModelProto, summed: Option<&[PathBuf]>) -> Result<Vec<Warning>> {
    let Some(graph) = &proto.graph else {
        return Ok(Vec::new());
    };
    let stored = stored(graph);
    let mut warnings = Vec::new();
    for (name, row) in matrices(graph, &stored) {
        let tensor = stored[name];
        let file = location(tensor).map(|location| data_file(path, location));
        let is_summed = match &file {
            Some(file) => summed.is_some_and(|summed| summed.contains(file)),
            None => summed.is_some(),
        };
        if is_summed {
            continue;
        }
        let mut search = row.map_or_else(ZeroSearch::in_codes, ZeroSearch::in_rows);
        match &file {
            Some(file) => read(file, tensor, &mut search)?,
            None => search.feed(&tensor.raw_data),
        }
        if let Some(zeros) = search.finish() {
            let what = zeros.warning(file.as_deref().unwrap_or(path), "ONNX weights", name)?;
            warnings.push(Warning { what, advice: ADVICE });
        }
    }
    Ok(warnings)
}

/// The stored matrices by name, with the bytes of a row. Codes of which zero stands for a number other than 0 have no
/// rows of zeros.
///
/// Only the operands of products and tables count: the constants of a causal mask have zeros by nature.
fn matrices<'g>(
    graph: &'g GraphProto,
    stored: &BTreeMap<&'g str, &'g TensorProto>,
) -> BTreeMap<&'g str, Option<u64>> {
    let mut found = BTreeMap::new();
    for node in &graph.node {
        for name in operands(node) {
            let Some((name, tensor)) = stored.get_key_value(name.as_str()) else {
                continue;
            };
            let columns: Option<i64> =
                tensor.dims.iter().skip(1).try_fold(1i64, |all, size| all.checked_mul(*size));
            let bytes = size(tensor.data_type);
            let (Some(bytes), Some(columns), 2..) = (bytes, columns, tensor.dims.len()) else {
                continue;
            };
            let has_rows =
                node.op_type != "MatMulNBits" || node.input.get(3).is_some_and(|name| !name.is_empty());
            found.insert(*name, has_rows.then(|| bytes * columns.unsigned_abs()));
        }
    }
    found
}

/// The inputs of a node that can be weights.
fn operands(node: &NodeProto) -> &[String] {
    let range = match node.op_type.as_str() {
        "MatMul" | "Gemm" => 0..2,
        "Gather" | "GatherBlockQuantized" | "DequantizeLinear" | "Transpose" | "Cast" => 0..1,
        "MatMulNBits" if integer(node, "bits").unwrap_or(4) == 4 => 1..2,
        _ => 0..0,
    };
    node.input.get(range).unwrap_or_default()
}

/// Bytes of an element of weights; `None` for other types.
fn size(kind: i32) -> Option<u64> {
    match DataType::try_from(kind).ok()? {
        DataType::Float => Some(4),
        DataType::Float16 | DataType::Bfloat16 => Some(2),
        DataType::Uint8 | DataType::Int8 => Some(1),
        _ => None,
    }
}

/// Searches a tensor that lies in a file.
fn read(path: &Path, tensor: &TensorProto, search: &mut ZeroSearch) -> Result<()> {
    let wrong = |error| Error::io(path, error);
    let mut file = File::open(path).map_err(wrong)?;
    file.seek(SeekFrom::Start(number(tensor, "offset"))).map_err(wrong)?;
    // Without a length, the tensor's own size counts.
    let all = tensor
        .dims
        .iter()
        .try_fold(size(tensor.data_type).unwrap_or(0), |all, size| all.checked_mul(size.unsigned_abs()));
    let mut left = match number(tensor, "length") {
        0 => all.unwrap_or(0),
        length => length,
    };
    let mut piece = vec![0; PIECE_BYTES as usize];
    while left > 0 {
        let piece = &mut piece[..left.min(PIECE_BYTES) as usize];
        file.read_exact(piece).map_err(wrong)?;
        search.feed(piece);
        left -= piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::{AttributeProto, StringStringEntryProto};

    const EXTERNAL: i32 = 1;
    const ROW_BYTES: usize = 1000;
    const ROWS: usize = 20;

    /// A matrix of numbers other than 0 but for these bytes.
    fn matrix(kind: DataType, zeros: std::ops::Range<usize>) -> TensorProto {
        let mut raw_data = vec![1; ROW_BYTES * ROWS];
        raw_data[zeros].fill(0);
        let columns = ROW_BYTES as i64 / size(kind as i32).unwrap() as i64;
        TensorProto {
            name: "w".into(),
            data_type: kind as i32,
            dims: vec![ROWS as i64, columns],
            raw_data,
            ..TensorProto::default()
        }
    }

    fn model(node: NodeProto, tensor: TensorProto) -> ModelProto {
        let graph = GraphProto { node: vec![node], initializer: vec![tensor], ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    fn node(operation: &str, inputs: &[&str]) -> NodeProto {
        NodeProto {
            op_type: operation.into(),
            input: inputs.iter().map(|name| (*name).into()).collect(),
            ..NodeProto::default()
        }
    }

    fn found(node: NodeProto, tensor: TensorProto) -> Result<Vec<Warning>> {
        search(Path::new("m.onnx"), &model(node, tensor), None)
    }

    #[test]
    fn holes_in_the_operands_of_products_are_refused() {
        for (kind, node) in [
            (DataType::Float, node("MatMul", &["x", "w"])),
            (DataType::Float16, node("Gather", &["w", "ids"])),
            (DataType::Float16, node("Cast", &["w"])),
            (DataType::Int8, node("DequantizeLinear", &["w", "s"])),
            (DataType::Uint8, node("GatherBlockQuantized", &["w", "ids", "s"])),
            (DataType::Uint8, node("MatMulNBits", &["x", "w", "s", "z"])),
        ] {
            assert_eq!(found(node.clone(), matrix(kind, 0..0)).unwrap(), []);
            let error = found(node.clone(), matrix(kind, 2500..9500)).unwrap_err().to_string();
            assert!(
                error.contains("m.onnx: ")
                    && error.contains("\"w\" has zeros alone from its byte 2500 to 9500"),
                "{error}"
            );
            let warnings = found(node, matrix(kind, 2000..9000)).unwrap();
            assert!(
                warnings[0].what.starts_with("rows 2 to 8 of the tensor \"w\" are zeros"),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn codes_without_zero_points_have_no_rows_of_zeros() {
        let wide = AttributeProto { name: "bits".into(), i: 8, ..AttributeProto::default() };
        let plain = node("MatMulNBits", &["x", "w", "s"]);
        let error = found(plain.clone(), matrix(DataType::Uint8, 15_000..20_000)).unwrap_err().to_string();
        assert!(error.contains("15000 to 20000"), "{error}");
        let of_8_bits = NodeProto { attribute: vec![wide], ..plain };
        assert_eq!(found(of_8_bits, matrix(DataType::Uint8, 15_000..20_000)).unwrap(), []);
    }

    #[test]
    fn constants_that_are_no_weights_may_be_zeros() {
        let mask = node("Slice", &["w"]);
        assert_eq!(found(mask, matrix(DataType::Uint8, 2500..9500)).unwrap(), []);
        let add = node("Add", &["x", "w"]);
        assert_eq!(found(add, matrix(DataType::Float, 2500..9500)).unwrap(), []);
    }

    #[test]
    fn files_with_a_checksum_are_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, data) = (dir.path().join("m.onnx"), dir.path().join("m.onnx_data"));
        let mut tensor = matrix(DataType::Float, 2500..9500);
        std::fs::write(&data, [&[1; 6], tensor.raw_data.as_slice()].concat()).unwrap();
        tensor.raw_data.clear();
        tensor.data_location = Some(EXTERNAL);
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        tensor.external_data = vec![entry("location", "m.onnx_data"), entry("offset", "6")];
        for length in [None, Some("20000")] {
            tensor.external_data.extend(length.map(|length| entry("length", length)));
            let model = model(node("MatMul", &["x", "w"]), tensor.clone());
            for summed in [None, Some([].as_slice())] {
                let error = search(&path, &model, summed).unwrap_err().to_string();
                assert!(error.contains("m.onnx_data: ") && error.contains("2500 to 9500"), "{error}");
            }
            assert_eq!(search(&path, &model, Some(std::slice::from_ref(&data))).unwrap(), []);
        }
        let inline = model(node("MatMul", &["x", "w"]), matrix(DataType::Float, 2500..9500));
        assert_eq!(search(&path, &inline, Some(&[])).unwrap(), []);
    }
}
