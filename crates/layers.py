#!/usr/bin/env python3
"""`make layers`: what the structure of the workspace must be, and how far it is from its limits.

The table of layers is the one in docs/architecture.md. Types and uses are read from the sources as text: code of
tests left out, `use` declarations and paths followed to the file that defines the name.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = "docs/architecture.md"
TABLE_HEAD = ["crate", "may depend on", "its tests and benches also"]
PREFIX = "dunlin-"

# Each stands in one manifest: the crate that hides it.
HIDDEN = ["rumqttc", "tract-", "candle-", "hyper", "llama-cpp-"]
# Names that every Rust programmer expects in more than one module.
IDIOMATIC = ["Args", "Config", "Error", "Result"]
SHARED_PERCENT_MAX = 20
CIRCLES_MAX = 2
# Only this crate decides how a message is delivered.
LINK = "crates/link/"


def main():
    names = "--names" in sys.argv[1:]
    metadata = json.loads(cargo_metadata())
    packages = [p for p in metadata["packages"] if p["name"].startswith(PREFIX)]
    sources = {p["name"]: crate_sources(p) for p in packages}
    problems = layers(edges(packages), table((ROOT / TABLE).read_text()))
    problems += hidden(packages)
    problems += deliveries(rust_files())
    problems += shared_names(types(sources), names)
    problems += circles(sources)
    for problem in problems:
        print(f"layers: {problem}", file=sys.stderr)
    return 1 if problems else 0


def cargo_metadata():
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


# ---- crates


def table(text):
    """The rows of the table of layers: crate → (dependencies, those of tests too)."""
    rows, within = {}, False
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if cells == TABLE_HEAD:
            within = True
        elif within and not cells:
            break
        elif within and set(line) - set("|-: "):
            if len(cells) != len(TABLE_HEAD):
                sys.exit(f"layers: {TABLE}:{number}: expected {len(TABLE_HEAD)} cells, found {len(cells)}")
            crate, normal, tests = ([name.strip("` ") for name in cell.split(",")] for cell in cells)
            normal = {name for name in normal if name != "–"}
            rows[crate[0]] = (normal, normal | {name for name in tests if name != "–"})
    if not rows:
        sys.exit(f"layers: {TABLE} has no table with the columns {', '.join(TABLE_HEAD)}")
    return rows


def edges(packages):
    """Dependencies between the crates of the workspace: (crate, crate, whether of tests alone)."""
    found = set()
    for package in packages:
        for dependency in package["dependencies"]:
            if dependency["name"].startswith(PREFIX):
                ends = [name.removeprefix(PREFIX) for name in (package["name"], dependency["name"])]
                # A crate's tests may ask itself for a feature.
                if ends[0] != ends[1]:
                    found.add((*ends, dependency["kind"] == "dev"))
    return found


def layers(found, allowed):
    """What the table doesn't allow, and rows that no longer say anything."""
    problems = []
    for crate in sorted({crate for edge in found for crate in edge[:2]} - allowed.keys()):
        problems.append(f"{TABLE}: the table of layers has no row for {crate}")
    for crate, dependency, of_tests in sorted(found):
        if crate in allowed and dependency not in allowed[crate][of_tests]:
            kind = "the tests of " if of_tests else ""
            problems.append(f"{kind}{crate} must not depend on {dependency} ({TABLE})")
    for crate, (normal, tests) in sorted(allowed.items()):
        unused = {name for name in normal if (crate, name, False) not in found}
        unused |= {name for name in tests - normal if (crate, name, True) not in found}
        for name in sorted(unused):
            problems.append(f"{TABLE}: {crate} does not depend on {name} any more: take it out of the table")
    print(f"layers: {len(found)} dependencies between {len(allowed)} crates")
    return problems


def hidden(packages):
    """Libraries that more than one manifest names."""
    problems = []
    for name in HIDDEN:
        named = lambda d: d["name"] == name or (name.endswith("-") and d["name"].startswith(name))
        holders = sorted(p["name"] for p in packages if any(named(d) for d in p["dependencies"]))
        print(f"layers: {name.rstrip('-')} in {', '.join(holders) or 'no manifest'}")
        if len(holders) > 1:
            problems.append(f"{name.rstrip('-')} stands in {len(holders)} manifests: {', '.join(holders)}")
    return problems


