"""Which attempts of a batch are kept one by one: see `mppobs.sidecar.kept`."""

from __future__ import annotations

from typing import Final

import numpy as np

from mppobs.journal.format import ATTEMPT_CODES, FLAG_HAS_DELAY, FLAG_NO_CPU, FLAG_SPECULATIVE, NO_SLOT, REASON_CODES
from mppobs.model import AttemptOutcome, AttemptRecord
from mppobs.sidecar.fold_columns import Batch
from mppobs.sidecar.fold_groups import Group
from mppobs.sidecar.kept import KeepSettings, KeptAttempt, sample_ranks

_OUTCOMES: Final = {code: outcome for outcome, code in ATTEMPT_CODES.items()}
_REASONS: Final = {code: reason for reason, code in REASON_CODES.items()}
_SUCCESS: Final = ATTEMPT_CODES[AttemptOutcome.SUCCESS]


def keep(group: Group, settings: KeepSettings) -> None:
    """Keep the attempts of a group that are worth a look, among the slowest, or in the sample."""
    batch, kept, stage = group.batch, group.job.kept, group.stage.name
    number = batch.attempt
    notable = np.flatnonzero((batch.code != _SUCCESS) | (number > 0) | (batch.flags & FLAG_SPECULATIVE > 0))
    ranks = sample_ranks(stage, batch.keys, number)
    if len(notable):
        notable = kept.room_for_notable(notable, settings)
    slow = kept.slow_enough(stage, batch.value(4), settings)
    sample = kept.in_sample(ranks, settings)
    chosen = np.unique(np.concatenate([notable, slow, sample])).tolist()
    made = {place: _kept(group, batch, place) for place in chosen}
    kept.notable.extend(made[place] for place in notable.tolist())
    kept.keep_slow(stage, (made[place] for place in slow.tolist()), settings)
    kept.keep_sample(((int(ranks[place]), made[place]) for place in sample.tolist()), settings)


def _kept(group: Group, batch: Batch, place: int) -> KeptAttempt:
    """Return one attempt as it is kept."""
    words: list[int] = batch.words[:, place].tolist()
    tables = batch.sources[int(batch.source[place])].tables
    flags = words[0] >> 24 & 0xFF
    record = AttemptRecord(
        context_id=0,
        shard_key=words[1] >> 1,
        attempt=words[2] & 0xFFFF,
        outcome=_OUTCOMES[words[0] >> 8 & 0xFF],
        start_ns=words[3] - 1,
        duration_ns=words[4] - 1,
        reason=_REASONS[words[0] >> 16 & 0xFF],
        error_type=tables.text(words[2] >> 32 & 0x7FFFFFFF),
        speculative=bool(flags & FLAG_SPECULATIVE),
        cpu_ns=None if flags & FLAG_NO_CPU else words[5] - 1,
        delay_ns=words[6] - 1 if flags & FLAG_HAS_DELAY else None,
        rows=words[7] - 1,
        shuffle_read=words[8] - 1,
        shuffle_written=words[9] - 1,
        network_errors=words[10] & 0xFFFFFFFF,
        storage_throttled=words[10] >> 32 & 0x7FFFFFFF,
        peak_rss=words[11] - 1,
        slot=NO_SLOT,
    )
    return KeptAttempt(group.stage.name, record.shard_key, record, tables.info)
