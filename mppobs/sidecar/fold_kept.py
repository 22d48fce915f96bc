"""Which attempts of a batch are kept one by one: see `mppobs.sidecar.kept`."""

from __future__ import annotations

from typing import Final

import numpy as np

from mppobs.journal.format import ATTEMPT_CODES, FLAG_SPECULATIVE
from mppobs.model import AttemptOutcome
from mppobs.sidecar.fold_columns import Numbers
from mppobs.sidecar.fold_groups import Group
from mppobs.sidecar.kept import KeepSettings, RawAttempt, sample_ranks

_SUCCESS: Final = ATTEMPT_CODES[AttemptOutcome.SUCCESS]


def keep(group: Group, settings: KeepSettings) -> None:
    """Keep the attempts of a group that are worth a look, among the slowest, or in the sample."""
    batch, kept, stage = group.batch, group.job.kept, group.stage.name
    notable = np.flatnonzero((batch.code != _SUCCESS) | (batch.attempt > 0) | (batch.flags & FLAG_SPECULATIVE > 0))
    ranks = sample_ranks(stage, batch.keys, batch.attempt)
    if len(notable):
        notable = kept.room_for_notable(notable, settings)
    slow = kept.slow_enough(stage, batch.value(4), settings)
    sample = kept.in_sample(ranks, settings)
    chosen = np.unique(np.concatenate([notable, slow, sample]))
    made = dict(zip(chosen.tolist(), _raw(group, chosen), strict=True))
    kept.notable.extend(made[place] for place in notable.tolist())
    kept.keep_slow(stage, (made[place] for place in slow.tolist()), settings)
    kept.keep_sample(((int(ranks[place]), made[place]) for place in sample.tolist()), settings)


def _raw(group: Group, chosen: Numbers) -> list[RawAttempt]:
    """Return some attempts of a group as they are kept."""
    batch = group.batch
    rows = batch.words[:, chosen].T.tolist()
    tables = [batch.sources[source].tables for source in batch.source[chosen].tolist()]
    texts = batch.text()[chosen].tolist()
    return [
        RawAttempt(group.stage.name, tuple(words), table.text(text) if text else "", table.info)
        for words, table, text in zip(rows, tables, texts, strict=True)
    ]
