-- How shares fare, on the primary and on each node.

CREATE FUNCTION audius_challenges.shares()
RETURNS TABLE (
    share text,
    status text,
    plan bigint,
    epoch bigint,
    number bigint,
    last_beat timestamptz,
    says text,
    behind text[],
    problem text,
    waiting_batches bigint,
    waiting_rows bigint,
    held_rows bigint,
    copying text[],
    subscription text,
    apply_errors bigint,
    slot text,
    slot_bytes bigint
)
LANGUAGE plpython3u
STABLE
ROWS 4
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.share_status(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.shares() IS 'The rows of share_status';

CREATE VIEW audius_challenges.share_status AS
SELECT shares.*
FROM audius_challenges.shares() AS shares;

COMMENT ON VIEW audius_challenges.share_status IS
'How shares fare: on the primary a row for each share of the plan, on a node one for its own; none on other servers';
COMMENT ON COLUMN audius_challenges.share_status.share IS 'The share, such as 0/2; null: not set on this node';
COMMENT ON COLUMN audius_challenges.share_status.status IS
'ok; behind: not all users are examined yet; silent: no beat has come for too long; stopped: the node does nothing; '
'gap: batches are missing; missing: nothing has come of the node since the plan changed';
COMMENT ON COLUMN audius_challenges.share_status.plan IS 'share_plan.epoch, the number of the present plan';
COMMENT ON COLUMN audius_challenges.share_status.epoch IS
'The plan by which the node works: what has come of it, or what it has adopted';
COMMENT ON COLUMN audius_challenges.share_status.number IS
'The number of the last batch: that has arrived on the primary without a gap, or was sent by the node';
COMMENT ON COLUMN audius_challenges.share_status.last_beat IS
'When the last tick ended that is known of: on the primary one of the node, on a node one of the primary';
COMMENT ON COLUMN audius_challenges.share_status.says IS 'Why the node does nothing; null: it works';
COMMENT ON COLUMN audius_challenges.share_status.behind IS
'The challenges for which the node has not examined all users yet';
COMMENT ON COLUMN audius_challenges.share_status.problem IS 'On the primary: what is missing; null: nothing';
COMMENT ON COLUMN audius_challenges.share_status.waiting_batches IS
'On the primary: batches that have arrived and are not written yet';
COMMENT ON COLUMN audius_challenges.share_status.waiting_rows IS 'On the primary: the rows in these';
COMMENT ON COLUMN audius_challenges.share_status.held_rows IS 'On the primary: rows of users who are set aside';
COMMENT ON COLUMN audius_challenges.share_status.copying IS 'On a node: the tables that are still being copied';
COMMENT ON COLUMN audius_challenges.share_status.subscription IS
'The subscription here, to what comes of the node or of the primary: running, no worker, disabled, or missing';
COMMENT ON COLUMN audius_challenges.share_status.apply_errors IS
'How often that subscription has failed since its statistics were reset';
COMMENT ON COLUMN audius_challenges.share_status.slot IS
'The replication slot here, of what goes to the node or to the primary: active, inactive, lost, or missing';
COMMENT ON COLUMN audius_challenges.share_status.slot_bytes IS 'How much WAL that slot holds';
