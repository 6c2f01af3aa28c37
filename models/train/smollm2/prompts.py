"""Write the prompts to train on, one JSON string a line, in a shuffled order.

Most come from the templates of `topics.json`. Optional data sets add first turns: GSM8K (MIT),
Topical-Chat (CDLA-Sharing-1.0), tldr pages (names of commands; CC BY 4.0). A prompt that is also
in the held-out list is left out.
"""

import argparse
import json
import random
from pathlib import Path

HERE = Path(__file__).parent


def templated(rng):
    t = json.loads((HERE / "topics.json").read_text())
    found = []
    for template in t["questions"]:
        form, _, plural = template.partition("|")
        for thing in t["things"]:
            if plural and not (thing.endswith("s") and thing[0].islower() and " " not in thing):
                continue
            other = rng.choice([x for x in t["things"] if x != thing])
            found.append(form.format(*[thing, other][: form.count("{}")]))
    for forms, fillers in (("code", "tasks"), ("advice", "goals"), ("travel", "places")):
        found += [form.format(x) for form in t[forms] for x in t[fillers]]
    return found + t["talk"]


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def from_data(data, rng):
    found = []
    if (path := data / "gsm8k/train.jsonl").exists():
        found += rng.sample([r["question"] for r in rows(path)], 1200)
    if (path := data / "topical-chat/topical.jsonl").exists():
        found += rng.sample(sorted({" ".join(r["turns"][0].split()) for r in rows(path) if len(r["turns"][0]) < 200}), 1500)
    if (path := data / "tldr/tldr.jsonl").exists():
        names = sorted({Path(r["path"]).stem for r in rows(path) if "/common/" in r["path"] or "/linux/" in r["path"]})
        forms = ["How do I use {}?", "What does the command {} do?", "Give me examples of {} on the command line."]
        found += [rng.choice(forms).format(name) for name in rng.sample(names, 700)]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=Path, required=True, help="JSON list of prompts that must not occur")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = random.Random(1)
    found = templated(rng) + (from_data(args.data, rng) if args.data else [])
    held = {p.casefold() for p in json.loads(args.held_out.read_text())}
    found = sorted({p for p in found if p.casefold() not in held})
    rng.shuffle(found)
    args.out.write_text("".join(json.dumps(p) + "\n" for p in found))
    print(f"{len(found)} prompts")


if __name__ == "__main__":
    main()
