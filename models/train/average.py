"""Average the weights of two models of one shape: (1 − share) · first + share · second.

A model trained on in a broad mixture and the one it started from lie in one basin; their average
keeps the first one's loss on its own domain and gains most of the second one's breadth.
"""

import argparse
from pathlib import Path

import model as llama


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=Path, required=True, help="Hugging Face Llama folder")
    parser.add_argument("--second", type=Path, required=True, help="Hugging Face Llama folder")
    parser.add_argument("--share", type=float, required=True, help="weight of the second model, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = llama.load(args.first)
    second = llama.load(args.second).state_dict()
    model.load_state_dict({k: (1 - args.share) * v + args.share * second[k] for k, v in model.state_dict().items()})
    llama.save(model, args.out)


if __name__ == "__main__":
    main()
