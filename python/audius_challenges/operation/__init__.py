"""Runs, and what belongs to running: the schedule, the installation, the catalog's alignment, the status."""
