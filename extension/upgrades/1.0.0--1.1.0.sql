-- From 1.0.0 to 1.1.0: no table has changed, but what a checkpoint keeps.

COMMENT ON COLUMN audius_challenges.checkpoint.progress IS
'sources: table names; history: [transaction that had not begun, position in each source], oldest first; '
'is_from_nothing: whether the first build found nothing; '
'for e: everybody, backlog, skipped, opened, paused_since, pauses, started_at';
