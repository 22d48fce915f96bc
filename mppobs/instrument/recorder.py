"""
The one recorder of a process: its settings, its journal, the jobs that are open, and what becomes of them after a fork.

Everything is made at the first attempt, never at import. A recorder that cannot open a journal says so once and
records nothing: the work goes on.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from mppobs.errors import MppobsError
from mppobs.instrument.carrier import VARIABLE, carrier_of, decode_text, run_of
from mppobs.instrument.handover import Exports, Handover, variable_text
from mppobs.instrument.identity import Identity, detect
from mppobs.instrument.names import clean
from mppobs.instrument.run import Handoff, Run, StageBinding, current_run
from mppobs.instrument.sampler import Sampler
from mppobs.instrument.settings import Settings, changed, default_directory, from_environment, require_own
from mppobs.journal.writer import JournalWriter
from mppobs.model import Context

_log = logging.getLogger("mppobs")

_FORK_WAIT_SECONDS: Final = 1.0
STAGES_KEPT: Final = 64
"""How many attached jobs keep their stages bound."""


class Recorder:
    """
    The recorder of this process. There is one, `RECORDER`; it lives as long as the process.

    Safe to use from any thread. A forked child starts with an empty one of the same settings.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._settings: Settings | None = None
        self._identity = Identity()
        self._journal: JournalWriter | None = None
        self._sampler: Sampler | None = None
        self._ambient: Run | None = None
        self._open: list[Run] = []
        self._stages: OrderedDict[Context, dict[object, StageBinding]] = OrderedDict()
        self._refused = False
        self._hooked = False
        self._watchers: list[tuple[Callable[[JournalWriter], None], Callable[[], None]]] = []
        self.notes = 0
        """Failures inside this package, none of which reached the user's code."""
        self.run: Run | None = None
        """The run of code that no context variable places: the only open job, or else what the environment says."""
        self.own_shards = itertools.count(_first_own_shard())
        """Numbers for shards that nobody named: unique in the job, whatever process draws them."""
        self.exports = Exports()
        """The jobs that are in the environment."""
        self._handover = Handover(self._carried)
        self._inherited = ""
        """The context that `multiprocessing` brought from the parent."""
        self._warned: set[str] = set()
        self._forking = threading.local()
        os.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._forget)

    # Settings

    def settings(self) -> Settings:
        """Return the settings, from the environment where nobody has configured anything."""
        if self._settings is None:
            with self._lock:
                self._load(os.environ)
        assert self._settings is not None
        return self._settings

    def configure(self, values: Mapping[str, object]) -> None:
        """Replace settings. A journal that is open is closed; the next attempt opens one under the new settings."""
        with self._lock:
            settings = changed(self.settings(), values)
            self.close()
            self._settings = settings
            self._refused = False
            self._ambient = self.run = None  # chosen again at the next attempt: until then the parent may be known

    def reset(self, settings: Settings | None = None) -> Settings | None:
        """Close the journal, use other settings (`None`: read the environment again) and return the old; for tests."""
        with self._lock:
            old = self._settings
            self.close()
            self._settings, self._refused, self._ambient, self.run = settings, False, None, None
            self._stages.clear()
            self._watchers.clear()
            if settings is not None:
                self._identity = detect(os.environ)
            return old

    def _load(self, environ: Mapping[str, str]) -> None:
        self._settings = from_environment(environ)
        self._identity = detect(environ)
        if self._identity.detector:
            _log.info("shard %s, as %s says", self._identity.shard, self._identity.detector)

    def identity(self) -> Identity:
        """Return what the platform says of this process."""
        self.settings()
        return self._identity

    # The journal

    def journal(self) -> JournalWriter | None:
        """Return the journal of this process, opening it; `None` where recording is off or not possible."""
        journal = self._journal
        if journal is not None and not journal.closed:
            return journal
        with self._lock:
            if self._journal is None or self._journal.closed:
                self._journal = None if self._refused else self._open_journal()
            return self._journal

    def _open_journal(self) -> JournalWriter | None:
        settings = self.settings()
        self._refused = True  # until it is open: whatever interrupts this records nothing
        if not settings.enabled:
            return None
        try:
            if settings.directory == default_directory():
                require_own(settings.directory)
            info = settings.worker_info(self._identity.node)
            journal = JournalWriter(settings.directory, info, budget_bytes=settings.budget_bytes)
        except MppobsError as error:
            _log.warning("mppobs: nothing will be recorded: %s", error)
            return None
        except Exception:
            self.note("the journal could not be opened")
            return None
        self._refused = False
        self._hook()
        for begin, _ in self._watchers:
            begin(journal)
        self._sampler = Sampler(journal, settings.sample_seconds, [advance for _, advance in self._watchers])
        self._sampler.start()
        return journal

    def watch(self, begin: Callable[[JournalWriter], None], advance: Callable[[], None]) -> None:
        """Have `begin` called with every journal that is opened, and `advance` now and then while it is written."""
        with self._lock:
            self._watchers.append((begin, advance))
            if self._journal is not None and self._sampler is not None:
                begin(self._journal)
                self._sampler.watchers = [advance for _, advance in self._watchers]

    def _hook(self) -> None:
        if not self._hooked:
            self._hooked = True
            atexit.register(self.close)
        finalizers = sys.modules.get("multiprocessing.util")
        if finalizers is not None:  # its forked workers leave without the ordinary exit, and forget what they inherit
            finalizers.Finalize(None, self.close, exitpriority=0)

    def close(self) -> None:
        """Take the last sample, end the journal, and let go of it. The next attempt opens another."""
        with self._lock:
            journal, sampler = self._journal, self._sampler
            self._journal = self._sampler = None
            if sampler is not None:
                sampler.stop()
            if journal is not None:
                journal.close()

    def flush(self) -> None:
        """Take a sample and have the kernel write the journal out, for those who want it to outlive the machine."""
        journal, sampler = self._journal, self._sampler
        if journal is None or sampler is None or journal.closed:
            return
        try:
            sampler.sample()
            journal.sync()
        except (OSError, ValueError):
            self.note("the journal could not be synced")

    def _before_fork(self) -> None:
        """Let a journal that is being opened be opened: a child must inherit a whole one, or none."""
        self._forking.locked = self._lock.acquire(timeout=_FORK_WAIT_SECONDS)

    def _after_fork(self) -> None:
        if self._forking.locked:
            self._lock.release()

    def _forget(self) -> None:
        """In a forked child: let go of the parent's journal. Jobs and settings are inherited."""
        self._lock = threading.RLock()
        # A collector's lock may be held by a thread that does not exist here; its server does not exist here either.
        self._watchers = []
        journal, self._journal, self._sampler = self._journal, None, None
        self.exports = Exports()
        self.own_shards = itertools.count(_first_own_shard())
        if journal is not None:
            journal.abandon()

    # Runs

    def present(self) -> Run:
        """Return the run that code here belongs to."""
        return current_run.get() or self.run or self._choose()

    def ambient(self) -> Run:
        """Return the run that the environment describes."""
        with self._lock:
            if self._ambient is None:
                if "multiprocessing.process" in sys.modules:
                    self._inherit()
                settings = self.settings()
                if self._inherited:
                    settings = settings._replace(context=self._inherited)
                self._ambient = ambient_run(settings, self._identity)
            return self._ambient

    def _inherit(self) -> None:
        """Take what `multiprocessing` brought from the parent, and hand on to processes that it starts from here."""
        self._inherited = self._handover.install() or self._inherited

    def _carried(self) -> str:
        """
        Return what carries the job that is current here, for a process that `multiprocessing` starts.

        Empty where the job is the environment's, which that process reads for itself.
        """
        try:
            run = self.present()
            return self._inherited if run is self._ambient else variable_text(carrier_of(run.context, Handoff()))
        except Exception:
            self.note("a process was started without its job")
            return ""

    def opened(self, run: Run) -> None:
        """Note that a job was opened in this process."""
        with self._lock:
            self._inherit()
            self._open.append(run)
            self._choose()

    def ended(self, run: Run) -> None:
        """Note that a job of this process has ended."""
        with self._lock:
            if run in self._open:
                self._open.remove(run)
            self._choose()

    def _choose(self) -> Run:
        """Choose the run of threads that inherit no context: the only open job, or what the environment says."""
        with self._lock:
            self.run = self._open[0] if len(self._open) == 1 else self.ambient()
            return self.run

    def bind(self, run: Run, key: object, stage: str, task: str) -> StageBinding | None:
        """Return a stage of a run in this process's journal, and keep it with the run under `key`."""
        journal = self.journal()
        if journal is None:
            return None
        handle = journal.context(replace(run.context, stage=clean(stage), task=task))
        binding = StageBinding(run, journal, handle)
        run.stages[key] = binding
        return binding

    def stages_of(self, context: Context) -> dict[object, StageBinding]:
        """Return the stages bound when this context was attached before, so that attaching is cheap."""
        with self._lock:
            stages = self._stages.setdefault(context, {})
            self._stages.move_to_end(context)
            if len(self._stages) > STAGES_KEPT:
                self._stages.popitem(last=False)
            return stages

    # What is said to people

    def warn_once(self, message: str) -> None:
        """Log a warning, but for one that was logged before."""
        if message not in self._warned:
            self._warned.add(message)
            _log.warning("mppobs: %s", message)

    def note(self, what: str) -> None:
        """Count a failure inside this package; the first is logged with its traceback."""
        self.notes += 1
        if self.notes == 1:
            _log.warning("mppobs: %s; further failures are only counted", what, exc_info=True)


def ambient_run(settings: Settings, identity: Identity) -> Run:
    """Return the run that the environment describes: a context that was injected, or names that the platform gives."""
    handoff = None if identity.shard is None else Handoff(shard=identity.shard, attempt=identity.attempt)
    if settings.context:
        try:
            return run_of(decode_text(settings.context), settings, handoff)
        except (KeyError, ValueError) as error:
            _log.warning("%s is passed over: %s", VARIABLE, error)
    job_id = settings.job_id or identity.job_id
    started = time.time_ns()
    context = Context(
        pipeline=settings.pipeline or "default",
        job_id=job_id or f"{settings.worker_info(identity.node).worker}-{started // 10**9}",
        incarnation=0 if job_id else started,
        tenant=settings.tenant,
        owner=settings.owner,
        tier=settings.tier,
        cluster=settings.cluster,
        run_kind=settings.run_kind,
    )
    return Run(context, handoff)


def _first_own_shard() -> int:
    return int.from_bytes(os.urandom(4), "little") >> 4 << 32


RECORDER: Final = Recorder()
