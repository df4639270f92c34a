"""Who may do what: a snapshot of the privileges on every object of the extension, and of all that the grants give."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from devtools.discovery import Discovery
from tests.sessions import Connection, rows

# What roles besides the owner may do: nobody in particular (PUBLIC), a role with grant_run, a role with grant_status.
Privileges = dict[str, tuple[str, str, str]]

MEMBERS: Privileges = {
    "function audius_challenges.adopt_share(text)": ("", "", ""),
    "function audius_challenges.compile()": ("", "", ""),
    "function audius_challenges.doctor()": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.drop_shares()": ("", "", ""),
    "function audius_challenges.examine()": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.finish_adoption()": ("", "", ""),
    "function audius_challenges.grant_run(text)": ("", "", ""),
    "function audius_challenges.grant_status(text)": ("", "", ""),
    "function audius_challenges.install()": ("", "", ""),
    "function audius_challenges.job_facts()": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.join_share(text,text)": ("", "", ""),
    "function audius_challenges.load()": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.metrics()": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.plan_shares(integer)": ("", "", ""),
    "function audius_challenges.receive_share(text,text)": ("", "", ""),
    "function audius_challenges.resend()": ("", "", ""),
    "function audius_challenges.schedule_facts()": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.send_share()": ("", "EXECUTE", ""),
    "function audius_challenges.share_publications(integer)": ("", "", ""),
    "function audius_challenges.share_tables()": ("", "", ""),
    "function audius_challenges.share_why_not()": ("", "EXECUTE", ""),
    "function audius_challenges.shares()": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.start_from_now(text[],boolean)": ("", "EXECUTE", ""),
    "function audius_challenges.status()": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.tick_problem()": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.trigger_needs(text)": ("", "EXECUTE", ""),
    "function audius_challenges.trim_run_details()": ("", "EXECUTE", ""),
    "function audius_challenges.undisbursed(bigint,text,bigint,text,text,bigint)": ("", "EXECUTE", "EXECUTE"),
    "function audius_challenges.unpayable_rows(text)": ("", "EXECUTE", "EXECUTE"),
    "function public.explain_challenge(integer,text)": ("", "EXECUTE", "EXECUTE"),
    "function public.reconcile_challenges(text[],boolean,boolean,timestamp with time zone)": ("", "EXECUTE", ""),
    "function public.schedule_challenges(interval)": ("", "EXECUTE", ""),
    "function public.sync_challenge_catalog(text,text[])": ("", "EXECUTE", ""),
    "function public.unschedule_challenges()": ("", "EXECUTE", ""),
    "function audius_challenges.begin_full_scan(text[])": ("", "EXECUTE", ""),
    "procedure audius_challenges.help()": ("", "EXECUTE", ""),
    "procedure audius_challenges.tick(interval)": ("", "EXECUTE", ""),
    "schema audius_challenges": ("", "USAGE", "USAGE"),
    "sequence audius_challenges.share_batch_id_seq": ("", "", ""),
    "table audius_challenges.challenge_day": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.day_backfill": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.history": ("", "DELETE INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.installation": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.last_tick": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.look": ("", "DELETE INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.pause": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.passed_over": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.verified_user": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.tastemaker_decision": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.set_aside": ("", "DELETE INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.processor_state": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.slice": ("", "DELETE INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.share_batch": ("", "DELETE INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.share_beat": ("", "DELETE INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.share_node": ("", "DELETE INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.share_plan": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.share_sent": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table audius_challenges.unpaid_friday": ("", "INSERT SELECT UPDATE", "SELECT"),
    # PostgreSQL's default; it lets nobody read or write anything.
    "type audius_challenges.phase": ("USAGE", "", ""),
    "view audius_challenges.share_status": ("", "SELECT", "SELECT"),
    "view public.challenge_history": ("", "SELECT", "SELECT"),
    "view public.challenge_status": ("", "SELECT", "SELECT"),
    "view public.undisbursed_challenges": ("", "SELECT", "SELECT"),
}
# Of the application: nothing is granted to PUBLIC by us, and what others have granted is theirs.
APPLICATION: Privileges = {
    "schema public": ("USAGE", "USAGE", "USAGE"),
    "sequence public.notification_id_seq": ("", "USAGE", ""),
    "table public.challenge_listen_streak": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table public.challenge_profile_completion": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table public.challenge_disbursements": ("", "SELECT", "SELECT"),
    "table public.challenges": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table public.notification": ("", "INSERT SELECT", ""),
    "table public.sol_reward_disbursements": ("", "SELECT", "SELECT"),
    "table public.trending_results": ("", "INSERT SELECT", "SELECT"),
    "table public.user_challenges": ("", "INSERT SELECT UPDATE", "SELECT"),
    "table public.users": ("", "SELECT", "SELECT"),
    "table public.blocks": ("", "SELECT", "SELECT"),
    "table public.track_trending_scores": ("", "SELECT", "SELECT"),
    "table public.playlist_trending_scores": ("", "SELECT", "SELECT"),
}
# Any other is a source that some challenge reads; these are there whatever challenges come.
SOURCE = ("", "SELECT", "SELECT")
SOURCES: Privileges = {
    f"table public.{name}": SOURCE
    for name in (
        "aggregate_monthly_plays",
        "aggregate_user",
        "follows",
        "playlists",
        "plays",
        "reposts",
        "saves",
        "tracks",
    )
}

# Every object that has privileges, and every member of the extension whatever it is; a star marks the grant option.
# Left out are types that a relation brings for its rows and a type for its arrays: members only from PostgreSQL 17 on.
OBJECTS = """
    WITH access_list AS (
        SELECT 'pg_class'::regclass AS classid, oid AS objid, relowner AS owner,
            coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner)) AS entries
        FROM pg_class
        UNION ALL
        SELECT 'pg_class'::regclass, attrelid, relowner, attacl
        FROM pg_attribute
        INNER JOIN pg_class ON pg_class.oid = attrelid
        WHERE attacl IS NOT NULL
        UNION ALL
        SELECT 'pg_proc'::regclass, oid, proowner, coalesce(proacl, acldefault('f', proowner))
        FROM pg_proc
        UNION ALL
        SELECT 'pg_type'::regclass, oid, typowner, coalesce(typacl, acldefault('T', typowner))
        FROM pg_type
        UNION ALL
        SELECT 'pg_namespace'::regclass, oid, nspowner, coalesce(nspacl, acldefault('n', nspowner))
        FROM pg_namespace
        UNION ALL
        SELECT 'pg_language'::regclass, oid, lanowner, coalesce(lanacl, acldefault('l', lanowner))
        FROM pg_language
        UNION ALL
        SELECT 'pg_database'::regclass, oid, datdba, coalesce(datacl, acldefault('d', datdba))
        FROM pg_database
    ),

    member AS (
        SELECT classid, objid
        FROM pg_depend
        INNER JOIN pg_extension ON pg_extension.oid = refobjid AND extname = 'audius_challenges'
        LEFT JOIN pg_type ON classid = 'pg_type'::regclass AND pg_type.oid = objid
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
            AND coalesce(typrelid, 0) = 0 AND coalesce(typelem, 0) = 0
    ),

    granted AS (
        SELECT classid, objid, grantee, string_agg(
            DISTINCT privilege_type || CASE WHEN is_grantable THEN '*' ELSE '' END, ' '
        ) AS privileges
        FROM access_list
        CROSS JOIN aclexplode(entries)
        WHERE grantee <> owner
        GROUP BY classid, objid, grantee
    ),

    shown AS (
        SELECT classid, objid, TRUE AS is_member
        FROM member
        UNION ALL
        SELECT classid, objid, FALSE
        FROM (SELECT classid, objid FROM granted WHERE grantee <> 0 EXCEPT SELECT classid, objid FROM member) AS other
    )

    SELECT
        is_member,
        replace(concat_ws(' ', identified.type, identified.identity), 'pg_catalog.', ''),
        coalesce(max(privileges) FILTER (WHERE grantee = 0), ''),
        coalesce(max(privileges) FILTER (WHERE grantee = to_regrole('runner')), ''),
        coalesce(max(privileges) FILTER (WHERE grantee = to_regrole('watcher')), ''),
        coalesce(bool_or(grantee NOT IN (0, to_regrole('runner'), to_regrole('watcher'))), FALSE)
    FROM shown
    CROSS JOIN pg_identify_object(classid, objid, 0) AS identified
    LEFT JOIN granted USING (classid, objid)
    WHERE is_member OR grantee IN (0, to_regrole('runner'), to_regrole('watcher'))
    GROUP BY is_member, classid, objid, identified.type, identified.identity
