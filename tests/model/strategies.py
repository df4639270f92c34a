"""Histories of events, by Hypothesis: each about one theme, so that what has to meet meets often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import chain
from typing import Any

from hypothesis import strategies as st

from tests.model import MODELLED
from tests.model.challenges.cosign import pair_of as cosigned_by
from tests.model.challenges.first_weekly_comment import week_of
from tests.model.challenges.referrals import pair_of
from tests.model.database import Environment, Run
from tests.model.events import (
    AlterChallenge,
    Arrival,
    Buy,
    Chart,
    Charts,
    CheckPurchases,
    Comments,
    Compile,
    CompleteProfile,
    Contest,
    Cosigns,
    Count,
    Counters,
    Crowd,
    Delete,
    DropScores,
    Event,
    Fans,
    Follows,
    ForeignWinner,
    HandOver,
    Hit,
    IndexPlaysAgain,
    LateCommit,
    Leftover,
    LeftoverCosign,
    LeftoverStreak,
    LeftoverTaste,
    Likes,
    ListenNow,
    Listens,
    Loss,
    MakeRemix,
    Moderation,
    NewBlock,
    OpenTransaction,
    PaidBefore,
    PassOver,
    Pin,
    PrunePlays,
    Remark,
    RemoveChallenge,
    RestoreChallenge,
    Revert,
    Score,
    SeePlaysAgain,
    StartStreaksFromNow,
    UncommittedListens,
    Upload,
    UserRepair,
    UserVersion,
    Winners,
)
from tests.model.rows import JANUARY
from tests.model.rules import specifier_of
from tests.model.spaces import (
    BASE,
    BLOCKS,
    CHARTED,
    COMMENT_TIMES,
    COMMENTS,
    CONTEST_BLOCKS,
    CONTESTS,
    COSIGN_TIMES,
    HASHES,
    HOUR,
    LATER,
    MONTHS,
    PAID_BEFORE,
    PROFILE,
    REMIXES,
    SCORE_TYPES,
    SHORTLY,
    SLOTS,
    STRANGER,
    TRACKS,
    USERS,
    WINNERS,
    WON_TRACKS,
)

users = st.sampled_from(USERS)
hashes = st.sampled_from(HASHES)
blocks = st.sampled_from(BLOCKS)
seldom = st.sampled_from((False, False, False, True))
mostly = st.sampled_from((True, True, True, False))
positions = st.integers(0, 30)

gap = st.sampled_from(
    (
        *(24 * HOUR,) * 3,
        timedelta(0),
        HOUR,
        16 * HOUR - SHORTLY,
        16 * HOUR,
        30 * HOUR,
        48 * HOUR - SHORTLY,
        48 * HOUR,
        100 * HOUR,
        -SHORTLY,
        -24 * HOUR,
    )
)
gaps = st.one_of(
    st.lists(gap, min_size=1, max_size=6).map(tuple),
    st.builds(lambda days, hours: (hours * HOUR,) * days, st.integers(3, 10), st.sampled_from((16, 24, 47))),
)
counts = st.sampled_from((0, 1, 1, 100, 248, 249, 250, 750, 999, 1000, 9000, 9999, 10000, 2000000000))
scores = st.sampled_from((0.0, 0.5, 1.0, 1.5, 2.0, 1e9))

some_scores = st.lists(scores, min_size=1, max_size=13).map(tuple)
many_scores = st.lists(scores, min_size=18, max_size=26).map(tuple)

user_versions = st.builds(
    UserVersion,
    users,
    hashes,
    blocks,
    st.lists(st.sampled_from(PROFILE), unique=True, max_size=4).map(lambda columns: tuple(sorted(columns))),
    has_handle=mostly,
    is_verified=st.booleans(),
    is_deactivated=seldom,
    is_current=mostly,
    keeps_old=seldom,
)


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of the strategies; the numbers say how often. (`one_of` would flatten and forget repetitions.)"""
    pool = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(pool) - 1).flatmap(pool.__getitem__)


