-- What is to be paid.

-- Days of 24 hours, since there is no time zone; beyond all times, an infinite one. Without a SET clause, so that it
-- becomes part of the queries that call it; hence every name in it is qualified.
CREATE FUNCTION audius_challenges.claimable_at(completed_at timestamp, cooldown_days integer)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
AS $function$
SELECT pg_catalog.timezone(
    'UTC',
    CASE
        WHEN NOT pg_catalog.isfinite(completed_at) THEN completed_at
        WHEN coalesce(cooldown_days, 0)
            OPERATOR(pg_catalog.>) ('294276-12-31'::pg_catalog.date OPERATOR(pg_catalog.-) completed_at::pg_catalog.date)
            THEN 'infinity'
        WHEN coalesce(cooldown_days, 0)
            OPERATOR(pg_catalog.<) ('4713-01-01 BC'::pg_catalog.date OPERATOR(pg_catalog.-) completed_at::pg_catalog.date)
            THEN '-infinity'
        ELSE
            completed_at OPERATOR(pg_catalog.+) pg_catalog.make_interval(days => coalesce(cooldown_days, 0))
    END
)
$function$;

COMMENT ON FUNCTION audius_challenges.claimable_at(timestamp, integer) IS
'From when on a reward can be claimed that was completed then, UTC, and cools down for so many days; null: 0 days';

-- The tables are found at each call, and nothing depends on them: they may be missing, come later, or be replaced by
-- copies. VOLATILE, so that what is read is as of a moment after the tables have been found and locked: where one is
-- just being replaced by a copy, the rows of the copy are seen.
CREATE FUNCTION audius_challenges.undisbursed(
    of_user bigint DEFAULT NULL,
    of_challenge text DEFAULT NULL,
    above_block bigint DEFAULT NULL,
    after_challenge text DEFAULT NULL,
    after_specifier text DEFAULT NULL,
    page_size bigint DEFAULT NULL
)
RETURNS TABLE (
    challenge_id text,
    user_id bigint,
    specifier text,
    amount bigint,
    completed_blocknumber bigint,
    handle text,
    wallet text,
    created_at timestamptz,
    completed_at timestamp,
    cooldown_days integer,
    claimable_at timestamptz,
    in_cooldown boolean,
    is_verified boolean
)
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
AS $function$
DECLARE
    found text[];
    missing text[];
    message text;
    home text := (
        SELECT pg_catalog.quote_ident(namespace.nspname)
        FROM pg_catalog.pg_extension AS extension
        INNER JOIN pg_catalog.pg_namespace AS namespace
            ON extension.extnamespace = namespace.oid
        WHERE extension.extname = 'audius_challenges'
    );
