"""The list of workloads: each can be loaded, and words that nobody knows are answered with those that are meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mppobs.errors import ConfigError
from mppobs.workloads.registry import WORKLOADS, Parameter, Workload, workload


def test_an_unknown_workload_is_answered_with_the_nearest() -> None:
    """A slip of the finger is met with the name that was meant, and nonsense with all names."""
    with pytest.raises(ConfigError, match=r"no workload 'tpch_q3': did you mean 'tpch-q3'\?"):
        workload("tpch_q3")
    with pytest.raises(ConfigError, match=r"no workload 'zzz': known: .*tpch-q1"):
        workload("zzz")


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_listed_under_its_name_and_told_in_a_line(name: str) -> None:
    """Keys are names, names are fit for a label, and each says in a line what it is for."""
    found = workload(name)

    assert found.name == name
    assert re.fullmatch(r"[a-z][a-z0-9-]{1,30}", name)
    assert all(text and "\n" not in text for text in (found.summary, found.pattern, found.stresses))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_without_a_meaning_is_refused(tmp_path: Path, scale: float) -> None:
    """Nothing is made for a scale that is not positive."""
    with pytest.raises(ConfigError, match="must be positive"):
        workload("tpch-q1").prepare(tmp_path / "data", scale)

    assert not (tmp_path / "data").exists()


def test_a_plan_needs_a_shard(tmp_path: Path) -> None:
    """No shards is refused in words, before the data is looked at."""
    with pytest.raises(ConfigError, match="tpch-q3: a stage needs at least one shard, not 0"):
        workload("tpch-q3").plan(tmp_path, 0.01, 0)


def _with_parameters() -> Workload:
    parameters = (
        Parameter("steps", 4, "Steps.", least=1),
        Parameter("rate", 0.5, "Rate."),
        Parameter("locality", True, "Locality."),
    )
    return Workload("w", "s", "p", "t", "m:n", parameters)


def test_parameters_are_set_from_text_in_the_type_of_their_default() -> None:
    """A whole number, a number and a switch are read as what they are, and the others keep their defaults."""
    assert _with_parameters().configured({"steps": "8", "rate": "2", "locality": "off"}).values == {
        "steps": 8,
        "rate": 2.0,
        "locality": False,
    }
    assert _with_parameters().configured({}).values == {}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"step": "1"}, "no parameter 'step': did you mean 'steps'?"),
        ({"steps": "x"}, "steps=x: it must be a whole number"),
        ({"steps": "0"}, "steps=0: it must be a number from 1 on"),
        ({"rate": "nan"}, "rate=nan: it must be a number from 0 on"),
        ({"rate": "inf"}, "rate=inf: it must be a number from 0 on"),
        ({"locality": "maybe"}, "locality=maybe: write on or off"),
    ],
)
def test_parameters_that_mean_nothing_are_refused_in_words(settings: dict[str, str], told: str) -> None:
    """An unknown name and a value of the wrong kind say what, and what would be right."""
    with pytest.raises(ConfigError, match=re.escape(told)):
        _with_parameters().configured(settings)


def test_a_workload_without_parameters_says_so() -> None:
    """Where there is nothing to set, the message does not guess."""
    with pytest.raises(ConfigError, match="'tpch-q1' has no parameter 'x': it has none"):
        workload("tpch-q1").configured({"x": "1"})
