"""``python -m fastmlp.bench`` is the command ``fastmlp bench``."""

import sys

from fastmlp.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
