-- What nodes send home, and the plan by which they do.

CREATE FUNCTION audius_challenges.send_share()
RETURNS trigger
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    here record;
BEGIN
    IF NOT EXISTS (SELECT FROM written) THEN
        RETURN NULL;
    END IF;
    UPDATE audius_challenges.share_sent AS sent
    SET number = sent.number + 1
    WHERE sent.epoch > 0
    RETURNING sent.share, sent.epoch, sent.number, sent.node
    INTO here;
    IF NOT found THEN
        RAISE EXCEPTION 'this node has not adopted the user challenges of its share, so nothing can be sent'
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'See SELECT * FROM audius_challenges.share_why_not();';
    END IF;
    IF tg_table_name = 'user_challenges' THEN
        INSERT INTO audius_challenges.share_batch
            (epoch, share, node, number, relation, challenge_id, users, specifiers, steps, amounts, is_complete,
             created_at, completed_at)
        SELECT
            here.epoch,
            here.share,
            here.node,
            here.number,
            'user_challenges',
            written.challenge_id,
            array_agg(written.user_id),
            array_agg(written.specifier::text),
            array_agg(written.current_step_count),
            array_agg(written.amount),
            array_agg(written.is_complete),
            array_agg(written.created_at),
            array_agg(written.completed_at)
        FROM written
        GROUP BY written.challenge_id;
    ELSIF tg_table_name = 'challenge_profile_completion' THEN
        INSERT INTO audius_challenges.share_batch (epoch, share, node, number, relation, challenge_id, users, steps)
        SELECT
            here.epoch,
            here.share,
            here.node,
            here.number,
            'challenge_profile_completion',
            'p',
            array_agg(written.user_id),
            array_agg(
                written.profile_description::integer
                + 2 * written.profile_name::integer
                + 4 * written.profile_picture::integer
                + 8 * written.profile_cover_photo::integer
                + 16 * written.follows::integer
                + 32 * written.favorites::integer
                + 64 * written.reposts::integer
            )
        FROM written;
    ELSIF tg_table_name = 'challenge_listen_streak' THEN
        INSERT INTO audius_challenges.share_batch
            (epoch, share, node, number, relation, challenge_id, users, steps, completed_at)
        SELECT
            here.epoch,
            here.share,
            here.node,
            here.number,
            'challenge_listen_streak',
            'e',
            array_agg(written.user_id),
            array_agg(written.listen_streak),
            array_agg(written.last_listen_date)
        FROM written;
    ELSE
        RAISE EXCEPTION 'rows of % are not sent home', tg_table_name
            USING ERRCODE = 'wrong_object_type',
            HINT = pg_catalog.format('DROP TRIGGER %I ON %s;', tg_name, tg_relid::regclass);
    END IF;
    DELETE FROM audius_challenges.share_batch AS sent WHERE sent.number = here.number;
    RETURN NULL;
END
$function$;

COMMENT ON FUNCTION audius_challenges.send_share() IS
'Trigger of a node on what runs write, AFTER INSERT and AFTER UPDATE, FOR EACH STATEMENT, REFERENCING NEW TABLE AS '
'written: puts the rows into audius_challenges.share_batch and deletes them, so that the WAL takes them home';

CREATE FUNCTION audius_challenges.resend()
RETURNS bigint
LANGUAGE plpython3u
VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.resend(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.resend() IS
'On a node: sends home once more all that it has of its share, which makes good whatever was lost on the way; returns '
'the number of rows';

CREATE FUNCTION audius_challenges.plan_shares(shares integer)
RETURNS bigint
LANGUAGE plpython3u
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.plan_shares(plpy, shares)
$function$;

COMMENT ON FUNCTION audius_challenges.plan_shares(integer) IS
'On the primary: decides that so many nodes derive u, fp, p, v and e from now on, each for its share of the users; 0: '
'the primary does everything again. Returns the epoch, the number of the plan';