"""


@pytest.fixture
def owner(discovery: Discovery) -> Iterator[Connection]:
    """The extension's owner, in a database with two roles of whom none has been granted anything."""
    with closing(discovery.connect()) as connection:
        connection.execute("CREATE ROLE runner")
        connection.execute("CREATE ROLE watcher")
        try:
            yield connection
        finally:
            connection.execute("DROP OWNED BY runner, watcher")
            connection.execute("DROP ROLE runner, watcher")


def snapshot(owner: Connection, *, members: bool) -> Privileges:
    """The privileges on the extension's members, or on other objects as far as these roles have any."""
    found: Privileges = {}
    for is_member, name, public, runner, watcher, others in rows(owner, OBJECTS):
        assert not (is_member and others), f"{name} is granted to somebody else"
        if is_member == members and (members or runner or watcher):
            found[name] = (public, runner, watcher)
    return found


def grant(owner: Connection) -> None:
    owner.execute("SELECT audius_challenges.grant_run('runner')")
    owner.execute("SELECT audius_challenges.grant_status('watcher')")


def test_nobody_but_the_owner_has_a_privilege_before_the_grants(owner: Connection) -> None:
    assert snapshot(owner, members=True) == {name: (public, "", "") for name, (public, _, _) in MEMBERS.items()}
    assert snapshot(owner, members=False) == {}


