"""
What is foretold of running jobs, what is charged for it, and how every charge ends. Pure: facts and times go in.

A charge is standing from the look that opened it to the one that withdraws it, or to the judgement of its job, which
settles it: as the bad event that it was taken for, as a good one, or as none. What is here is kept with the counts of
the SLOs, in the same transactions, so that after any restart every charge is either standing or settled, never both
and never neither: `opened = standing + settled`, by SLO.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mppobs.catalog.foresight import ChargeEnd, Foresight, Weight
from mppobs.model import JobOutcome, RunKind
from mppobs.slo.calibration import Calibration, Check, check
from mppobs.slo.charges import Doubt, consider
from mppobs.slo.draining import Prediction
from mppobs.slo.indicators import JobFacts, deadline_of, judge_job
from mppobs.slo.model import Slo

OWN: Final = ""
"""In place of an SLO's name: the job's own deadline, which nobody counts."""
ASKED: Final = (0.25, 0.5, 0.75)
"""Shares of a run at which its prediction is noted, to be held against its end."""


class Who(NamedTuple):
    """Whose runs are alike."""

    cluster: str
    tenant: str
    pipeline: str


@dataclass(frozen=True, slots=True)
class RunningFacts:
    """A job that is not judged, as far as promises care. Times in nanoseconds."""

    uid: str
    """The name of the run that no other has."""
    who: Who
    run_kind: RunKind
    submit_ns: int
    start_ns: int
    deadline_ns: int = 0
    """Its own; 0 for none."""
    end_ns: int = 0
    """When it said that it ended; 0 while it runs."""
    outcome: JobOutcome | None = None


@dataclass(slots=True)
class Charge:
    """One job's charge to one SLO. It is kept when it is withdrawn, since that it ever was is counted in the end."""

    weight: Weight
    since_ns: int
    """When it was first opened."""
    standing: bool = True


class Said(NamedTuple):
    """A prediction that is to be held against the end."""

    at_ns: int
    raw: Prediction
    shown: Prediction


@dataclass(slots=True)
class Watched:
    """What was foretold of one running job."""

    charges: dict[str, Charge] = field(default_factory=dict)
    """By SLO."""
    said: list[Said] = field(default_factory=list)


@dataclass(slots=True)
class Account:
    """What became of the charges of one SLO, and what was foretold of its jobs."""

    settled: dict[ChargeEnd, int] = field(default_factory=lambda: dict.fromkeys(ChargeEnd, 0))
    verdicts: dict[Foresight, int] = field(default_factory=lambda: dict.fromkeys(Foresight, 0))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is foretold of a running job. Times in nanoseconds since the epoch."""

    made_ns: int
    low_ns: int
    middle_ns: int
    high_ns: int


@dataclass(slots=True)
class State:
    """What is kept: jobs by their name, accounts by SLO, calibrations by pipeline."""

    jobs: dict[str, Watched] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    calibrations: dict[Who, Calibration] = field(default_factory=dict)


@dataclass(slots=True)
class Changed:
    """Whose part of the state is not saved; a job that is not in the state is to be forgotten."""

    jobs: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    calibrations: set[Who] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Return whether there is anything."""
        return bool(self.jobs or self.accounts or self.calibrations)


