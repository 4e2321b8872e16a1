"""Write text with a trained model: python sample.py [KEY=VALUE ...], or --help."""

import sys

from charrnn.cli.main import main

if __name__ == "__main__":
    main(["sample", *sys.argv[1:]], script=sys.argv[0])
