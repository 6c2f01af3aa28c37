#!/bin/sh
# Export a trained pair: export.sh <drafter folder> <target folder> <tokenizer.json> <out folder>
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
drafter=$1 target=$2 tokenizer=$3 out=$4
mkdir -p "$out"
cmp -s "$tokenizer" "$out/tokenizer.json" || cp "$tokenizer" "$out/tokenizer.json"
chmod 644 "$out/tokenizer.json"
$python export_onnx.py --model "$drafter" --out "$out/drafter/drafter.onnx"
$python export_gguf.py --model "$target" --tokenizer "$tokenizer" --out "$out/target/target.gguf"
$python make_model_toml.py --role drafter --weights "$out/drafter/drafter.onnx" --tokenizer "$out/tokenizer.json"
$python make_model_toml.py --role target --weights "$out/target/target.gguf" --tokenizer "$out/tokenizer.json"
