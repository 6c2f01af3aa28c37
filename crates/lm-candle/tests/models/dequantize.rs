//! Compares the numbers of dequantized blocks with candle's.

use crate::files::Random;
use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use dunlin_gguf::BlockType;
use std::borrow::Cow;

const BLOCKS: usize = 50;

/// The bits of numbers, with one pattern for all NaNs.
fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| if number.is_nan() { u32::MAX } else { number.to_bits() }).collect()
}

#[test]
fn blocks_stand_for_the_numbers_that_candle_takes_them_for() {
    let kinds = [
        (BlockType::F32, GgmlDType::F32),
        (BlockType::F16, GgmlDType::F16),
        (BlockType::BF16, GgmlDType::BF16),
        (BlockType::Q4_0, GgmlDType::Q4_0),
        (BlockType::Q4_1, GgmlDType::Q4_1),
        (BlockType::Q5_0, GgmlDType::Q5_0),
        (BlockType::Q5_1, GgmlDType::Q5_1),
        (BlockType::Q8_0, GgmlDType::Q8_0),
        (BlockType::Q2_K, GgmlDType::Q2K),
        (BlockType::Q3_K, GgmlDType::Q3K),
        (BlockType::Q4_K, GgmlDType::Q4K),
        (BlockType::Q5_K, GgmlDType::Q5K),
        (BlockType::Q6_K, GgmlDType::Q6K),
    ];
    let mut random = Random(21);
    for (kind, dtype) in kinds {
        assert_eq!(kind.block_bytes() as usize, dtype.type_size(), "{kind}");
        assert_eq!(kind.block_elements() as usize, dtype.block_size(), "{kind}");
        let bytes: Vec<u8> = (0..BLOCKS * dtype.type_size()).map(|_| random.below(256) as u8).collect();
        let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype).unwrap();
        let tensor = QTensor::new(storage, (1, BLOCKS * dtype.block_size())).unwrap();
        let expected: Vec<f32> =
            tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(bits(&kind.dequantize(&bytes).unwrap()), bits(&expected), "{kind}");
    }
}
