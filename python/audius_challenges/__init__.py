"""Audius challenges, reconciled inside PostgreSQL: from source tables to user challenges."""

__version__ = "1.1.0"
