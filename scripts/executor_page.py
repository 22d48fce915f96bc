"""Write the tables of docs/executor.md: the faults, and what the policies are worth. `--check` only looks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mppobs.executor.faults import KINDS
from mppobs.executor.sim.effects import EFFECTS

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "executor.md"
_UNITS: Final = {
    "p99": ("p99 of shards", "{:,.0f} s"),
    "seconds": ("completion", "{:,.0f} s"),
    "attempts_ratio": ("attempts per shard", "{:.2f}"),
    "failed": ("shards given up", "{:,.0f}"),
}


def faults() -> str:
    """Return the table of faults."""
    rows = [
        "| fault | mode | what it looks like | what is there against it | alert |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, about in KINDS.items():
        rows.append(f"| `{kind}` | {about.mode} | {about.looks} | {about.answer} | `{about.alert}` |")
    return "\n".join(rows)


def effects() -> str:
    """Return the table of effects."""
    rows = ["| fault | policy | figure | on | off |", "| --- | --- | --- | --- | --- |"]
    for effect in EFFECTS:
        on, off = effect.run()
        for shows in dict.fromkeys((effect.shows, "seconds") if effect.shows == "p99" else (effect.shows,)):
            name, form = _UNITS[shows]
            figures = (form.format(getattr(each, shows)) for each in (on, off))
            rows.append(f"| {effect.name} | {effect.policy} | {name} | {' | '.join(figures)} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """Return the page with its tables as they should be."""
    for name, table in (("faults", faults()), ("effects", effects())):
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"\n<!-- /{name} -->")
        text = before + begin + table + end + after
    return text


def main() -> int:
    """Write the page, or say whether it would change."""
    text = PAGE.read_text()
    wanted = page(text)
    if "--check" in sys.argv:
        return int(text != wanted)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