class Foreteller:
    """Running jobs with their charges. `state` is what must be durable; `changed` what of it is not yet."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state or State()
        self.changed = Changed()
        self.outlooks: dict[str, Outlook] = {}
        """By the name of the job; made anew after a restart."""
        self.due: dict[str, int] = {}
        """By when a job is to end, in nanoseconds since the epoch; likewise."""
        self._doubts: dict[tuple[str, str], Doubt] = {}

    def watch(self, definitions: Mapping[str, str], before: Mapping[str, str]) -> None:
        """Settle the charges of SLOs that are gone, or whose events are others now. Definitions are by name."""
        kept = {OWN, *(name for name, was in before.items() if definitions.get(name) == was)}
        for uid, job in self.state.jobs.items():
            for name in job.charges.keys() - kept:
                self._close(uid, name, ChargeEnd.VOID)
                del job.charges[name]
                self._doubts.pop((uid, name), None)

    def look(self, job: RunningFacts, prediction: Prediction | None, now_ns: int, slos: Iterable[Slo]) -> None:
        """Take in what is foretold of a job now; open and withdraw charges."""
        calibration = self.state.calibrations.get(job.who, Calibration())
        shown = None if prediction is None else calibration.fitted(prediction)
        if prediction is not None and shown is not None:
            ends = [now_ns + round(seconds * 1e9) for seconds in (shown.low, shown.middle, shown.high)]
            self.outlooks[job.uid] = Outlook(now_ns, *ends)
            self._note(job, Said(now_ns, prediction, shown))
        weight = Weight.CHARGE if calibration.trusted else Weight.WARNING
        known = {slo.full_name: slo for slo in slos}
        found = deadlines(job, known.values())
        self.due[job.uid] = found.get(OWN, 0)
        for name, deadline_ns in found.items():
            if job.end_ns:
                verdict = Doubt(_ends_badly(job, known.get(name), deadline_ns))
            else:
                verdict = self._doubt(job, name, deadline_ns, shown, now_ns)
            self._turn(job.uid, name, verdict, now_ns, weight)

    def settle(self, uid: str, who: Who, facts: JobFacts, slos: Iterable[Slo]) -> None:
        """Take in the judgement of a job: every charge of it ends here."""
        watched = self.state.jobs.get(uid, Watched())
        for slo in slos:
            deadline_ns = deadline_of(slo, facts)
            if deadline_ns:
                self._judge(slo, facts, watched.charges.pop(slo.full_name, None), deadline_ns)
        self._forget(uid)
        if facts.outcome is JobOutcome.SUCCESS and watched.said:
            checks = [check(each.raw, each.shown, (facts.end_ns - each.at_ns) / 1e9) for each in watched.said]
            self.state.calibrations[who] = self.state.calibrations.get(who, Calibration()).after(checks)
            self.changed.calibrations.add(who)

    def keep_only(self, running: Iterable[str]) -> None:
        """Forget jobs that are neither running nor were judged: no event will ever come of them."""
        here = set(running)
        for uid in [uid for uid in self.state.jobs if uid not in here]:
            self._forget(uid)
        for uid in [uid for uid in self.due if uid not in here]:
            self._forget(uid)

    def standing(self, slo: str, weight: Weight = Weight.CHARGE) -> int:
        """Return how many charges of an SLO stand that weigh so much."""
        jobs = self.state.jobs.values()
        return sum(
            charge.standing and charge.weight is weight
            for job in jobs
            if (charge := job.charges.get(slo)) is not None
        )  # fmt: skip

    def weight(self, uid: str) -> Weight | None:
        """Return what weighs on a running job for its own deadline; `None` while it is expected in time."""
        charge = self.state.jobs[uid].charges.get(OWN) if uid in self.state.jobs else None
        return charge.weight if charge is not None and charge.standing else None

    def saved(self) -> None:
        """Take it that everything that changed has been written down."""
        self.changed = Changed()

    def prune(self, slos: Iterable[str]) -> None:
        """Forget the accounts of these SLOs."""
        for name in slos:
            if self.state.accounts.pop(name, None) is not None:
                self.changed.accounts.add(name)

    def _note(self, job: RunningFacts, said: Said) -> None:
        """Keep a prediction where the run has passed the next of the shares at which it is asked."""
        watched = self.state.jobs.get(job.uid)
        asked = len(watched.said) if watched else 0
        gone = (said.at_ns - job.start_ns) / 1e9
        if job.end_ns or asked == len(ASKED) or gone < ASKED[asked] * (gone + said.shown.middle):
            return
        self._watched(job.uid).said.append(said)

    def _doubt(self, job: RunningFacts, name: str, deadline_ns: int, shown: Prediction | None, now_ns: int) -> Doubt:
        """Return what is thought now of a job's chances to meet one of its deadlines."""
        known = self.state.jobs[job.uid].charges.get(name) if job.uid in self.state.jobs else None
        before = self._doubts.get((job.uid, name), Doubt(known is not None and known.standing))
        now, deadline = (now_ns - job.submit_ns) / 1e9, (deadline_ns - job.submit_ns) / 1e9
        self._doubts[job.uid, name] = consider(before, shown, now, deadline, max(deadline, 1e-9))
        return self._doubts[job.uid, name]

    def _turn(self, uid: str, name: str, doubt: Doubt, now_ns: int, weight: Weight) -> None:
        """Open or withdraw a charge, as what is thought of the job wants it."""
        known = self.state.jobs[uid].charges.get(name) if uid in self.state.jobs else None
        if doubt.charged == (known is not None and known.standing):
            return
        if known is None:
            self._watched(uid).charges[name] = Charge(weight, now_ns)
            return
        if not doubt.charged:
            self._close(uid, name, ChargeEnd.WITHDRAWN)
        known.standing = doubt.charged
        self.changed.jobs.add(uid)

    def _judge(self, slo: Slo, facts: JobFacts, charge: Charge | None, deadline_ns: int) -> None:
        """Settle the charge of a judged job to an SLO, and count what had been foretold."""
        event = judge_job(slo, facts)
        account = self._account(slo.full_name)
        if charge is not None and charge.standing:
            end = ChargeEnd.VOID if not event.total else ChargeEnd.BAD if event.bad else ChargeEnd.GOOD
            account.settled[end] += 1
        if not event.total:
            return
        if event.bad:
            foretold = charge is not None and charge.since_ns <= deadline_ns
            account.verdicts[Foresight.CAUGHT if foretold else Foresight.MISSED] += 1
        else:
            account.verdicts[Foresight.QUIET if charge is None else Foresight.FALSE_ALARM] += 1

    def _forget(self, uid: str) -> None:
        """Let a job go; what still stands of it ends as no event."""
        for name in self.state.jobs.get(uid, Watched()).charges:
            self._close(uid, name, ChargeEnd.VOID)
        if self.state.jobs.pop(uid, None) is not None:
            self.changed.jobs.add(uid)
        self.outlooks.pop(uid, None)
        self.due.pop(uid, None)
        for key in [key for key in self._doubts if key[0] == uid]:
            del self._doubts[key]

    def _close(self, uid: str, name: str, end: ChargeEnd) -> None:
        """Count the end of a charge, if it stands."""
        self.changed.jobs.add(uid)
        if name != OWN and self.state.jobs[uid].charges[name].standing:
            self._account(name).settled[end] += 1

    def _account(self, name: str) -> Account:
        self.changed.accounts.add(name)
        return self.state.accounts.setdefault(name, Account())

    def _watched(self, uid: str) -> Watched:
        self.changed.jobs.add(uid)
        return self.state.jobs.setdefault(uid, Watched())


