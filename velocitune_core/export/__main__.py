"""`python -m velocitune_core.export`: see `command`."""

import sys

from velocitune_core.export.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
