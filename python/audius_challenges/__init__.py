"""Audius challenges, reconciled inside PostgreSQL: from source tables to user challenges.

The rooms, each importing only those below it: `entry`, what SQL calls; `operation`, runs and what belongs to running;
`challenges`, one file a family and the run order; `engine`, what they have in common; and the ground: `annotations`,
`catalog`, `contract`, `sources`, `settings`, `database`, `errors`.
"""

__version__ = "2.0.0"
