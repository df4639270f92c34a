"""Helpers: sessions that take open slices beside the ticks, as many as `audius_challenges.workers` says, less the tick.

A helper takes no lock of a run, and never decides anything of a challenge: it writes what comes of a slice, in the
transaction that takes it, or gives it back.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

from audius_challenges.challenges import CHALLENGES
from audius_challenges.database import Database
from audius_challenges.engine.open_slices import HELPERS, OpenSlices
from audius_challenges.engine.per_user import PerUser
from audius_challenges.engine.processor import Work
from audius_challenges.engine.state import Phase, record_failure
from audius_challenges.engine.users import Slices, Users
from audius_challenges.errors import LOCK_NOT_AVAILABLE, ChallengeError, is_operator_intervention, sqlstate_of
from audius_challenges.operation import transaction
from audius_challenges.operation.run import Run, described, why_not
from audius_challenges.operation.ticking import failed
from audius_challenges.operation.transaction import Surroundings
from audius_challenges.settings import Settings, read_settings, warn_of

# A helper that has found nothing to take for so long (seconds) ends. Between two ticks, half a minute apart, it stays.
PATIENCE = 35
POLL = 0.5

# Deadlocks and the like: whoever is in the way goes on, and the slice is taken again.
_TRANSACTION_ROLLBACK = "40"

# What a session cannot see of itself: what is set anew for this database and role, and another version of the package.
_BEGAN_WITH = """
    SELECT
        (
            SELECT string_agg(kept.setrole || ':' || kept.setdatabase || kept.setconfig::text, ' '
                ORDER BY kept.setrole, kept.setdatabase)
            FROM pg_db_role_setting AS kept
            WHERE kept.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                AND kept.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
        ) AS settings,
        (SELECT xmin::text FROM pg_proc WHERE oid = 'audius_challenges.load()'::regprocedure) AS package
"""

# The call is one statement. A helper ends halfway to its statement_timeout, rather than be cut off with a slice.
_MOST_SECONDS = """
    SELECT coalesce(nullif(extract(epoch FROM timeout.setting::interval), 0) / 2, 'Infinity')::float8
    FROM current_setting('statement_timeout') AS timeout (setting)
