"""``python -m bench``, which ``make bench`` calls."""

from bench.cli import app

app()
