"""How the names of shards come from the segments that define them into the tables of running jobs."""

from __future__ import annotations

from collections.abc import Iterable

from mppobs.sidecar.fold_journals import Source
from mppobs.sidecar.shard_index import Keys, Rows
from mppobs.sidecar.tables import ShardTable

_NAMED = 1 << 61


def name_rows(table: ShardTable, keys: Keys, rows: Rows, fresh: Rows, runs: Iterable[tuple[Source, slice]]) -> None:
    """Give new rows the names that the segment of the record that made them has defined; see `ShardTable.rows`."""
    named = fresh[keys[fresh] >= _NAMED]
    if len(named) == 0:
        return
    for source, run in runs:
        mine = named[(named >= run.start) & (named < run.stop)]
        if len(mine):
            known, lengths, text = source.tables.names.take(keys[mine])
            table.index.add_names(rows[mine[known]], text, lengths)
