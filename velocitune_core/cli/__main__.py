"""`python -m velocitune_core.cli`, for an environment without the script `velocitune`."""

import sys

from velocitune_core.cli.command import main

sys.exit(main())
