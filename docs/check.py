#!/usr/bin/env python3
"""Checks that what the documents name exists: links and their anchors, paths in the repository, targets of make, and the demo's picture.

Python's standard library only. Prints every mistake with file and line; ends with 1 if there is one.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s#]*)(#[^)\s]*)?\)")
CODE = re.compile(r"`([^`]+)`")
# A path that begins with a folder of the repository. Placeholders (NAME, <dev>, …) and examples end the match.
PATH = re.compile(r"(?<![\w./-])(?:agent|bench|boards|broker-verifier|crates|docs|fuzz|models)/[\w./*-]*\w")
MAKE = re.compile(r"(?<![\w-])make ((?:[a-z][a-z-]*(?: |$))+)")
RULE = re.compile(r"^([a-z][a-z -]*):(?!=)", re.MULTILINE)
# Other files may name a document too: comments, manuals, messages.
DOCUMENT = re.compile(r"(?<![\w./-])docs/[\w/-]+\.(?:md|svg|py)")
# Paths that an example makes, or that an installed package has.
NOT_HERE = {"boards/my-board.toml"}


def tracked(*patterns):
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def anchors(path, cache={}):
    """The anchors of a document's headings, as GitHub makes them."""
    if path not in cache:
        found, fenced = set(), False
        for line in path.read_text().splitlines():
            fenced ^= line.startswith("```")
            if line.startswith("#") and not fenced:
                text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line.lstrip("#").strip()).lower()
                slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
                number = 1
                while slug in found and f"{slug}-{number}" in found:
                    number += 1
                found.add(f"{slug}-{number}" if slug in found else slug)
        cache[path] = found
    return cache[path]


def rules():
    text = "\n".join(path.read_text() for path in tracked("Makefile", "boards/*.mk"))
    return {name for names in RULE.findall(text) for name in names.split()}


def check_link(document, path, anchor):
    target = (document.parent / path).resolve() if path else document
    if not target.exists():
        return f"no such file: {path}"
    if anchor and target.suffix == ".md" and anchor[1:] not in anchors(target):
        return f"no such heading: {path}{anchor}"
    return None


def mistakes_in(document, known_rules):
    fenced = False
    for number, line in enumerate(document.read_text().splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
            continue
        for path, anchor in [] if fenced else LINK.findall(line):
            mistake = check_link(document, path, anchor)
            if mistake:
                yield number, mistake
        for code in [line] if fenced else CODE.findall(line):
            for path in PATH.findall(code):
                # The document's own folder is a root too: a model card names `train/`, a crate's page its `src/`.
                if path not in NOT_HERE and not any(ROOT.glob(path)) and not any(document.parent.glob(path)):
                    yield number, f"no such path: {path}"
            for targets in MAKE.findall(code.split("#")[0]):
                for name in targets.split():
                    if name not in known_rules:
                        yield number, f"no such target: make {name}"


def main():
    known_rules = rules()
    found = [
        f"{document.relative_to(ROOT)}:{number}: {mistake}"
        for document in tracked("*.md")
        for number, mistake in mistakes_in(document, known_rules)
    ]
    for path in tracked("*.rs", "*.toml", "*.sh", "*.py", "*.mk", "*.1", "Makefile", ".ci/run"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found += [
                f"{path.relative_to(ROOT)}:{number}: no such document: {name}"
                for name in DOCUMENT.findall(line)
                if not (ROOT / name).exists()
            ]
    print("\n".join(found), end="\n" if found else "")
    picture = subprocess.run([ROOT / "docs/figures/terminal.py", "check"])
    sys.exit(1 if found or picture.returncode else 0)


if __name__ == "__main__":
    main()