BEGIN
    IF (after_challenge IS NULL) <> (after_specifier IS NULL) THEN
        RAISE EXCEPTION 'after_challenge and after_specifier belong together'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give those of the last row of the page before.';
    END IF;
    SELECT
        pg_catalog.array_agg(needed.name) FILTER (WHERE needed.is_there),
        pg_catalog.array_agg(needed.name) FILTER (WHERE NOT needed.is_there AND NOT needed.is_optional)
    INTO found, missing
    FROM (
        SELECT
            wanted.name,
            wanted.is_optional,
            pg_catalog.to_regclass(home || '.' || wanted.name) IS NOT NULL AS is_there
        FROM (
            VALUES
                ('user_challenges', FALSE),
                ('challenges', FALSE),
                ('users', FALSE),
                ('challenge_disbursements', FALSE),
                ('sol_reward_disbursements', TRUE)
        ) AS wanted (name, is_optional)
    ) AS needed;
    IF found IS NULL THEN
        RETURN;
    END IF;
    -- Without a table of what was paid, all would be shown as unpaid.
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table %.% does not exist', home, missing[1]
            USING ERRCODE = 'undefined_table';
    END IF;
    BEGIN
        RETURN QUERY EXECUTE pg_catalog.format(
            $query$
            SELECT
                earned.challenge_id::text,
                earned.user_id::bigint,
                earned.specifier::text,
                earned.amount::bigint,
                earned.completed_blocknumber::bigint,
                earner.handle::text,
                earner.wallet::text,
                earned.created_at::timestamptz,
                earned.completed_at::timestamp,
                challenge.cooldown_days::integer,
                cooldown.ends_at,
                coalesce(cooldown.ends_at > pg_catalog.now(), FALSE),
                earner.is_verified
            FROM %1$s.user_challenges AS earned
            INNER JOIN %1$s.challenges AS challenge
                ON earned.challenge_id::text = challenge.id::text
            INNER JOIN %1$s.users AS earner
                ON earned.user_id = earner.user_id
            CROSS JOIN LATERAL (
                SELECT audius_challenges.claimable_at(earned.completed_at, challenge.cooldown_days) AS ends_at
            ) AS cooldown
            WHERE earned.is_complete
                AND challenge.active
                AND earner.is_current
                AND NOT earner.is_deactivated
                -- Of several current rows of one user the greatest decides.
                AND NOT EXISTS (
                    SELECT
                    FROM %1$s.users AS deciding
                    WHERE deciding.user_id = earner.user_id
                        AND deciding.is_current
                        AND (coalesce(deciding.blocknumber, 0), deciding.updated_at, deciding.txhash::text COLLATE "C")
                        > (coalesce(earner.blocknumber, 0), earner.updated_at, earner.txhash::text COLLATE "C")
                )
                AND ($1 IS NULL OR earned.user_id = $1)
                AND ($2 IS NULL OR earned.challenge_id::text = $2)
                AND ($3 IS NULL OR earned.completed_blocknumber > $3 OR earned.completed_blocknumber IS NULL)
                AND ($4 IS NULL OR (earned.challenge_id::text, earned.specifier::text) > ($4, $5))
                AND NOT EXISTS (
                    SELECT
                    FROM %1$s.challenge_disbursements AS paid
                    WHERE paid.challenge_id::text = earned.challenge_id::text
                        AND paid.specifier::text = earned.specifier::text
                        AND ($2 IS NULL OR paid.challenge_id::text = $2)
                        AND ($4 IS NULL OR (paid.challenge_id::text, paid.specifier::text) > ($4, $5))
                )
                %2$s
            %3$s
            $query$,
            home,
            CASE
                WHEN 'sol_reward_disbursements' = ANY(found)
                    THEN pg_catalog.format(
                        $query$
                        AND NOT EXISTS (
                            SELECT
                            FROM %1$s.sol_reward_disbursements AS paid
                            WHERE paid.challenge_id::text = earned.challenge_id::text
                                AND paid.specifier::text = earned.specifier::text
                                AND ($2 IS NULL OR paid.challenge_id::text = $2)
                                AND ($4 IS NULL OR (paid.challenge_id::text, paid.specifier::text) > ($4, $5))
                        )
                        $query$,
                        home
                    )
            END,
            CASE
                WHEN page_size IS NOT NULL
                    THEN 'ORDER BY earned.challenge_id::text, earned.specifier::text LIMIT $6'
            END
        )
        USING
            of_user, of_challenge, above_block, after_challenge, after_specifier, page_size;
    EXCEPTION
        WHEN insufficient_privilege THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
            RAISE EXCEPTION '%', message
                USING
                    ERRCODE = 'insufficient_privilege',
                    HINT = pg_catalog.format(
                        CASE
                            WHEN message LIKE '%row-level security%'
                                THEN 'ALTER ROLE %1$I BYPASSRLS;'
                            ELSE 'SELECT audius_challenges.grant_status(%1$L); grants what is read.'
                        END,
                        current_user
                    );
    END;
    -- Of a table that came after this transaction's snapshot, no row is seen: what was paid would be shown as unpaid.
    SELECT pg_catalog.array_agg(seen.name)
    INTO missing
    FROM pg_catalog.unnest(found) AS seen (name)
    WHERE NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_class AS class
            WHERE class.oid = pg_catalog.to_regclass(home || '.' || seen.name)
        );
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table %.% was replaced after this transaction began', home, missing[1]
            USING ERRCODE = 'serialization_failure', HINT = 'Try again, in a new transaction.';
    END IF;
END
$function$;

COMMENT ON FUNCTION audius_challenges.undisbursed(bigint, text, bigint, text, text, bigint) IS
'The rows of undisbursed_challenges: all, or those of a user, of a challenge, above a block (or without one), or a '
'page of them, in the order of challenge_id and specifier, after such a pair';

CREATE VIEW @extschema@.undisbursed_challenges AS
SELECT * FROM audius_challenges.undisbursed();

COMMENT ON VIEW @extschema@.undisbursed_challenges IS
'Rewards that are earned and not yet paid, of active challenges and users';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.challenge_id IS 'challenges.id';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.user_id IS 'Who has earned it';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.specifier IS 'With challenge_id, what is paid at most once';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.amount IS 'How much $AUDIO';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.completed_blocknumber IS
'The last block when it was completed; of earlier services it may be null, or a slot of another chain';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.handle IS 'Of the user''s current row';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.wallet IS 'Of the user''s current row';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.created_at IS 'When the user challenge was first written';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.completed_at IS
'When it was completed, in UTC; null in rows of earlier services';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.cooldown_days IS
'challenges.cooldown_days: how many days of 24 hours after completed_at it can be claimed; null: at once';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.claimable_at IS
'From when on it can be claimed: completed_at and the cooldown';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.in_cooldown IS 'Whether claimable_at is still to come';
COMMENT ON COLUMN @extschema@.undisbursed_challenges.is_verified IS 'Whether the user is verified';
