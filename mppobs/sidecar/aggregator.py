"""An engine with everything that it needs, in one state directory: store, checkpoints, archive and own journal."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from mppobs.clock import Clock, SystemClock
from mppobs.cost.prices import PriceList
from mppobs.journal.writer import JournalWriter
from mppobs.model import WorkerInfo
from mppobs.sidecar.archive import Archive
from mppobs.sidecar.engine import Engine, Hook
from mppobs.sidecar.fold import Fold
from mppobs.sidecar.fold_labels import FoldSettings
from mppobs.sidecar.follow import LiveJournal
from mppobs.sidecar.own import OwnJournal
from mppobs.sidecar.pace import EngineSettings
from mppobs.sidecar.slo_book import SloBook
from mppobs.sidecar.store import Store


def open_engine(
    state: Path,
    directories: Sequence[Path],
    settings: EngineSettings | None = None,
    *,
    fold: FoldSettings | None = None,
    prices: PriceList | None = None,
    clock: Clock | None = None,
    shipped_live: Callable[[], Sequence[LiveJournal]] = tuple,
    hooks: Sequence[Hook] = (),
    slos: SloBook | None = None,
) -> Engine:
    """
    Return the engine of a state directory, in the state of its last commit, following `directories`.

    The workers' directories and the spool are the caller's; the store, its checkpoints, the archive and the journal
    of the aggregator's own decisions lie in `state`. Raises `StoreError` where the state cannot be trusted or
    another process holds it, `ConfigError` where the directory cannot hold a journal. Close the engine after use.
    """
    clock = clock or SystemClock()
    store = Store(state)
    try:
        own = state / "own"
        info = WorkerInfo(f"mppobs-{socket.gethostname()}-{os.getpid()}", lanes=0, pid=os.getpid())
        writer = JournalWriter(own, info, clock=clock)
        return Engine(
            settings or EngineSettings(),
            clock=clock,
            store=store,
            archive=Archive(state / "archive"),
            own=OwnJournal(writer, clock),
            directories=(*directories, own),
            make_fold=lambda: Fold(fold or FoldSettings(), prices or PriceList(), ended=store.ended),
            shipped_live=shipped_live,
            hooks=hooks,
            slos=slos,
        )
    except BaseException:
        store.close()
        raise
