"""`python -m experiments.cli` is the `ddsp` command."""

import sys

from experiments.cli import main

sys.exit(main())
