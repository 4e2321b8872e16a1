"""Train a character-level language model: python train.py [KEY=VALUE ...], or --help."""

import sys

from charrnn.cli.main import entry

if __name__ == "__main__":
    entry(["train", *sys.argv[1:]], script=sys.argv[0])
