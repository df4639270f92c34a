-- What makes shares and takes them down: statements, printed for \gexec of psql; and why a node does nothing.

CREATE FUNCTION audius_challenges.share_tables()
RETURNS SETOF text
LANGUAGE plpython3u
STABLE
ROWS 50
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.share_tables(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.share_tables() IS
'On the primary: the statements that create a node''s extension, tables and indexes, to be executed on the node';

CREATE FUNCTION audius_challenges.share_publications(shares integer)
RETURNS SETOF text
LANGUAGE plpython3u
STABLE
ROWS 12
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.share_publications(plpy, shares)
$function$;

COMMENT ON FUNCTION audius_challenges.share_publications(integer) IS
'On the primary: the statements that publish each of so many shares, three publications for each';

CREATE FUNCTION audius_challenges.receive_share(share text, conninfo text)
RETURNS SETOF text
LANGUAGE plpython3u
STABLE
ROWS 1
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.receive_share(plpy, share, conninfo)
$function$;

COMMENT ON FUNCTION audius_challenges.receive_share(text, text) IS
'On the primary: the statement that has it receive what the node of a share sends. share: such as 0/2; conninfo: how '
'the primary connects to the node';

CREATE FUNCTION audius_challenges.join_share(share text, conninfo text)
RETURNS SETOF text
LANGUAGE plpython3u
STABLE
ROWS 9
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.join_share(plpy, share, conninfo)
$function$;

COMMENT ON FUNCTION audius_challenges.join_share(text, text) IS
'On a node: the statements that make it the node of a share. share: such as 0/2; conninfo: how it connects to the '
'primary';

CREATE FUNCTION audius_challenges.adopt_share(conninfo text)
RETURNS SETOF text
LANGUAGE plpython3u
STABLE
ROWS 3
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.adopt_share(plpy, conninfo)
$function$;

COMMENT ON FUNCTION audius_challenges.adopt_share(text) IS
'On a node, once its plan has arrived: the statements that copy what had been written for its users. conninfo: how it '
'connects to the primary';

CREATE FUNCTION audius_challenges.finish_adoption()
RETURNS SETOF text
LANGUAGE plpython3u
VOLATILE
ROWS 1
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.finish_adoption(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.finish_adoption() IS
'On a node: sees that all is copied, and has it work by the plan from now on; returns the statement that drops the '
'subscription which copied';

CREATE FUNCTION audius_challenges.drop_shares()
RETURNS SETOF text
LANGUAGE plpython3u
STABLE
ROWS 20
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.drop_shares(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.drop_shares() IS
'On the primary or a node: the statements that remove all that shares have created here';

CREATE FUNCTION audius_challenges.share_why_not()
RETURNS SETOF text
LANGUAGE plpython3u
STABLE
ROWS 5
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.share_why_not(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.share_why_not() IS
'On a node: why its ticks do nothing; no row: they work. No row on any other server';
