"""How the names of shards come from the segments that define them into the tables of running jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from mppobs.sidecar.fold_journals import Source
from mppobs.sidecar.shard_index import Keys, Rows
from mppobs.sidecar.tables import ShardTable

_NAMED: Final = 1 << 61


def name_rows(table: ShardTable, keys: Keys, rows: Rows, missing: Rows, runs: Iterable[tuple[Source, slice]]) -> None:
    """
    Give new rows the names that the segment of the record that made them has defined.

    `missing` are the positions of keys that had no row, as `ShardTable.rows` returned them.
    """
    named = missing[keys[missing] >= _NAMED]
    if len(named) == 0:
        return
    first = named[np.unique(rows[named], return_index=True)[1]]
    for source, run in runs:
        mine = first[(first >= run.start) & (first < run.stop)]
        if len(mine):
            known, lengths, text = source.tables.names.take(keys[mine])
            table.index.add_names(rows[mine[known]], text, lengths)
