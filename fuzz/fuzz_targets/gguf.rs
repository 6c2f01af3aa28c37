//! The header of a GGUF file and the numbers of its tensors, which must be inside the file.
#![no_main]

use dunlin_gguf::Header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::read(&mut &bytes[..], bytes.len() as u64) else { return };
    for info in header.tensors().values() {
        let data = &bytes[info.offset as usize..][..info.bytes as usize];
        if let Ok(numbers) = info.kind.dequantize(data) {
            assert_eq!(numbers.len() as u64, info.shape.iter().product::<u64>());
        }
    }
    let _ = (header.vocabulary_size(), header.context_length());
});