def alterations(ids: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """What happens to challenges in the catalog."""
    names = st.sampled_from(ids)
    amounts = st.sampled_from(("0", "3", " 12 ", "007", "2147483647"))
    bad_amounts = st.sampled_from(("2147483648", "-1", "1.5", "abc", "", "1e3"))
    targets = st.sampled_from((1, 2, 5, 6, 250, 2147483647))
    bad_targets = st.sampled_from((0, -1, None))
    return weighted(
        (1, st.builds(AlterChallenge, names, st.just("active"), st.booleans())),
        (2, st.builds(AlterChallenge, names, st.just("amount"), amounts)),
        (1, st.builds(AlterChallenge, names, st.just("amount"), bad_amounts)),
        (1, st.builds(AlterChallenge, names, st.just("starting_block"), blocks)),
        (1, st.builds(AlterChallenge, names, st.just("starting_block"), st.none())),
        (1, st.builds(RemoveChallenge, names)),
        (5, st.builds(RestoreChallenge, names)),
        (3, st.builds(AlterChallenge, names, st.just("step_count"), targets)),
        (1, st.builds(AlterChallenge, names, st.just("step_count"), bad_targets)),
    )


def leftovers(*ids: str) -> st.SearchStrategy[Any]:
    """Rows of earlier services, and rows that somebody lost."""
    steps = st.sampled_from((None, 0, 1, 2, 400))
    return weighted(
        (2, st.builds(Leftover, st.sampled_from(ids), users, seldom, steps, st.sampled_from((0, 1, 3)))),
        (1, st.builds(Loss, st.sampled_from(("user_challenges", "challenge_profile_completion")), positions)),
    )


def deletes(*tables: str) -> st.SearchStrategy[Any]:
    """Repairs that delete a row."""
    return st.builds(Delete, st.sampled_from(tables), positions)


account = weighted(
    (3, user_versions),
    (
        3,
        st.builds(
            UserRepair,
            users,
            st.sampled_from(("is_verified", "is_deactivated", "name", "bio", "profile_picture_sizes", "handle_lc")),
            st.booleans(),
        ),
    ),
    (1, deletes("users")),
)
reorganizations = weighted(
    (2, st.builds(Revert, st.sampled_from([number for number in BLOCKS if number]))),
    (1, st.builds(NewBlock, st.sampled_from((None, 7, 28350002, 28350003)))),
    (1, st.builds(OpenTransaction)),
)

follows = st.builds(Follows, users, st.integers(1, 4), st.integers(1, 5), hashes, blocks, seldom, mostly)
likes = st.builds(
    Likes,
    users,
    st.sampled_from(("saves", "reposts")),
    st.sampled_from((1, 2)),
    st.sampled_from(("track", "playlist", "album")),
    hashes,
    blocks,
    seldom,
    mostly,
)
profile = weighted(
    (6, follows),
    (5, likes),
    (3, user_versions),
    (4, account),
    (1, reorganizations),
    (1, st.builds(CompleteProfile, users)),
    (2, deletes("follows", "saves", "reposts")),
    (2, leftovers("p", "v")),
    (2, alterations(("p", "v"))),
)

plain_uploads = st.builds(Upload, users, st.sampled_from(TRACKS), st.integers(1, 4), hashes, blocks)
uploads = st.builds(
    Upload,
    users,
    st.sampled_from(TRACKS),
    st.integers(1, 2),
    hashes,
    blocks,
    mostly,
    seldom,
    seldom,
    mostly,
    st.sampled_from((None, None, None, "null", '{"parent_track_id": 1}')),
)
playlists = st.builds(Compile, users, st.sampled_from(TRACKS), hashes, blocks, mostly, seldom, st.booleans(), seldom)
handovers = st.builds(HandOver, st.sampled_from((*TRACKS, CHARTED, CHARTED + 1)), users)
works = weighted(
    (6, uploads),
    (4, playlists),
    (1, plain_uploads),
    (2, handovers),
    (2, account),
    (2, reorganizations),
    (2, deletes("tracks", "playlists")),
    (2, leftovers("u", "fp")),
    (3, alterations(("u", "fp"))),
)

months = st.sampled_from(MONTHS)
milestones = weighted(
    (4, st.builds(Count, st.sampled_from(TRACKS), months, st.sampled_from(("", "US")), counts)),
    (8, st.builds(Hit, users, st.sampled_from(TRACKS), months, counts)),
    (4, uploads),
    (1, handovers),
    (3, account),
    (1, reorganizations),
    (1, deletes("tracks", "aggregate_monthly_plays")),
    (2, leftovers("p1", "p2", "p3")),
    (2, alterations(("p1", "p2", "p3"))),
)

listening = weighted(
    (10, st.builds(Listens, users, gaps, st.sampled_from(TRACKS))),
    (1, st.builds(Listens, st.sampled_from((None, STRANGER)), gaps, st.sampled_from(TRACKS))),
    (3, st.builds(UncommittedListens, users, gaps, st.booleans())),
    (3, st.builds(LateCommit)),
    (2, st.builds(SeePlaysAgain)),
    (1, st.builds(IndexPlaysAgain)),
    (2, st.builds(ListenNow, users)),
    (1, st.builds(StartStreaksFromNow)),
    (1, st.builds(Crowd)),
    (1, st.builds(PrunePlays, st.integers(0, 5))),
    (2, st.builds(LeftoverStreak, users, st.sampled_from((1, 3, 6, 7, 9)), mostly, mostly)),
    (2, account),
    (1, reorganizations),
    (2, st.builds(Loss, st.sampled_from(("user_challenges", "challenge_listen_streak")), positions)),
    (4, st.builds(AlterChallenge, st.just("e"), st.just("active"), st.booleans())),
    (1, alterations(("e",))),
)

offsets = st.sampled_from((0, 2, 14))
many_followers = st.sampled_from((None, 0, 1499, 1500))
charted_uploads = st.builds(
    Upload,
    users,
    st.sampled_from((CHARTED, CHARTED + 4)),
    st.integers(1, 3),
    hashes,
    blocks,
    mostly,
    seldom,
    seldom,
    mostly,
)
charted_playlists = st.builds(
    Compile,
    users,
    st.sampled_from((CHARTED, CHARTED + 1, CHARTED + 2)),
    hashes,
    blocks,
    mostly,
    seldom,
    st.booleans(),
    seldom,
)
charts = weighted(
    (4, st.builds(Chart, st.sampled_from(SCORE_TYPES), offsets, some_scores)),
    (1, st.builds(Chart, st.sampled_from(SCORE_TYPES), offsets, some_scores, st.just("EJ57D"))),
    (1, st.builds(Chart, st.sampled_from(SCORE_TYPES), offsets, some_scores, time_range=st.just("month"))),
    (1, st.builds(Charts, some_scores, offsets, some_scores)),
    (3, st.builds(Charts, many_scores, offsets, many_scores)),
    (
        2,
        st.builds(
            Score,
            st.sampled_from((*SCORE_TYPES, "OTHER")),
            st.sampled_from((*TRACKS, CHARTED, CHARTED + 1, 999)),
            scores,
            st.sampled_from(("pnagD", "pnagD", "EJ57D")),
            st.sampled_from(("week", "week", "month")),
        ),
    ),
    (1, st.builds(DropScores, st.sampled_from(SCORE_TYPES))),
    (3, st.builds(Counters, users, many_followers, many_followers)),
    (3, charted_uploads),
    (3, charted_playlists),
    (1, handovers),
    (2, account),
    (1, reorganizations),
    (2, deletes("aggregate_user", "track_trending_scores", "playlist_trending_scores")),
    (
        1,
        st.builds(
            ForeignWinner,
            st.sampled_from(("tt", "tut", "tp")),
            st.sampled_from((date(2025, 11, 7), date(2025, 11, 14))),
            st.sampled_from((1, 3, 10)),
            users,
        ),
    ),
    (1, alterations(("tt", "tut", "tp"))),
)
comment_times = st.sampled_from(COMMENT_TIMES)
maybe = st.sampled_from((None, True, False))
commented_before = st.builds(
    lambda user, is_decimal, at: f"{user if is_decimal else format(user, 'x')}:{week_of(at)}",
    users,
    st.booleans(),
    comment_times,
)
deeds = weighted(
    (
        10,
        st.builds(
            Comments,
            st.sampled_from(COMMENTS),
            users,
            comment_times,
            st.sampled_from((False, False, None, True)),
            st.sampled_from((True, True, None, False)),
            blocks,
            st.sampled_from(("Track", "FanClub")),
        ),
    ),
    (2, st.builds(Moderation, st.sampled_from(COMMENTS), st.sampled_from(("is_delete", "is_visible")), maybe)),
    (
        8,
        st.builds(Arrival, st.integers(1, 8), users, st.sampled_from((None, *USERS)), mostly, mostly, blocks),
    ),
    (2, st.builds(PaidBefore, st.just("c"), commented_before, st.booleans())),
    (1, st.builds(PaidBefore, st.just("m"), users.map("{:x}".format), st.booleans())),
    (1, st.builds(PassOver, st.sampled_from(("c", "m")))),
    (4, account),
    (1, reorganizations),
    (1, deletes("comments", "user_events", "challenge_disbursements")),
    (2, alterations(("c", "m"))),
)
purchases = weighted(
    (
        10,
        st.builds(
            Buy,
            st.sampled_from((*USERS, *USERS, STRANGER)),
            st.sampled_from(TRACKS),
            st.sampled_from(("track", "track", "playlist", "album", "ticket")),
            st.sampled_from((0, 999999, 1000000, 1000000, 2999999, 2147483647000000, 2147483648000000, -1000000)),
            st.sampled_from((True, True, True, None, False)),
            st.sampled_from(SLOTS),
            st.sampled_from(("A", "a", "B", "1", "2")),
            st.sampled_from((0, 1, 2, 10)),
            st.sampled_from([number for number in BLOCKS if number]),
        ),
    ),
    (2, st.builds(CheckPurchases, users, mostly)),
    (3, uploads),
    (3, playlists),
    (2, handovers),
    (3, account),
    (1, reorganizations),
    (1, deletes("tracks", "playlists", "sol_purchases")),
    (1, alterations(("b", "s"))),
    (1, st.builds(AlterChallenge, st.sampled_from(("b", "s")), st.just("starting_block"), st.sampled_from(SLOTS))),
)

comment_ids = st.sampled_from((7, 8, 9))
pinning = weighted(
    (
        6,
        st.builds(
            Remark,
            comment_ids,
            users,
            st.sampled_from(TRACKS),
            blocks,
            st.sampled_from(("Track", "TRACK", "track", "Event")),
            st.sampled_from((False, False, None, True)),
            st.booleans(),
        ),
    ),
    (3, st.builds(Pin, st.sampled_from(TRACKS), st.one_of(comment_ids, comment_ids, st.none()))),
    (2, plain_uploads),
    (1, uploads),
    (1, handovers),
    (3, account),
    (1, reorganizations),
    (1, deletes("tracks", "comments")),
    (1, alterations(("cp",))),
)

# Around the ends of a host's week, of what was paid before, and of the clocks of runs.
contest_times = st.sampled_from(
    (
        *(BASE + timedelta(days=days) for days in (0, 3, 7, 10, 14)),
        BASE + timedelta(days=7) + SHORTLY,
        BASE + timedelta(days=7) - SHORTLY,
        PAID_BEFORE.replace(tzinfo=None) - timedelta(days=7),
        PAID_BEFORE.replace(tzinfo=None) + timedelta(days=7),
        datetime(2025, 11, 14, 12, 35, 15, 123456, UTC).replace(tzinfo=None),
        datetime(2025, 11, 14, 12, 35, 15, 123457, UTC).replace(tzinfo=None),
        LATER,
    )
)
winners = st.lists(
    weighted(
        (4, st.sampled_from(TRACKS).map(str)),
        (4, st.integers(WON_TRACKS, WON_TRACKS + 7).map(str)),
        (1, st.sampled_from(TRACKS).map('"{}"'.format)),
        (1, st.sampled_from(("1.5", "2.0", "0", "-1", '"-1"', '"x"', '""', "null", "true", "[1]", "2147483648"))),
    ),
    max_size=9,
).map(tuple)
contests = st.builds(
    Contest,
    st.sampled_from(CONTESTS),
    users,
    st.one_of(winners, winners, winners, st.none()),
    contest_times,
    st.sampled_from((False, False, False, None, True)),
    st.sampled_from((*("remix_contest",) * 5, "live_event")),
    st.sampled_from(CONTEST_BLOCKS),
)
won_before = st.builds(
    "{:x}:{:x}".format, st.sampled_from(CONTESTS), st.one_of(users, st.integers(WINNERS, WINNERS + 7))
)
contesting = weighted(
    (10, contests),
    (2, st.builds(Winners, st.integers(1, 8))),
    (3, plain_uploads),
    (1, uploads),
    (1, st.builds(HandOver, st.sampled_from((*TRACKS, WON_TRACKS, WON_TRACKS + 1)), users)),
    (2, account),
    (1, st.builds(Revert, st.sampled_from([number for number in CONTEST_BLOCKS if number]))),
    (1, deletes("tracks", "events", "challenge_disbursements")),
    (1, st.builds(PaidBefore, st.just("w"), won_before, st.booleans())),
    (1, st.builds(PassOver, st.just("w"))),
    (1, st.builds(AlterChallenge, st.just("w"), st.just("starting_block"), st.sampled_from(CONTEST_BLOCKS))),
    (1, alterations(("w",))),
)

tastes = st.builds(
    Likes,
    users,
    st.sampled_from(("saves", "reposts")),
    st.integers(CHARTED, CHARTED + 4),
    st.sampled_from(("track", "track", "playlist")),
    hashes,
    blocks,
    seldom,
    mostly,
    st.sampled_from((JANUARY, BASE, datetime(2025, 11, 14, 12, 35, 15, 123456, UTC).replace(tzinfo=None), LATER)),
)
tasting = weighted(
    (8, tastes),
    (1, st.builds(Fans, st.integers(CHARTED, CHARTED + 4))),
    (3, st.builds(Chart, st.just("TRACKS"), offsets, some_scores)),
    (1, st.builds(Chart, st.just("TRACKS"), offsets, many_scores)),
    (1, st.builds(DropScores, st.just("TRACKS"))),
    (1, st.builds(LeftoverTaste, users, st.integers(CHARTED, CHARTED + 4))),
    (1, charted_uploads),
    (1, handovers),
    (2, account),
    (1, reorganizations),
    (1, deletes("saves", "reposts", "track_trending_scores")),
    (1, alterations(("t", "tt"))),
)
referrers = st.sampled_from((*USERS, None, STRANGER))
paid_pairs = st.builds(
    lambda first, second: specifier_of(first) if second is None else pair_of(first, second), users, referrers
)
referrals = weighted(
    (10, st.builds(Arrival, st.integers(1, 6), users, referrers, seldom, mostly, blocks)),
    (4, account),
    (1, reorganizations),
    (1, deletes("user_events", "challenge_disbursements")),
    (1, st.builds(PaidBefore, st.sampled_from(("r", "rv", "rd")), paid_pairs, st.just(True))),
    (2, st.builds(AlterChallenge, st.sampled_from(("r", "rv")), st.just("step_count"), st.sampled_from((1, 2)))),
    (2, alterations(("r", "rv", "rd"))),
)

cosign_times = st.sampled_from(COSIGN_TIMES)
remixes = st.sampled_from(REMIXES)
parents = st.sampled_from(TRACKS[:2])
cosigned_before = st.builds(
    lambda artist, remix, is_alone: f"{remix:x}" if is_alone else cosigned_by(artist, remix),
    users,
    remixes,
    st.booleans(),
)
cosigning = weighted(
    (
        8,
        st.builds(
            Cosigns,
            users,
            parents,
            st.sampled_from((*USERS, STRANGER)),
            remixes,
            st.lists(cosign_times, min_size=1, max_size=5).map(tuple),
            blocks,
            st.sampled_from(("saves", "reposts")),
        ),
    ),
    (
        5,
        st.builds(
            Likes,
            users,
            st.sampled_from(("saves", "reposts")),
            remixes,
            st.sampled_from(("track", "track", "album")),
            hashes,
            blocks,
            seldom,
            mostly,
            st.sampled_from((*COSIGN_TIMES, *COMMENT_TIMES)),
        ),
    ),
    (1, st.builds(MakeRemix, st.sampled_from((*TRACKS, REMIXES[0])), remixes)),
    (1, st.builds(LeftoverCosign, users, st.integers(1000, 1003), cosign_times)),
    (1, st.builds(PaidBefore, st.just("cs"), cosigned_before, st.booleans())),
    (1, st.builds(PassOver, st.just("cs"))),
    (2, st.builds(Upload, users, st.one_of(parents, remixes), st.integers(1, 3), hashes, blocks, mostly, seldom)),
    (1, st.builds(HandOver, st.one_of(parents, remixes), users)),
    (3, account),
    (1, reorganizations),
    (1, deletes("tracks", "remixes", "saves", "reposts", "challenge_disbursements")),
    (2, st.builds(AlterChallenge, st.just("cs"), st.just("active"), mostly)),
    (1, alterations(("cs",))),
)

anything = weighted(
    *(
        (4, theme)
        for theme in (
            profile,
            works,
            milestones,
            listening,
            charts,
            deeds,
            pinning,
            cosigning,
            tasting,
            purchases,
            referrals,
            contesting,
        )
    ),
    (1, alterations(MODELLED)),
)


def several(events: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Event, ...]]:
    """Events, fifteen on average: a list alone would be shorter."""
    some = st.lists(events, max_size=15)
    return st.builds(joined, some, some, some)


