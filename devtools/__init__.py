"""Tools for those who work on the extension: throw-away clusters, the demo, the pgTAP runner, lint."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

# The extension's package is not installed here: it is read for its registry and its statements.
sys.path.insert(0, str(REPOSITORY / "python"))
