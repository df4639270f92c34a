"""Ends a throw-away cluster whose owner died: runs as a process of its own and waits for the owner's pipe
to close.

Started as ``python guard.py DATA_DIR DIRECTORY`` with the owner's pipe as standard input. A line on the pipe
means "all is tidied up, go"; end of file without one means that the owner was killed, whatever the signal.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE_SECONDS = 10.0


def processes_in(directory: Path) -> list[int]:
    """Ids of the processes whose working directory is ``directory``: a server and its children stay in
    their data directory, so this finds them without a pid file, and finds nobody else."""
    try:
        wanted = directory.stat()
    except FileNotFoundError:
        return []
    return sorted(pid for pid in _process_ids() if _works_in(pid, wanted))


def end_processes(directory: Path, sign: signal.Signals) -> None:
    """Sends ``sign`` to the processes of a data directory; kills those still there after ten seconds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    _send(processes_in(directory), sign)
    while left := processes_in(directory):
        if sign is signal.SIGKILL or time.monotonic() > deadline:
            _send(left, signal.SIGKILL)
        time.sleep(0.05)


def _process_ids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _works_in(pid: int, directory: os.stat_result) -> bool:
    try:  # by inode: the path differs in another root or mount namespace
        return os.path.samestat(Path(f"/proc/{pid}/cwd").stat(), directory)
    except OSError:  # it ended meanwhile, or belongs to somebody else
        return False


def _send(pids: list[int], sign: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)


def main(data_dir: Path, directory: Path) -> None:
    """Waits for the owner's word or end; after its end, stops the server and removes the directory."""
    for sign in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)
    if sys.stdin.readline():
        return
    end_processes(data_dir, signal.SIGQUIT)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