def deliveries(files):
    """Places outside crates/link that decide the quality of service of a message."""
    problems = []
    for path, text in files:
        if path.startswith(LINK):
            continue
        for number, line in enumerate(plain(text).splitlines(), 1):
            if re.search(r"\bQoS::", line):
                problems.append(f"{path}:{number}: a `QoS::` outside {LINK} (Topic::delivery says it)")
    print(f"layers: {len(problems)} `QoS::` outside {LINK}")
    return problems


# ---- sources


def rust_files():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", "*.rs"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    paths = [path for path in listed.stdout.splitlines() if (ROOT / path).is_file()]
    return [(path, (ROOT / path).read_text()) for path in sorted(paths)]


def plain(text):
    """The code with comments, strings and characters blanked: what is left of them is their length in spaces."""
    token = re.compile(
        r'//[^\n]*|/\*.*?\*/|(?<!\w)b?r(#*)".*?"\1|(?<!\w)b?"(?:\\.|[^"\\])*"|b?\'(?:\\(?:u\{\w+\}|x\w\w|.)|[^\'\\])\'', re.S
    )
    return token.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def without_tests(code):
    """Plain code without what only tests compile."""
    out, at = [], 0
    for match in re.finditer(r"#\[cfg\(test\)\]", code):
        if match.start() < at:
            continue
        out.append(code[at : match.start()])
        at = end_of_item(code, match.end())
    return "".join(out) + code[at:]


def end_of_item(code, at):
    """The end of the item at `at`: a semicolon, or the brace that closes its body."""
    depth = 0
    for i in range(at, len(code)):
        if code[i] == ";" and depth == 0:
            return i + 1
        if code[i] in "([{":
            depth += 1
        if code[i] in ")]}":
            depth -= 1
            if code[i] == "}" and depth == 0:
                return i + 1
    return len(code)


class Module:
    """A file of a crate: its path in the crate, what it defines, and what it gives away under its own name."""

    def __init__(self, path, names, code):
        self.path, self.names, self.code = path, tuple(names), code
        self.inner = set(re.findall(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;", code, re.M))
        self.defined = set(re.findall(r"\b(?:struct|enum|trait|type|fn|const|static|union)\s+(\w+)", code))
        self.defined |= set(re.findall(r"\bmacro_rules!\s+(\w+)", code)) | set(named_types(code))
        self.uses = [(public is not None, tree) for public, tree in use_declarations(code)]


def named_types(code):
    """Types that the macro `named!` defines: a name and what it is called."""
    return re.findall(r"\bnamed!\s*\{[^{}]*?\b(\w+),\s*:", re.sub(r"#\[[^\]]*\]", "", code))


def use_declarations(code):
    for match in re.finditer(r"(\bpub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);", code):
        for path, name in flattened(re.sub(r"\s+", " ", match.group(2)).strip()):
            yield match.group(1), (path, name)


def flattened(tree):
    """(path, name) of each leaf of a `use` tree."""
    brace = tree.find("{")
    if brace < 0:
        path, _, alias = tree.partition(" as ")
        parts = [part.strip() for part in path.split("::")]
        if parts[-1] == "self":
            parts.pop()
        return [(tuple(parts), alias.strip() or parts[-1])] if parts else []
    head = [part.strip() for part in tree[:brace].split("::") if part.strip()]
    leaves, depth, start = [], 0, brace + 1
    for i in range(brace, len(tree)):
        if tree[i] == "{":
            depth += 1
        if tree[i] == "}":
            depth -= 1
        if (tree[i] == "," and depth == 1) or depth == 0:
            if inner := tree[start:i].strip():
                leaves += [(tuple(head) + path, head[-1] if inner == "self" and head else name) for path, name in flattened_inner(inner, head)]
            start = i + 1
        if depth == 0:
            break
    return leaves


def flattened_inner(inner, head):
    return [((), head[-1])] if inner == "self" and head else flattened(inner)


def crate_sources(package):
    """The modules of a crate's library and programs by their path in the crate, tests left out."""
    modules = {}
    for target in package["targets"]:
        if {"lib", "bin", "proc-macro"} & set(target["kind"]):
            root = Path(target["src_path"])
            # A program beside a library is a crate of its own, whose only name for itself is that of its file.
            first = () if "lib" in target["kind"] else (f"bin {target['name']}",)
            collect(modules, root, first, root.parent)
    return modules


def collect(modules, path, names, folder):
    module = Module(path.relative_to(ROOT).as_posix(), names, without_tests(plain(path.read_text())))
    modules[module.names] = module
    for inner in sorted(module.inner):
        for file, beside in ((folder / f"{inner}.rs", folder / inner), (folder / inner / "mod.rs", folder / inner)):
            if file.is_file():
                collect(modules, file, names + (inner,), beside)


# ---- names


def types(sources):
    """Name → places of the types that are defined outside tests."""
    places = defaultdict(list)
    definition = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))?\s+)?(?:unsafe\s+)?(?:struct|enum|trait|type|union)\s+(\w+)", re.M)
    for modules in sources.values():
        for module in modules.values():
            code = without_bodies(module.code)
            for name in definition.findall(code) + named_types(module.code):
                places[name].append(module.path)
    return places


