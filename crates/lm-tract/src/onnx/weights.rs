//! A check of quantized weights. tract runs 4 bits in blocks of 32 (`MatMulNBits`) and plain floats well. Weights that
//! it can't run are refused by name; those that it runs slowly or with much memory give a warning.

use dunlin_lm::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

/// ONNX's number for data in a file beside the graph.
const EXTERNAL: i32 = 1;

const ADVICE: &str = "quantize the matrices as MatMulNBits with 4 bits and blocks of 32";
const ADVICE_EMBEDDING: &str = "store the embedding as floats, or as GatherBlockQuantized packed in uint8";

/// A warning about weights that run, but not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The finding, with the number of places.
    pub what: String,
    /// Its cost, and the remedy.
    pub advice: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.advice)
    }
}

/// One kind of weights that is worth a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slow {
    Block(i64),
    Ragged(i64),
    Half,
    Stored8Bit,
    Dynamic8Bit,
    Linear8Bit,
}

impl Slow {
    fn warning(self, places: usize) -> Warning {
        let (what, advice) = match self {
            Self::Block(size) => (
                format!("MatMulNBits in blocks of {size}"),
                "these weights are expanded to floats, 8 times the memory: use blocks of 32",
            ),
            Self::Ragged(inner) => (
                format!("MatMulNBits of inner size {inner}"),
                "these weights are expanded to floats, 8 times the memory: use an inner size of whole blocks of 32",
            ),
            Self::Half => (
                "weights of 16-bit floats".into(),
                "these weights are expanded to 32-bit floats, twice the memory: use MatMulNBits with 4 bits",
            ),
            Self::Stored8Bit => (
                "DequantizeLinear of 8-bit weights".into(),
                "weights are dequantized at every token, about 40 times as slow as floats: use MatMulNBits with 4 bits",
            ),
            Self::Dynamic8Bit => (
                "DynamicQuantizeLinear".into(),
                "8-bit activations are about 50 times as slow as floats here: use MatMulNBits with 4 bits",
            ),
            Self::Linear8Bit => {
                ("QLinearMatMul".into(), "8-bit products are slow here: use MatMulNBits with 4 bits")
            }
        };
        Warning { what: format!("{what} ({places} places)"), advice }
    }
}

/// Refuses weights that can't run, and lists those that run badly.
pub(super) fn check(path: &Path, proto: &ModelProto) -> Result<Vec<Warning>> {
    let mut slow = BTreeMap::new();
    if let Some(graph) = &proto.graph {
        let stored = stored(graph);
        for tensor in stored.values() {
            check_tensor(path, tensor)?;
        }
        let halves = halves(graph, &stored);
        if halves > 0 {
            slow.insert(Slow::Half, halves);
        }
        for node in &graph.node {
            if let Some(kind) = check_node(path, node, &stored)? {
                *slow.entry(kind).or_insert(0) += 1;
            }
        }
    }
    Ok(slow.into_iter().map(|(kind, places): (Slow, usize)| kind.warning(places)).collect())
}

/// The number of matrices of 16-bit floats. Scales of quantized weights have that size when they run, too.
fn halves(graph: &GraphProto, stored: &BTreeMap<&str, &TensorProto>) -> usize {
    let quantized = graph
        .node
        .iter()
        .filter(|node| matches!(node.op_type.as_str(), "MatMulNBits" | "GatherBlockQuantized"));
    let mut scales: BTreeSet<&str> = quantized.filter_map(|node| Some(node.input.get(2)?.as_str())).collect();
    // Scales that are stored in 16 bits are cast to the type of the activations.
    let casts = graph.node.iter().filter(|node| node.op_type == "Cast");
    let cast: Vec<&str> = casts
        .filter(|node| node.output.iter().any(|name| scales.contains(name.as_str())))
        .flat_map(|node| node.input.iter().map(String::as_str))
        .collect();
    scales.extend(cast);
    let is_half =
        |tensor: &TensorProto| tensor.data_type == DataType::Float16 as i32 && tensor.dims.len() >= 2;
    stored.iter().filter(|(name, tensor)| is_half(tensor) && !scales.contains(*name)).count()
}

/// A warning if tensors lie in files that are not among `summed`: their damage would not be found.
pub(super) fn unsummed(path: &Path, proto: &ModelProto, summed: &[PathBuf]) -> Option<Warning> {
    let graph = proto.graph.as_ref()?;
    let stored = stored(graph);
    let locations: BTreeSet<&str> = stored.values().filter_map(|tensor| location(tensor)).collect();
    let beside = |name: &&str| !summed.contains(&data_file(path, name));
    let names: Vec<&str> = locations.into_iter().filter(beside).collect();
    (!names.is_empty()).then(|| Warning {
        what: format!("{} has weights and no checksum", names.join(", ")),
        advice: "damage in it is not found: add it as [[weights.data]] to model.toml, with file and sha256",
    })
}

/// The file beside the graph in which a tensor lies, if it lies in one.
pub(super) fn location(tensor: &TensorProto) -> Option<&str> {
    let entry = tensor.external_data.iter().find(|entry| entry.key == "location");
    entry.filter(|_| tensor.data_location == Some(EXTERNAL)).map(|entry| entry.value.as_str())
}

