"""A node of the next PostgreSQL, whose primary is of the one before: shares replicate from one to the other.

Both servers are in one Debian root.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest

from devtools.cluster import Cluster
from devtools.debian_root import EARLIER, DebianRoot, installed_root
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from devtools.shares import SETTINGS, Shares
from tests.sessions import rows

pytestmark = pytest.mark.timeout(1800)  # the first makes roots of Debian, where there are none yet


@pytest.fixture(params=EARLIER, ids=lambda new: f"{EARLIER[new]} to {new}")
def both(request: pytest.FixtureRequest) -> DebianRoot:
    """The root with both servers."""
    return installed_root(request.param)


@pytest.fixture
def primary(both: DebianRoot) -> Iterator[Discovery]:
    """A primary on the old server, with somebody who has earned something."""
    bin_dir = both.bin_dir(EARLIER[both.major])
    with Cluster(bin_dir, root=both.path, cron_database="postgres", settings=SETTINGS) as cluster:
        require_extension(cluster)
        database = create_discovery(cluster, "discovery")
        database.psql(CREATE_EXTENSION, "SELECT count(*) FROM sync_challenge_catalog('stage')")
        database.psql("SELECT build.qualify_u(9)", "SELECT build.qualify_e(10)")
        yield database


def test_a_node_of_the_next_major_derives_for_a_primary_of_the_one_before(both: DebianRoot, primary: Discovery) -> None:
    earned = """
        SELECT challenge_id::text, user_id, current_step_count
        FROM user_challenges
        WHERE is_complete
        ORDER BY user_id, challenge_id
    """
    with Shares(primary) as shares, closing(primary.connect()) as session:
        (node,) = shares.set_up(1)
        assert (primary.cluster.major, node.cluster.major) == (EARLIER[both.major], both.major)
        shares.settle()
        assert rows(session, earned) == [("u", 9, 3), ("e", 10, 7)]
        session.execute("SELECT build.qualify_fp(11)")
        session.execute("SELECT build.qualify_p(12)")
        shares.settle()
        assert rows(session, earned)[2:] == [("fp", 11, 1), ("p", 12, 7)]
        assert rows(session, "SELECT count(*) FROM notification") == [(4,)]
        shares.take_down()
        session.execute("SELECT build.qualify_u(13)")
        session.execute("CALL audius_challenges.tick()")
        session.execute("CALL audius_challenges.tick()")
        assert ("u", 13, 3) in rows(session, earned)
        assert rows(session, "SELECT count(*) FROM notification") == [(5,)]
