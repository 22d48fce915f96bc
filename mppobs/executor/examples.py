"""Small tasks for doctests, documentation and the executor's own tests."""

from __future__ import annotations

import pyarrow as pa

from mppobs.executor.task import TaskInput


def split_words(task: TaskInput) -> pa.Table:
    """Return one row for each word of the shard's `text`."""
    words = str(task.arguments["text"]).split()
    return pa.table({"word": pa.array(words, pa.string()), "count": pa.array([1] * len(words), pa.int64())})


def sum_counts(table: pa.Table) -> pa.Table:
    """Return one row for each different word: the combiner of a word count, and its reduction too."""
    summed = table.group_by("word", use_threads=False).aggregate([("count", "sum")])
    return summed.rename_columns({"count_sum": "count"})


def count_words(task: TaskInput) -> pa.Table:
    """Return the words of this partition with their counts, in order."""
    return sum_counts(task.read("map")).sort_by("word")
