"""What checks let through, each with its reason. One that lets nothing through any more is itself a finding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mppobs.catalog.panels import DEBUG, EXECUTIVE, ONCALL, SELF
from mppobs.render.dashboards.check.findings import Finding


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Findings of a rule that are meant to be so."""

    rule: str
    reason: str
    dashboards: tuple[str, ...] = ()
    """Their uids; empty for all."""
    text: str = ""
    """A regular expression that the finding's text must match; empty for any."""

    def covers(self, finding: Finding) -> bool:
        """Return whether a finding is let through."""
        here = not self.dashboards or finding.dashboard in self.dashboards
        return finding.rule == self.rule and here and re.search(self.text, finding.text) is not None


_READERS: Final = (EXECUTIVE, ONCALL, DEBUG)

EXCLUSIONS: Final[Sequence[Exclusion]] = (
    Exclusion(
        "template-instance-rule", "these dashboards are about pipelines, wherever they are counted", _READERS,
    ),
    Exclusion(
        "target-instance-rule", "an aggregator that comes back under another address goes on counting", _READERS,
    ),
    Exclusion(
        "target-instance-rule", "recorded figures and alerts are of no instance: twins are one", (SELF,),
        r"slo:|ALERTS",
    ),
    Exclusion(
        "target-instance-rule", "Prometheus's own figures are of its instance, not of a sidecar's", (SELF,),
        r"prometheus_",
    ),
    Exclusion(
        "target-job-rule", "recorded figures carry no job: twins under several jobs are one", (), r" slo:\w+",
    ),
    Exclusion(
        "target-job-rule", "alerts carry what their series carry, and those of pipelines are of no job", (), r" ALERTS",
    ),
    Exclusion(
        "target-job-rule", "Prometheus's own figures are of its job, not of a sidecar's", (SELF,), r"prometheus_",
    ),
)  # fmt: skip


def let_through(
    findings: Sequence[Finding], exclusions: Sequence[Exclusion] = EXCLUSIONS
) -> tuple[list[Finding], list[Exclusion]]:
    """Return the findings that no exclusion covers, and the exclusions that cover none."""
    left = [finding for finding in findings if not any(each.covers(finding) for each in exclusions)]
    idle = [each for each in exclusions if not any(each.covers(finding) for finding in findings)]
    return left, idle