/// The number at a key of a tensor's place in a file; 0 without one.
pub(super) fn number(tensor: &TensorProto, key: &str) -> u64 {
    let entry = tensor.external_data.iter().find(|entry| entry.key == key);
    entry.and_then(|entry| entry.value.parse().ok()).unwrap_or(0)
}

pub(super) fn data_file(path: &Path, location: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(location)
}

/// Every stored tensor by name, including those of `Constant` nodes.
pub(super) fn stored(graph: &GraphProto) -> BTreeMap<&str, &TensorProto> {
    let constants = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
        let tensor = node.attribute.iter().find_map(|attribute| attribute.t.as_ref())?;
        Some((node.output.first()?.as_str(), tensor))
    });
    graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).chain(constants).collect()
}

fn check_tensor(path: &Path, tensor: &TensorProto) -> Result<()> {
    // ONNX's element types from 21 on are narrower than a byte.
    if tensor.data_type >= 21 {
        let what = format!("tensor {} of a 4-bit element type", tensor.name);
        return Err(Error::unsupported(path, what, ADVICE_EMBEDDING));
    }
    check_data(path, tensor)
}

/// Checks that the file beside the graph in which a tensor lies is there and long enough: a download that was cut is
/// named by its own name.
fn check_data(path: &Path, tensor: &TensorProto) -> Result<()> {
    let Some(location) = location(tensor) else {
        return Ok(());
    };
    let file = data_file(path, location);
    let found = file.metadata().map_err(|error| Error::io(&file, error))?.len();
    let end = number(tensor, "offset").saturating_add(number(tensor, "length"));
    if found < end {
        let message =
            format!("it has {found} bytes, and tensor {:?} ends at byte {end}: it is cut off", tensor.name);
        return Err(Error::format(&file, "ONNX weights", message));
    }
    Ok(())
}

fn check_node(path: &Path, node: &NodeProto, stored: &BTreeMap<&str, &TensorProto>) -> Result<Option<Slow>> {
    match node.op_type.as_str() {
        "MatMulNBits" => check_n_bits(path, node),
        "GatherBlockQuantized" => match integer(node, "bits").unwrap_or(4) {
            4 => Ok(None),
            bits => Err(refused(path, node, &format!("with {bits} bits"), ADVICE_EMBEDDING)),
        },
        "DequantizeLinear" => {
            let data = node.input.first().and_then(|name| stored.get(name.as_str()));
            // Element types 2 and 3 are uint8 and int8; a scalar is a parameter, not a weight.
            let weights = data.is_some_and(|t| matches!(t.data_type, 2 | 3) && !t.dims.is_empty());
            Ok(weights.then_some(Slow::Stored8Bit))
        }
        "DynamicQuantizeLinear" => Ok(Some(Slow::Dynamic8Bit)),
        "QLinearMatMul" => Ok(Some(Slow::Linear8Bit)),
        _ => Ok(None),
    }
}

fn check_n_bits(path: &Path, node: &NodeProto) -> Result<Option<Slow>> {
    let bits = integer(node, "bits").unwrap_or(4);
    if bits != 4 {
        return Err(refused(path, node, &format!("with {bits} bits"), ADVICE));
    }
    if node.input.get(4).is_some_and(|name| !name.is_empty()) {
        return Err(refused(path, node, "with reordered groups (g_idx)", ADVICE));
    }
    let inner = integer(node, "K").unwrap_or(0);
    match integer(node, "block_size") {
        Some(32) if inner % 32 == 0 => Ok(None),
        Some(32) => Ok(Some(Slow::Ragged(inner))),
        Some(size) if size >= 16 => Ok(Some(Slow::Block(size))),
        size => Err(refused(path, node, &format!("in blocks of {}", size.unwrap_or(0)), ADVICE)),
    }
}

pub(super) fn integer(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}

fn refused(path: &Path, node: &NodeProto, how: &str, advice: &'static str) -> Error {
    Error::unsupported(path, format!("{} {how} (node {})", node.op_type, node.name), advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::StringStringEntryProto;

    fn tensor(entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: (*key).to_string(),
            value: (*value).to_string(),
        };
        TensorProto {
            name: "w".into(),
            data_location: Some(EXTERNAL),
            external_data: entries.iter().map(entry).collect(),
            ..TensorProto::default()
        }
    }

    #[test]
    fn data_beside_the_graph_is_there_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.onnx");
        let entries = [("location", "m.onnx_data"), ("offset", "6"), ("length", "4")];
        let missing = check_tensor(&path, &tensor(&entries)).unwrap_err().to_string();
        assert!(missing.contains("m.onnx_data"), "{missing}");
        std::fs::write(dir.path().join("m.onnx_data"), [0; 9]).unwrap();
        let cut = check_tensor(&path, &tensor(&entries)).unwrap_err().to_string();
        assert!(cut.contains("m.onnx_data") && cut.contains("9 bytes") && cut.contains("byte 10"), "{cut}");
        std::fs::write(dir.path().join("m.onnx_data"), [0; 10]).unwrap();
        assert!(check_tensor(&path, &tensor(&entries)).is_ok());
        let endless = [("location", "m.onnx_data"), ("offset", "18446744073709551615"), ("length", "4")];
        assert!(check_tensor(&path, &tensor(&endless)).is_err());
        assert!(check_tensor(&path, &tensor(&[])).is_ok(), "the library names the location that is missing");
    }
}
