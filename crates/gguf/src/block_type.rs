//! The types of a tensor's elements, with the elements and the bytes of a block.

use std::fmt;

/// A tensor's element type, as ggml numbers and names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(non_camel_case_types, missing_docs, reason = "the names are ggml's own")]
#[rustfmt::skip]
pub enum BlockType {
    F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K,
    IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, IQ4_NL, IQ3_S, IQ2_S, IQ4_XS, I8, I16, I32, I64, F64, IQ1_M, BF16,
    TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0, Q2_0,
}

/// Type, number in a file, name, elements in a block, bytes of a block.
type Row = (BlockType, u32, &'static str, u64, u64);

const TABLE: [Row; 35] = [
    (BlockType::F32, 0, "F32", 1, 4),
    (BlockType::F16, 1, "F16", 1, 2),
    (BlockType::Q4_0, 2, "Q4_0", 32, 18),
    (BlockType::Q4_1, 3, "Q4_1", 32, 20),
    (BlockType::Q5_0, 6, "Q5_0", 32, 22),
    (BlockType::Q5_1, 7, "Q5_1", 32, 24),
    (BlockType::Q8_0, 8, "Q8_0", 32, 34),
    (BlockType::Q8_1, 9, "Q8_1", 32, 36),
    (BlockType::Q2_K, 10, "Q2_K", 256, 84),
    (BlockType::Q3_K, 11, "Q3_K", 256, 110),
    (BlockType::Q4_K, 12, "Q4_K", 256, 144),
    (BlockType::Q5_K, 13, "Q5_K", 256, 176),
    (BlockType::Q6_K, 14, "Q6_K", 256, 210),
    (BlockType::Q8_K, 15, "Q8_K", 256, 292),
    (BlockType::IQ2_XXS, 16, "IQ2_XXS", 256, 66),
    (BlockType::IQ2_XS, 17, "IQ2_XS", 256, 74),
    (BlockType::IQ3_XXS, 18, "IQ3_XXS", 256, 98),
    (BlockType::IQ1_S, 19, "IQ1_S", 256, 50),
    (BlockType::IQ4_NL, 20, "IQ4_NL", 32, 18),
    (BlockType::IQ3_S, 21, "IQ3_S", 256, 110),
    (BlockType::IQ2_S, 22, "IQ2_S", 256, 82),
    (BlockType::IQ4_XS, 23, "IQ4_XS", 256, 136),
    (BlockType::I8, 24, "I8", 1, 1),
    (BlockType::I16, 25, "I16", 1, 2),
    (BlockType::I32, 26, "I32", 1, 4),
    (BlockType::I64, 27, "I64", 1, 8),
    (BlockType::F64, 28, "F64", 1, 8),
    (BlockType::IQ1_M, 29, "IQ1_M", 256, 56),
    (BlockType::BF16, 30, "BF16", 1, 2),
    (BlockType::TQ1_0, 34, "TQ1_0", 256, 54),
    (BlockType::TQ2_0, 35, "TQ2_0", 256, 66),
    (BlockType::MXFP4, 39, "MXFP4", 32, 17),
    (BlockType::NVFP4, 40, "NVFP4", 64, 36),
    (BlockType::Q1_0, 41, "Q1_0", 128, 18),
    (BlockType::Q2_0, 42, "Q2_0", 64, 18),
];

impl BlockType {
    /// The type with this number in a file.
    pub fn from_number(number: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// The type's number in a file.
    pub fn number(self) -> u32 {
        self.row().1
    }

    /// The type's name, as in `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Elements in a block; a tensor's rows are whole blocks.
    pub fn block_elements(self) -> u64 {
        self.row().3
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        self.row().4
    }

    /// Bytes of `elements` elements; `None` if they don't fill whole blocks, or if the number is too large.
    pub fn bytes(self, elements: u64) -> Option<u64> {
        let whole = elements.is_multiple_of(self.block_elements());
        whole.then(|| (elements / self.block_elements()).checked_mul(self.block_bytes())).flatten()
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_the_row_with_its_name() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(format!("{:?}", row.0), row.0.name());
            assert_eq!(BlockType::from_number(row.1), Some(row.0));
        }
        assert_eq!(BlockType::from_number(4), None);
    }

    #[test]
    fn bytes_are_of_whole_blocks() {
        assert_eq!(BlockType::Q8_0.bytes(64), Some(68));
        assert_eq!(BlockType::Q8_0.bytes(65), None);
        assert_eq!(BlockType::F64.bytes(u64::MAX), None);
    }
}
