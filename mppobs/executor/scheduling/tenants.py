"""Whose turn it is: tenants share the workers by weight, within a tenant the job goes first that is due first."""

from __future__ import annotations

import heapq

from mppobs.executor import policies
from mppobs.executor.policies import Policy
from mppobs.executor.scheduling.jobs import Job, Stage, Tenant

_SLACK = 64
"""Entries beyond two for each tenant that the heap may have before it is made anew."""


class Tenants:
    """All tenants, and those among them that have something to start and may."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._all: dict[str, Tenant] = {}
        self._turns: dict[Tenant, None] = {}
        self._heap: list[tuple[float, int, Tenant]] = []
        """By share used. An entry counts while it says what its tenant holds now."""

    def of(self, name: str) -> Tenant:
        """Return the tenant of that name, from now on known."""
        tenant = self._all.get(name)
        if tenant is None:
            tenant = self._all[name] = Tenant(name, len(self._all), self._policy.share_of(name))
        return tenant

    def enlist(self, job: Job) -> None:
        """Make a job findable that has something to start, where it may."""
        tenant = job.tenant
        job.listed = True
        if self._must_wait(job):
            tenant.waiting[job] = None
            return
        heapq.heappush(tenant.jobs, (job.due, job.number, job))
        if not tenant.listed and not tenant.is_full:
            self._give_turns(tenant)

    def count(self, tenant: Tenant, by: int) -> None:
        """Count attempts that workers hold for a tenant, more or less of them."""
        tenant.held += by
        if tenant.listed:
            if len(self._turns) > 1:
                self._push(tenant)
        elif tenant.jobs and not tenant.is_full:
            self._give_turns(tenant)

    def next_stage(self) -> Stage | None:
        """Return the stage whose turn it is to start something; `None` where there is none."""
        while self._turns:
            tenant = self._first()
            stage = self._stage_of(tenant) if not tenant.is_full else None
            if stage is not None:
                return stage
            del self._turns[tenant]
            tenant.listed = False
        return None

    def begin(self, job: Job) -> None:
        """Count a job that has its first attempt."""
        job.begun = True
        job.tenant.active += 1

    def end(self, job: Job) -> None:
        """Forget a job; another that waited for its place may begin."""
        tenant = job.tenant
        tenant.waiting.pop(job, None)
        if job.begun:
            tenant.active -= 1
            if tenant.share.jobs > 0:
                self._recall(tenant)

    def spend(self, name: str, spent: bool) -> None:
        """Hold back a tenant's jobs that are not critical, or let them go on."""
        tenant = self.of(name)
        tenant.spent = spent
        self._recall(tenant)

    def may_start(self, stage: Stage) -> bool:
        """Return whether a stage may start something, by all limits but those of its workers."""
        job = stage.job
        if stage.is_full or stage.needs or job.running >= job.cap:
            return False
        return not job.tenant.is_full and not self._must_wait(job)

    # Turns

    def _must_wait(self, job: Job) -> bool:
        """Return whether a job may not start anything although there is something."""
        tenant = job.tenant
        if tenant.spent and self._policy.budgets and not job.critical:
            return True
        return not job.begun and 0 < tenant.share.jobs <= tenant.active

    def _recall(self, tenant: Tenant) -> None:
        """Look again at the jobs that wait, those first that are due first."""
        waiting = sorted(tenant.waiting, key=lambda job: (job.due, job.number))
        tenant.waiting.clear()
        for job in waiting:
            self.enlist(job)

    def _stage_of(self, tenant: Tenant) -> Stage | None:
        """Return the stage that a tenant starts something of next."""
        jobs = tenant.jobs
        while jobs:
            job = jobs[0][2]
            if self._must_wait(job):
                heapq.heappop(jobs)
                tenant.waiting[job] = None
                continue
            if job.running < job.cap:
                stage = job.next_stage()
                if stage is not None:
                    return stage
            heapq.heappop(jobs)
            job.listed = False
        return None

    def _give_turns(self, tenant: Tenant) -> None:
        tenant.listed = True
        self._turns[tenant] = None
        if len(self._turns) == 2:
            self._heap.clear()
            for each in self._turns:
                self._push(each)
        elif len(self._turns) > 2:
            self._push(tenant)

    def _push(self, tenant: Tenant) -> None:
        """Enter what a tenant holds now."""
        if len(self._heap) > 2 * len(self._turns) + _SLACK:
            self._heap = [self._entry(each) for each in self._turns]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, self._entry(tenant))

    def _entry(self, tenant: Tenant) -> tuple[float, int, Tenant]:
        return policies.share_used(tenant.held, tenant.share.weight), tenant.number, tenant

    def _first(self) -> Tenant:
        """Return the tenant whose turn it is."""
        if len(self._turns) == 1:
            return next(iter(self._turns))
        if not self._policy.fair:
            return min(self._turns, key=lambda tenant: tenant.jobs[0][:2] if tenant.jobs else (0, 0))
        while True:
            entry = self._heap[0]
            if entry[2].listed and entry == self._entry(entry[2]):
                return entry[2]
            heapq.heappop(self._heap)
