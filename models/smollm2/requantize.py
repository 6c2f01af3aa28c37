"""Rounds a GGUF file's Q4_1 matrices to Q8_0 and copies everything else: `requantize.py SOURCE TARGET`.

A Q4_1 block has 16 evenly spaced values, so Q8_0 moves each by at most 1/254 of the block's largest magnitude.
"""

import sys

import gguf
import numpy as np

FILE_TYPE = "general.file_type"


def copy_fields(reader, writer):
    """Copies the metadata in their order, with the file's new type."""
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = gguf.LlamaFileType.MOSTLY_Q8_0.value if name == FILE_TYPE else field.contents()
        writer.add_key_value(name, value, *field.types[:2])


def main():
    source, target = sys.argv[1:]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    copy_fields(reader, writer)
    rounded = gguf.GGMLQuantizationType.Q8_0
    for tensor in reader.tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q4_1:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, rounded), raw_dtype=rounded)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