def joined(*parts: list[Event]) -> tuple[Event, ...]:
    """Lists, one after the other."""
    return tuple(chain(*parts))


clocks = st.sampled_from(
    (
        None,  # the present
        datetime(2025, 11, 7, 0, 0, tzinfo=UTC),  # Fridays
        datetime(2025, 11, 7, 23, 59, 59, 999999, UTC),
        datetime(2025, 11, 14, 12, 30, 15, 123456, UTC),
        datetime(2025, 11, 21, 3, tzinfo=UTC),
        datetime(2025, 11, 15, 8, 59, 59, tzinfo=timezone(9 * HOUR)),  # Friday in UTC
        datetime(2025, 11, 8, 0, 0, tzinfo=UTC),  # other days
        datetime(2025, 11, 6, 23, 59, 59, 999999, UTC),
        datetime(2025, 11, 14, 8, 59, 59, tzinfo=timezone(9 * HOUR)),  # Thursday in UTC
    )
)
runs = st.builds(
    Run,
    clocks,
    st.booleans(),
    seldom,
    weighted(
        (3, st.none()),
        (1, st.lists(st.sampled_from(MODELLED), min_size=1, max_size=10, unique=True).map(tuple)),
    ),
    in_slices=seldom,
)


@dataclass(frozen=True)
class Chapter:
    """Events, and a run after them."""

    events: tuple[Event, ...]
    run: Run


