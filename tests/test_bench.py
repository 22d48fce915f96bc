"""How benchmarks say what they found: `bench/report.py`, which all of them use."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.report import Figure, number, options, report

BENCH = Path(__file__).parents[1] / "bench"
HELPERS = {"journals.py", "peer_sidecar.py", "report.py", "sides.py"}
BENCHMARKS = sorted(path for path in BENCH.glob("*.py") if path.name not in HELPERS)
MET = [
    (Figure("", 2, "s"), None),
    (Figure("", 2, "s", target=2), True),
    (Figure("", 2.1, "s", target=2), False),
    (Figure("", 2, "1/s", target=2, must="at least"), True),
    (Figure("", 1.9, "1/s", target=2, must="at least"), False),
    (Figure("", 0, "shards", target=0, must="exactly"), True),
    (Figure("", -1, "shards", target=0, must="exactly"), False),
    (Figure("", 5, "us", 10, 0.6, of_ratio=True), True),
    (Figure("", 7, "us", 10, 0.6, of_ratio=True), False),
    (Figure("", 0.5, "us", 0, 0.6, of_ratio=True), False),
    (Figure("", 2, "s", besides=True), True),
    (Figure("", 2, "s", besides=False), False),
    (Figure("", 2, "s", target=2, besides=False), False),
    (Figure("", 3, "s", target=2, besides=True), False),
]


@pytest.mark.parametrize(("figure", "met"), MET)
def test_a_target_is_met_from_its_side(figure: Figure, met: bool | None) -> None:
    """From above, from below, exactly, by the value or by the ratio, with a condition besides; or there is none."""
    assert figure.met is met


@pytest.mark.parametrize("as_json", [False, True])
def test_a_figure_is_printed_as_soon_as_it_is_known(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """What comes later may take minutes; the status tells of a target that was missed before the last."""
    seen = []

    def measured() -> Iterator[Figure]:
        yield Figure("first", 3, "s", target=2)
        seen.append("first" in capsys.readouterr().out)
        yield Figure("second", 1, "s", target=2)

    assert report(measured(), as_json=as_json) == 1
    assert seen == [True]


@pytest.mark.parametrize("met", [True, None])
def test_the_status_is_zero_where_nothing_is_missed(met: bool | None) -> None:
    """A figure without a target misses none."""
    assert report([Figure("told", 3, "s", besides=met)], as_json=False) == 0


def test_json_has_one_object_for_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that all benchmarks share, and numbers as they are."""
    report([Figure("a", 206_555.25, "1/s", 100_000, 50_000, "at least"), Figure("b", 0, "s")], as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        {"figure": "a", "value": 206_555.25, "unit": "1/s", "peer": 100_000, "ratio": 2.0655525, "target": 50_000,
         "met": True},
        {"figure": "b", "value": 0, "unit": "s", "peer": None, "ratio": None, "target": None, "met": None},
    ]  # fmt: skip


def test_the_table_is_aligned_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A long name is continued on the line with its numbers, and nothing of it is lost."""
    long = "of 1,234 intervals that claim 90 %, held the end, pipelines without a past"
    report([Figure("a", 9_999_999, "CPU s/min", 9_999_999, 9_999_999), Figure(long, 3, "s", target=2)], as_json=False)
    head, first, begin, last = capsys.readouterr().out.splitlines()
    assert max(map(len, (head, first, begin, last))) <= 120
    assert head.index("value") + len("value") == first.index("9,999,999") + len("9,999,999") == last.index(" s ")
    assert first.endswith("≤ 9,999,999 met")
    assert last.endswith("≤ 2 MISSED")
    assert long == f"{begin} {last[:60].rstrip()}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (0, "0"), (0.0275, "0.0275"), (41.66666, "41.67"), (999.96, "1,000"), (206_555.4, "206,555")],
)
def test_numbers_have_the_digits_that_say_something(value: float | None, shown: str) -> None:
    """Four of them where they are few, all of them with separators where they are many."""
    assert number(value) == shown


def test_every_benchmark_has_the_option_for_machines() -> None:
    """And shows the script's docstring as it was written."""
    parser = options("One line.\n\n    python bench/one.py")
    assert parser.parse_args(["--json"]).json
    assert "\n    python bench/one.py\n" in parser.format_help()


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_reports_in_this_way(path: Path) -> None:
    """None has a table or a JSON form of its own, and each ends with the status."""
    tree = ast.parse(path.read_text())
    taken = [node.names for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "report"]
    assert [name.name for names in taken for name in names] == ["Figure", "options", "report"]
    assert ast.unparse(tree.body[-1]).endswith("sys.exit(main())")
