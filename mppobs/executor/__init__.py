"""
The reference executor: runs plans of stages and shards on supervised worker processes, and records all of it.

>>> from mppobs.executor import Executor, Plan, ShardPlan, Stage
>>> plan = Plan(
...     pipeline="word-count",
...     stages=(
...         Stage(
...             name="map",
...             task="mppobs.executor.examples:split_words",
...             shards=(ShardPlan(0, {"text": "a b a"}), ShardPlan(1, {"text": "b c"})),
...             partition_by=("word",),
...             partitions=2,
...             combiner="mppobs.executor.examples:sum_counts",
...         ),
...         Stage(name="reduce", task="mppobs.executor.examples:count_words", reads=("map",)),
...     ),
... )

    with Executor(workers=2, directory="/tmp/work", seed=7) as executor:
        result = executor.run(plan, on_progress=print).check()
        result.answer                       # pyarrow.Table: a 2, b 2, c 1 (in some order of partitions)
        executor.map(math.sqrt, range(100), chunk=10)
"""

from mppobs.executor.driver import Executor
from mppobs.executor.handle import JobHandle
from mppobs.executor.plan import Limits, OnFailure, Plan, ShardPlan, Stage, path_of
from mppobs.executor.result import JobFailedError, JobResult, Progress, ShardFailure, StageProgress
from mppobs.executor.task import TaskInput, Throttled

__all__ = [
    "Executor", "JobFailedError", "JobHandle", "JobResult", "Limits", "OnFailure", "Plan", "Progress", "ShardFailure",
    "ShardPlan", "Stage", "StageProgress", "TaskInput", "Throttled", "path_of",
]  # fmt: skip
