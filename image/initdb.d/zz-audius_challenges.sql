-- Last of the image's two steps when a cluster is made: the extension and its schedule. Dumps come before this step, so
-- that CREATE EXTENSION finds their tables.

CREATE EXTENSION IF NOT EXISTS audius_challenges CASCADE;

-- Jobs that come from a dump go on as they are, in the database that they are in now.
UPDATE cron.job
SET database = current_database()
WHERE jobname IN ('audius_challenges tick', 'audius_challenges tick +30s', 'audius_challenges trim')
    AND database <> current_database();

-- Where nobody has been paying yet the extension has scheduled itself, and where somebody has it leaves that to you. It
-- is for us to schedule an empty database, and one whose jobs are of a role that the dump did not bring.
SELECT
    extnamespace::regnamespace AS home,
    to_regclass(extnamespace::regnamespace || '.user_challenges') IS NULL
    OR EXISTS (
        SELECT FROM cron.job
        WHERE jobname IN ('audius_challenges tick', 'audius_challenges tick +30s', 'audius_challenges trim')
            AND to_regrole(quote_ident(username)) IS NULL
    ) AS must_schedule
FROM pg_extension
WHERE extname = 'audius_challenges'
\gset
\if :must_schedule
SELECT * FROM :home.schedule_challenges();
\endif
