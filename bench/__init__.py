"""The benchmark: what the extension costs at a given size, beside what a user would otherwise have."""

import sys

from devtools import REPOSITORY

# The extension's package, for its registry of challenges alone.
sys.path.insert(0, str(REPOSITORY / "python"))
