"""`python -m vihier`, the way in for launchers such as torchrun."""

import sys

from vihier.cli import main

if __name__ == "__main__":
    sys.exit(main())
