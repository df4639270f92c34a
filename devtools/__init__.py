"""Tools for those who work on the extension: throw-away clusters, the demo, the pgTAP runner, lint."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