"""

_NOW = "SELECT clock_timestamp()::text"

_OPEN = "SELECT DISTINCT challenge_id FROM audius_challenges.slice"


def help_out(db: Database) -> None:
    """Take open slices until there have been none for a while.

    :raises ChallengeError: naming the challenges that failed, at the end
    """
    transaction.require_own_transactions(db, "help()")
    with transaction.read_committed(db):
        if error := _Helper(db).run():
            raise error


@dataclass
class _Helper:
    """One call of `help()`.

    :ivar number: which of the helpers it is, from 0
    :ivar by_index: see `transaction.prepare`
    :ivar works: what it has done for each challenge
    :ivar began: when it first took a slice of each, in seconds since 1970
    :ivar failures: errors of challenges that it leaves alone from then on
    """

    db: Database
    number: int | None = None
    by_index: bool = False
    works: dict[str, Work] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def run(self) -> ChallengeError | None:
        """The call, and the error in which it is to end."""
        db = self.db
        settings = transaction.require_usable_transaction(db)
        warn_of(db, settings.unknown)
        try:
            self._lock(settings.workers - 1)
            if self.number is not None:
                self._run()
        finally:
            if self.number is not None:
                with suppress(Exception):
                    db.plpy.rollback()
                transaction.set_search_path(db)
                db.rows("SELECT pg_advisory_unlock(:class::integer, :object::integer)", **_lock_of(self.number))
        return failed(self.failures) if self.failures else None

    def _lock(self, most: int) -> None:
        """Become one of so many helpers."""
        for number in range(most):
            if self.db.value("SELECT pg_try_advisory_lock(:class::integer, :object::integer)", **_lock_of(number)):
                self.number = number
                return
        if most:
            self.db.plpy.notice(f"{most} helpers are at work already: nothing was done")
        else:
            self.db.plpy.notice("audius_challenges.workers is 1: nothing was done", hint="That is the tick alone.")

    def _run(self) -> None:
        db = self.db
        self.by_index = transaction.fills_empty_tables(db)
        began_with = db.row(_BEGAN_WITH)
        began = latest = time.monotonic()
        most = db.value(_MOST_SECONDS)
        while (now := time.monotonic()) - latest < PATIENCE and now - began < most:
            transaction.set_search_path(db)
            settings = read_settings(db)
            if not settings.enabled or self.number not in range(settings.workers - 1):
                return
            if db.row(_BEGAN_WITH) != began_with:
                db.plpy.notice("settings or the extension have changed meanwhile: the next helper goes by them")
                return
            if self._take_any(settings):
                latest = time.monotonic()
            else:
                transaction.sleep(db, POLL)

    def _take_any(self, settings: Settings) -> bool:
        """Work off one slice, of the first challenge in run order that has one to take."""
        open_ids = {row["challenge_id"] for row in self.db.rows(_OPEN)} - self.failures.keys()
        self.db.plpy.commit()
        for processor in CHALLENGES:
            if processor.id in open_ids and isinstance(processor, PerUser) and self._try(processor, settings):
                return True
        return False

    def _try(self, processor: PerUser, settings: Settings) -> bool:
        """Work off one slice of a challenge in a transaction; any failure gives it back."""
        db, began = self.db, time.monotonic()
        transaction.set_search_path(db)
        try:
            if self._take(processor, settings):
                db.plpy.commit()
                return True
        except Exception as error:
            db.plpy.rollback()
            if is_operator_intervention(error):
                raise
            if not (sqlstate_of(error) or "").startswith((_TRANSACTION_ROLLBACK, LOCK_NOT_AVAILABLE)):
                self._fail(processor, error, settings, time.monotonic() - began)
        else:
            db.plpy.rollback()
        return False

    def _take(self, processor: PerUser, settings: Settings) -> bool:
        db, began = self.db, time.monotonic()
        transaction.prepare_own(db, settings, by_index=self.by_index)
        # First of all: what is read from here on holds as long as the slice is in hands.
        users = OpenSlices(db, ()).take(processor.id, Slices(db).of(processor.key))
        if users is None:
            return False
        surroundings = Surroundings.read(db)
        if surroundings.why_restoring(db) or surroundings.present is None:
            return False
        if surroundings.remembered is None or surroundings.are_moved or why_not(db, settings, surroundings.role):
            return False
        run = Run.beside(db, settings, surroundings, db.value(_NOW))
        return self._work_off(run, processor, users, began)

    def _work_off(self, run: Run, processor: PerUser, users: Users, began: float) -> bool:
        """What the leader has begun goes on as long as nothing has changed; otherwise the leader begins it anew."""
        if isinstance(run.catalog, ChallengeError):
            raise run.catalog
        state, challenge = run.states.get(processor.id), run.catalog.get(processor.id)
        if state is None or state.look is None or state.phase in (None, Phase.WATCHING):
            return False
        if run.role.is_elsewhere(processor.id) or run.role.is_absorbed(processor.id):
            return False
        if challenge is None or not challenge.active or challenge.fingerprint != state.catalog_seen:
            return False
        if not run.contract.is_whole:
            run.contract.require(processor.reads)
        work = run.work(processor, challenge)
        if before := self.works.get(processor.id):
            work.add_to(before)
        run.works[processor.id] = work
        run.began[processor.id] = self.began.setdefault(processor.id, time.time())
        processor.take_slice(work, users)
        run.remember(processor, time.monotonic() - began)
        self.works[processor.id] = work
        return True

    def _fail(self, processor: PerUser, error: Exception, settings: Settings, duration: float) -> None:
        """Record a failure as a tick does, and leave the challenge alone."""
        db = self.db
        transaction.set_search_path(db)
        transaction.prepare(db, settings, by_index=False)
        self.failures[processor.id] = described(db, error)
        began = self.began.setdefault(processor.id, time.time())
        record_failure(db, processor.id, self.failures[processor.id], began=began, duration=duration)
        db.plpy.commit()


def _lock_of(number: int) -> dict[str, int]:
    class_, first = HELPERS
    return {"class": class_, "object": first + number}
