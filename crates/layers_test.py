"""Each rule of layers.py is broken once and must fail, on sources made up here."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

import layers

TABLE = """text
| crate | may depend on | its tests and benches also |
|---|---|---|
| low | – | – |
| high | low | `tool` |
| tool | – | – |

| other | table |
"""


def package(name, *dependencies):
    return {
        "name": f"dunlin-{name}",
        "dependencies": [{"name": name, "kind": kind} for name, kind in dependencies],
        "targets": [],
    }


def quietly(rule, *arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        return rule(*arguments), out.getvalue()


def crate(files):
    """The modules of a crate whose files are given."""
    with tempfile.TemporaryDirectory() as folder:
        root, layers.ROOT = layers.ROOT, Path(folder)
        for name, text in files.items():
            path = layers.ROOT / "src" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        target = {"kind": ["lib"], "name": "a", "src_path": str(layers.ROOT / "src/lib.rs")}
        modules = layers.crate_sources({"targets": [target]})
        layers.ROOT = root
    return {"a": modules}


class Layers(unittest.TestCase):
    def problems(self, *packages):
        return quietly(layers.layers, layers.edges(packages), layers.table(TABLE))[0]

    def test_the_table_allows_what_it_lists(self):
        high = package("high", ("dunlin-low", None), ("dunlin-tool", "dev"), ("serde", None))
        self.assertEqual(self.problems(high, package("low"), package("tool")), [])

    def test_a_dependency_that_is_not_listed_fails(self):
        high = package("high", ("dunlin-low", None), ("dunlin-tool", None), ("dunlin-tool", "dev"))
        self.assertIn("high must not depend on tool (docs/architecture.md)", self.problems(high))
        low = package("low", ("dunlin-high", "dev"))
        self.assertIn("the tests of low must not depend on high (docs/architecture.md)", self.problems(low))

    def test_a_crate_without_a_row_and_a_row_without_a_dependency_fail(self):
        problems = self.problems(package("new", ("dunlin-low", None)))
        self.assertIn("docs/architecture.md: the table of layers has no row for new", problems)
        self.assertIn("docs/architecture.md: high does not depend on low any more: take it out of the table", problems)

    def test_a_library_in_a_second_manifest_fails(self):
        one, two = package("one", ("tract-onnx", None)), package("two", ("tract-linalg", "dev"))
        self.assertEqual(quietly(layers.hidden, [one, package("two")])[0], [])
        self.assertEqual(quietly(layers.hidden, [one, two])[0], ["tract stands in 2 manifests: dunlin-one, dunlin-two"])


class Sources(unittest.TestCase):
    def test_a_quality_of_service_outside_the_link_fails(self):
        files = [("crates/link/src/lib.rs", "QoS::AtMostOnce"), ("a.rs", "// QoS::X\nlet s = \"QoS::X\";\nsend(QoS::X)")]
        problems, _ = quietly(layers.deliveries, files)
        self.assertEqual([problem.split(": ")[0] for problem in problems], ["a.rs:3"])

    def test_types_of_one_name_count_unless_idiomatic_or_in_tests(self):
        sources = crate({
            "lib.rs": "mod a;\nmod b;\npub struct Once;\nimpl Iterator for Once { type Item = u8; }\n"
            "#[cfg(test)]\nmod tests { struct Twice; }\n",
            "a.rs": "struct Error;\nnamed! {\n    /// A choice.\n    #[derive(Default)]\n    Twice, \"twice\":\n}\n",
            "b.rs": "enum Error {}\npub(crate) enum Twice {}\ntrait Item {}\n",
        })
        places = layers.types(sources)
        self.assertEqual({name: len(found) for name, found in places.items()}, {"Once": 1, "Error": 2, "Twice": 2, "Item": 1})
        problems, printed = quietly(layers.shared_names, places, False)
        self.assertEqual(problems, ["33.3 % of the types share their name: rename some of the above"])
        self.assertIn("    Twice: src/a.rs, src/b.rs\n", printed)

    def test_more_than_two_circles_fail(self):
        pair = {f"{n}1.rs": f"use crate::{n}2::B;\npub struct A;" for n in "xyz"}
        pair |= {f"{n}2.rs": f"use super::{{other, {n}1}};\npub fn f(a: {n}1::A) {{}}\npub struct B;" for n in "xyz"}
        declared = "".join(f"mod {n}1;\nmod {n}2;\n" for n in "xyz")
        sources = crate(pair | {"lib.rs": declared})
        problems, printed = quietly(layers.circles, sources)
        self.assertEqual(problems, ["3 circles between files, listed above"])
        self.assertIn("    src/x1.rs ↔ src/x2.rs\n", printed)

    def test_a_name_given_away_is_followed_and_a_frame_is_no_circle(self):
        sources = crate({
            "lib.rs": "mod low;\nmod high;\n",
            "low.rs": "mod part;\npub use part::Part;\npub struct Own;\n",
            "low/part.rs": "use super::Own;\npub struct Part;\n",
            "high.rs": "use crate::low::Part;\n",
        })
        module = sources["a"][("high",)]
        self.assertEqual([found.path for found in layers.used(sources["a"], module)][:1], ["src/low/part.rs"])
        problems, printed = quietly(layers.circles, sources)
        self.assertEqual((problems, printed), ([], "layers: 0 circles between files (at most 2)\n"))


if __name__ == "__main__":
    unittest.main()