def test_the_grants_give_these_privileges_on_the_extensions_objects_and_no_others(owner: Connection) -> None:
    grant(owner)
    assert snapshot(owner, members=True) == MEMBERS


def test_the_grants_give_these_privileges_on_the_applications_objects_and_no_others(owner: Connection) -> None:
    grant(owner)
    found = snapshot(owner, members=False)
    assert {name: found.get(name) for name in APPLICATION} == APPLICATION
    sources = {name: privileges for name, privileges in found.items() if name not in APPLICATION}
    assert SOURCES.items() <= sources.items()
    assert set(sources.values()) == {SOURCE}
    assert [name for name in sources if not name.startswith("table public.")] == []


def test_granting_again_gives_nothing_more(owner: Connection) -> None:
    grant(owner)
    once = snapshot(owner, members=False)
    grant(owner)
    assert snapshot(owner, members=True) == MEMBERS
    assert snapshot(owner, members=False) == once


def test_a_challenge_that_lacks_a_privilege_says_which_call_grants_it(owner: Connection) -> None:
    grant(owner)
    owner.execute("REVOKE SELECT ON tracks FROM runner")
    owner.execute("SET ROLE runner")
    ((status, error),) = rows(owner, "SELECT status, error FROM reconcile_challenges(ARRAY['u'])")
    recorded = rows(owner, "SELECT last_error FROM challenge_status WHERE challenge_id = 'u'")
    owner.execute("RESET ROLE")

    hint = "SELECT audius_challenges.grant_run('runner');"
    assert status == "failed"
    assert error.startswith(f"permission denied for table tracks (SQLSTATE 42501) HINT: {hint} grants what")
    assert recorded == [(error,)]
    owner.execute(hint)
    owner.execute("SET ROLE runner")
    assert rows(owner, "SELECT status, error FROM reconcile_challenges(ARRAY['u'])") == [("ok", None)]
    owner.execute("RESET ROLE")