def calibration_of(slo: Slo, calibrations: Mapping[Who, Calibration]) -> Calibration:
    """Return the runs that an SLO is about, of all clusters, and of all tenants where it names none."""
    mine = [
        found for who, found in calibrations.items()
        if who.pipeline == slo.pipeline and slo.tenant in ("", who.tenant)
    ]  # fmt: skip
    runs: Sequence[tuple[Check, ...]] = [run for found in mine for run in found.runs]
    return Calibration(tuple(runs))


def deadlines(job: RunningFacts, slos: Iterable[Slo]) -> dict[str, int]:
    """
    Return the deadlines of a job in nanoseconds since the epoch, by the SLO that they come from.

    Under `OWN` stands its own, or the first of the others where it has none.
    """
    facts = _facts(job)
    found = {slo.full_name: deadline for slo in slos if (deadline := deadline_of(slo, facts))}
    if job.deadline_ns or found:
        found[OWN] = job.deadline_ns or min(found.values())
    return found


def _facts(job: RunningFacts) -> JobFacts:
    """Return a job that is not judged as SLOs look at it, taken to succeed."""
    return JobFacts(
        pipeline=job.who.pipeline, tenant=job.who.tenant, run_kind=job.run_kind,
        outcome=job.outcome or JobOutcome.SUCCESS, submit_ns=job.submit_ns, end_ns=job.end_ns,
        deadline_ns=job.deadline_ns,
    )  # fmt: skip


def _ends_badly(job: RunningFacts, slo: Slo | None, deadline_ns: int) -> bool:
    """Return whether a job that has ended and is not judged is going to be a bad event; a cancelled one is none."""
    if slo is not None:
        return judge_job(slo, _facts(job)).bad > 0
    late = job.outcome is not JobOutcome.SUCCESS or job.end_ns > deadline_ns
    return late and job.outcome is not JobOutcome.CANCELLED
