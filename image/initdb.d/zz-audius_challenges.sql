-- Last of the image's two steps when a cluster is made: the extension and its schedule. Dumps come before this step, so
-- that CREATE EXTENSION finds their tables.

CREATE EXTENSION IF NOT EXISTS audius_challenges CASCADE;

-- Where nobody has been paying yet it has scheduled itself, and where somebody has it leaves that to you. It is for us
-- to schedule an empty database, and one whose jobs come from a dump and point at a database of another name.
SELECT
    extnamespace::regnamespace AS home,
    to_regclass(extnamespace::regnamespace || '.user_challenges') IS NULL
    OR EXISTS (
        SELECT FROM cron.job
        WHERE jobname LIKE 'audius\_challenges %'
            AND (database, username) IS DISTINCT FROM (current_database(), current_user)
    ) AS must_schedule
FROM pg_extension
WHERE extname = 'audius_challenges'
\gset
\if :must_schedule
SELECT * FROM :home.schedule_challenges();
\endif
