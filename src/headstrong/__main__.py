"""`python -m headstrong`."""

import sys

from headstrong.cli import main

if __name__ == "__main__":
    sys.exit(main())