@dataclass(frozen=True)
class History:
    """What happens in one example."""

    environment: Environment
    timezone: str
    people: tuple[UserVersion, ...]
    chapters: tuple[Chapter, ...]


def chapters(events: st.SearchStrategy[Any], *, most: int = 4) -> st.SearchStrategy[tuple[Chapter, ...]]:
    """Several chapters about one theme: what has to meet meets more often."""
    return st.lists(st.builds(Chapter, several(events), runs), min_size=1, max_size=most).map(tuple)


def active_from_the_start(
    challenge: str, *, starting_block: int
) -> Callable[[tuple[Chapter, ...]], tuple[Chapter, ...]]:
    """The chapters with a challenge that no environment has active, or that begins later than any block of theirs."""
    settled: tuple[Event, ...] = (
        AlterChallenge(challenge, "active", True),
        AlterChallenge(challenge, "starting_block", starting_block),
    )

    def settle(chapters: tuple[Chapter, ...]) -> tuple[Chapter, ...]:
        first, *others = chapters
        return replace(first, events=(*settled, *first.events)), *others

    return settle


histories = st.builds(
    History,
    st.sampled_from(("prod", "stage", "stage", "dev")),
    st.sampled_from(("UTC", "Asia/Tokyo", "America/Los_Angeles")),
    st.tuples(
        *(
            st.builds(UserVersion, st.just(user_id), st.just("0xa"), blocks, st.just(("name",)), is_verified=mostly)
            for user_id in USERS
        )
    ),
    weighted(
        (3, chapters(profile)),
        (3, chapters(works)),
        (4, chapters(milestones)),
        (4, chapters(listening, most=7)),
        (3, chapters(charts)),
        (4, chapters(deeds)),
        (3, chapters(purchases)),
        (3, chapters(pinning)),
        (3, chapters(cosigning).map(active_from_the_start("cs", starting_block=25346436))),
        (3, chapters(tasting)),
        (3, chapters(referrals)),
        (4, chapters(contesting)),
        (1, chapters(anything)),
    ),
)
