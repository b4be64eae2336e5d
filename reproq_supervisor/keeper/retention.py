"""What goes with time: runs that ended long ago, the files with what they printed, and runs that expired before anybody began them."""

import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from reproq_supervisor.core.runs import TERMINAL, RunStatus
from reproq_supervisor.keeper.duties import REPAIR_INTERVAL_S, Duty, Ran
from reproq_supervisor.process.task_logs import is_log, remove_logs
from reproq_supervisor.store.keeper import ExpiryPlace, KeeperStore

PRUNE_INTERVAL_S = 60.0
EXPIRE_INTERVAL_S = 1.0
LOGS_INTERVAL_S = 3600.0
_AGAIN_S = 0.02
"""Between two batches: others of the keeper's duties come in between, and the server has a rest."""
_FILES = 2000
"""Names of a folder that one run looks at: some milliseconds."""
_KEPT_LONGER_S = 86400.0
"""A file outlives its run by this, where its run is deleted by the keeper of another host."""


class Retention:
    """Deletes what is older than its status may become, and ends what has expired; a batch in each run of its duties."""

    def __init__(self) -> None:
        self._ages_s: dict[RunStatus, float] = {}
        self._logs_dir: str | None = None
        self._after = 0
        self._knows_all = False  # looked at every record once; from then on a batch of young ones is the end of a sweep
        self._expired: ExpiryPlace | None = None
        self._full_expiry_mono = -math.inf
        self._files: Iterator[os.DirEntry[str]] | None = None

    def adopt(self, message: Mapping[str, Any]) -> None:
        """Take over the settings of a start or a change."""
        wanted = (message.get("keeper_settings") or {}).get("retention") or {}
        ages_s = {status: float(wanted.get(status.lower(), 0)) for status in sorted(TERMINAL)}
        self._ages_s = {status: age_s for status, age_s in ages_s.items() if age_s > 0}
        self._logs_dir = message.get("logs_dir")

    def duties(self) -> list[Duty]:
        """Return the duties: the files are every host's own."""
        return [
            Duty("expire", EXPIRE_INTERVAL_S, self._expire),
            Duty("prune", PRUNE_INTERVAL_S, self._prune),
            Duty("logs", LOGS_INTERVAL_S, self._remove_files, is_everywhere=True),
        ]

    async def _expire(self, store: KeeperStore) -> Ran:
        """End what has expired since the last look; once an hour look at all, for what was locked, or committed late."""
        now = time.monotonic()
        if self._expired is None or (now - self._full_expiry_mono > REPAIR_INTERVAL_S and self._expired.is_end):
            self._expired, self._full_expiry_mono = ExpiryPlace(), now
        ended, self._expired = await store.expire(self._expired)
        return Ran(ended, math.inf if self._expired.is_end else _AGAIN_S)

    async def _prune(self, store: KeeperStore) -> Ran:
        if not self._ages_s:
            return Ran(0)
        pruned = await store.prune(self._ages_s, self._after, early=self._knows_all)
        for gone in pruned.gone:
            remove_logs(gone.result_id, gone.logs_uri)
        if pruned.looked_at is None:
            self._after, self._knows_all = 0, True
            await store.prune_flows(max(self._ages_s.values()))
            return Ran(len(pruned.gone))
        self._after = pruned.looked_at
        return Ran(len(pruned.gone), _AGAIN_S)

    async def _remove_files(self, _store: KeeperStore) -> Ran:
        """Delete the files of this host that are older than any run is kept; nothing while a status is kept for ever."""
        if self._logs_dir is None or len(self._ages_s) < len(TERMINAL):
            return Ran(0)
        older_than = time.time() - max(self._ages_s.values()) - _KEPT_LONGER_S
        if self._files is None:
            try:
                self._files = os.scandir(self._logs_dir)
            except OSError:
                return Ran(0)  # nothing was written yet
        removed = 0
        for _ in range(_FILES):
            entry = next(self._files, None)
            if entry is None:
                self._files = None
                return Ran(removed)
            removed += _remove_if_older(entry, older_than)
        return Ran(removed, _AGAIN_S)


def _remove_if_older(entry: "os.DirEntry[str]", older_than: float) -> bool:
    try:
        if not is_log(entry.name) or entry.stat(follow_symlinks=False).st_mtime >= older_than:
            return False
        os.unlink(entry.path)  # noqa: PTH108 - a DirEntry, and never what a link points to
    except OSError:
        return False
    return True