def without_bodies(code):
    """Code without the bodies of `impl` and `trait`: a type in them belongs to another."""
    out, at = [], 0
    for match in re.finditer(r"^[ \t]*(?:pub(?:\([^)]*\))?\s+)?(?:unsafe\s+)?(?:impl|trait)\b[^;{]*\{", code, re.M):
        if match.start() >= at:
            out.append(code[at : match.end()])
            at = end_of_item(code, match.end() - 1)
    return "".join(out) + code[at:]


def shared_names(places, names):
    """Whether too many types share their name with another."""
    total = sum(len(found) for found in places.values())
    shared = {name: found for name, found in places.items() if len(found) > 1 and name not in IDIOMATIC}
    count = sum(len(found) for found in shared.values())
    percent = 100 * count / total if total else 0
    excepted = ", ".join(f"{name} {len(places[name])}" for name in IDIOMATIC if len(places.get(name, [])) > 1)
    print(f"layers: {count} of {total} types share their name, {percent:.1f} % (at most {SHARED_PERCENT_MAX} %); ", end="")
    print(f"not counted as idiomatic: {excepted or 'none'}")
    much = percent > SHARED_PERCENT_MAX
    if names or much:
        for name, found in sorted(shared.items(), key=lambda item: (-len(item[1]), item[0])):
            print(f"    {name}: {', '.join(sorted(found))}")
    return [f"{percent:.1f} % of the types share their name: rename some of the above"] if much else []


# ---- circles


def circles(sources):
    """Whether too many files use each other in a circle. What a module takes from those it stands in is its frame."""
    found = []
    for modules in sources.values():
        graph = {module.path: set() for module in modules.values()}
        for module in modules.values():
            for other in used(modules, module):
                if other is not module and other.names != module.names[: len(other.names)]:
                    graph[module.path].add(other.path)
        found += components(graph)
    print(f"layers: {len(found)} circles between files (at most {CIRCLES_MAX})")
    for circle in found:
        print(f"    {' ↔ '.join(circle)}")
    return [f"{len(found)} circles between files, listed above"] if len(found) > CIRCLES_MAX else []


def used(modules, module):
    """The modules whose names a module uses."""
    paths = [path for _, (path, _) in module.uses]
    paths += [tuple(re.split(r"\s*::\s*", path)) for path in re.findall(r"(?<![:\w])\w+(?:\s*::\s*\w+)+", module.code)]
    aliases = {name: path for _, (path, name) in module.uses if name != "*"}
    for path in paths:
        if path[0] in aliases and aliases[path[0]] != path[:1]:
            path = aliases[path[0]] + path[1:]
        if other := resolved(modules, module, path):
            yield other


def resolved(modules, module, path, depth=0):
    """The module that defines what a path names, or None outside the crate."""
    root = module.names[:1] if module.names and module.names[0].startswith("bin ") else ()
    if path[0] == "crate":
        at, path = root, path[1:]
    elif path[0] in ("self", "super"):
        at = module.names
        while path and path[0] in ("self", "super"):
            at, path = (at[:-1] if path[0] == "super" else at), path[1:]
    elif path[0] in module.inner:
        at = module.names
    else:
        return None
    while path and at + path[:1] in modules:
        at, path = at + path[:1], path[1:]
    found = modules.get(at)
    if found is None or not path or depth > 8 or path[0] in found.defined:
        return found
    for public, (source, name) in found.uses:
        if public and name == path[0]:
            return resolved(modules, found, source, depth + 1) or found
    for public, (source, name) in found.uses:
        if public and name == "*":
            other = resolved(modules, found, source[:-1], depth + 1)
            if other is not None and path[0] in other.defined:
                return other
    return found


def components(graph):
    """The strongly connected components of more than one file (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


if __name__ == "__main__":
    sys.exit(main())
