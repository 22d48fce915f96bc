"""Plans: what is refused, and what follows from what is given."""

from __future__ import annotations

import pickle

import pytest

from mppobs.errors import ConfigError
from mppobs.executor.plan import Limits, Plan, ShardPlan, Stage, path_of, resolve

MAP = Stage("map", "m:f", shards=(ShardPlan(0), ShardPlan(1)), partition_by=("k",), partitions=4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "no space"}, "a name has"),
        ({"task": "module.function"}, "no import path"),
        ({"combiner": "f"}, "no import path"),
        ({"partitions": 0}, "partitions must be"),
        ({"partitions": 2}, "need columns"),
        ({"shards": None}, "give its shards"),
        ({"shards": ()}, "has no shards"),
        ({"shards": (ShardPlan(1), ShardPlan("1"))}, "'1' is there twice"),
        ({"splittable": True}, "only by a function in split"),
        ({"split": "function"}, "no import path"),
        ({"cap": -1}, "must not be negative"),
        ({"memory_bytes": -1}, "must not be negative"),
    ],
)
def test_a_stage_without_meaning_is_refused(values: dict[str, object], message: str) -> None:
    """Each mistake in a stage is found when it is made, and named."""
    given: dict[str, object] = {"name": "map", "task": "m:f", "shards": (ShardPlan(0),), **values}
    with pytest.raises(ConfigError, match=message):
        Stage(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), "at least one stage"),
        ((MAP, MAP), "'map' is there twice"),
        ((Stage("reduce", "m:f", reads=("mpa",)),), "not before it"),
        ((MAP, Stage("reduce", "m:f", reads=("mpa",))), "did you mean 'map'"),
        (
            (MAP, Stage("other", "m:f", shards=(ShardPlan(0),)), Stage("join", "m:f", reads=("map", "other"))),
            "their numbers differ",
        ),
    ],
)
def test_stages_that_do_not_fit_are_refused(stages: tuple[Stage, ...], message: str) -> None:
    """A plan is refused whose stages need what is not there, or cannot be read side by side."""
    with pytest.raises(ConfigError, match=message):
        Plan("p", stages)


@pytest.mark.parametrize(
    "values", [{"compression": "zip"}, {"retry_share": -1.0}, {"deadline": -1.0}, {"cap": -1}, {"pipeline": ""}]
)
def test_a_plan_without_meaning_is_refused(values: dict[str, object]) -> None:
    """Settings of the job are checked when the plan is made."""
    with pytest.raises(ConfigError):
        Plan(**{"pipeline": "p", "stages": (MAP,), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"attempts": 0}, {"losses": -1}, {"attempts": 201}, {"timeout": -1.0}])
def test_limits_without_meaning_are_refused(values: dict[str, int]) -> None:
    """Limits are bounded from both sides."""
    with pytest.raises(ConfigError):
        Limits(**values)  # type: ignore[arg-type]


def test_a_stage_has_a_shard_for_each_partition_that_it_reads() -> None:
    """Without shards of its own a stage has those of the exchange; with them it has these."""
    plan = Plan(
        "p",
        (
            MAP,
            Stage("reduce", "m:f", reads=("map",)),
            Stage("top", "m:f", shards=(ShardPlan("all"),), reads=("map",), after=("reduce", "map")),
        ),
    )
    assert [plan.shard_count(stage.name) for stage in plan.stages] == [2, 4, 1]
    assert plan.stage("top").needs == ("map", "reduce")
    with pytest.raises(ConfigError, match="did you mean 'reduce'"):
        plan.stage("reduec")


def test_a_plan_can_be_sent() -> None:
    """A plan that was pickled is equal to itself."""
    plan = Plan("p", (MAP,))
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_only_what_can_be_imported_has_a_path() -> None:
    """Functions of modules and classes have a path that leads back; lambdas and closures have none."""
    assert resolve(path_of(Plan.index)) is Plan.index
    for function in (lambda: None, [].append):
        with pytest.raises(ConfigError, match="top of a module"):
            path_of(function)
    with pytest.raises(TypeError):
        resolve("math:pi")
