"""Write text with a trained model: python sample.py [KEY=VALUE ...], or --help."""

import sys

from charrnn.cli.main import entry

if __name__ == "__main__":
    entry(["sample", *sys.argv[1:]], script=sys.argv[0])
