"""
Runbook pages: where they are, and what is in them.

One page for each alert, by its name, and guides beside them, written in Markdown in `runbooks/`. They are read by the
command `mppobs runbook`, served by the sidecar at `/runbooks/NAME`, and held against the catalogue by the tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from mppobs.errors import ConfigError, nearest

SECTIONS: Final = ("Meaning", "Impact", "Confirm", "Diagnose", "Mitigate", "Verify", "Escalate", "Drill")
"""The headings of an alert's page, in this order."""
VARIABLES: Final = ("PIPELINE", "JOB")
"""What stands in a page for what the alert is about."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block that is to be typed or pasted."""

    language: str
    """`sh` or `promql`."""
    tags: tuple[str, ...]
    """`run`: only reads, and may be run by anybody; `signature`: returns something only while the trouble lasts."""
    text: str
    expect: str
    """What the page says of the result, with what must be seen in backticks; empty where it says nothing."""

    @property
    def seen(self) -> tuple[str, ...]:
        """Return the words of the result that the page promises."""
        return tuple(re.findall(r"`([^`]+)`", self.expect))


@dataclass(frozen=True, slots=True)
class Page:
    """One page, taken apart."""

    title: str
    summary: str
    """The first paragraph."""
    facts: Mapping[str, str]
    """The table at its head: failure mode, severity, who, dashboard."""
    headings: tuple[str, ...]
    blocks: tuple[Block, ...]
    code: tuple[str, ...]
    """Everything that stands in backticks within the text."""
    links: tuple[str, ...]


def directory() -> Path:
    """Return where the pages are: beside the package in a clone, within it where it was installed."""
    package = Path(__file__).parent
    installed = package / "_runbooks"
    return installed if installed.is_dir() else package.parent / "runbooks"


def names() -> tuple[str, ...]:
    """
    Return the names of all pages.

    >>> "MppPartitionSkew" in names()
    True
    """
    return tuple(sorted(path.stem for path in directory().glob("*.md")))


def text_of(name: str) -> str:
    """
    Return a page as it was written. Raises ConfigError with the nearest name where there is none.

    >>> text_of("MppPartitionSkwe")
    Traceback (most recent call last):
    mppobs.errors.ConfigError: no runbook 'MppPartitionSkwe': did you mean 'MppPartitionSkew'?
    """
    known = names()
    if name not in known:
        raise ConfigError(f"no runbook {name!r}: {nearest(name, known)}")
    return (directory() / f"{name}.md").read_text(encoding="utf-8")


def filled(text: str, values: Mapping[str, str]) -> str:
    """
    Return a text with what its variables stand for; those without a value stay.

    >>> filled('mppobs job "$JOB" --pipeline $PIPELINE', {"JOB": "n-17"})
    'mppobs job "n-17" --pipeline $PIPELINE'
    """
    return re.sub(r"\$([A-Z_]+)\b", lambda found: values.get(found[1], found[0]), text)


def parse(text: str) -> Page:
    """Return what is in a page."""
    tokens = _reader().parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    return Page(
        title=_after(tokens, "heading_open", "h1"),
        summary=_after(tokens, "paragraph_open", "p"),
        facts=_facts(tokens),
        headings=tuple(
            tokens[place + 1].content
            for place, token in enumerate(tokens)
            if token.type == "heading_open" and token.tag == "h2"
        ),
        blocks=_blocks(tokens),
        code=tuple(child.content for token in inline for child in token.children or () if child.type == "code_inline"),
        links=tuple(
            str(child.attrs["href"]) for token in inline for child in token.children or () if child.type == "link_open"
        ),
    )


def to_html(text: str, dashboards_url: str = "") -> str:
    """
    Return a page as HTML; markup in it is shown, not obeyed, and links to other pages lead to theirs.

    Links to dashboards lead to the Grafana at `dashboards_url`; without one they are plain text.

    >>> to_html("See [the other](MppCostSurge.md) <script>")
    '<p>See <a href="MppCostSurge">the other</a> &lt;script&gt;</p>\\n'
    """
    reader = _reader()
    tokens = reader.parse(text)
    for token in tokens:
        for child in token.children or ():
            href = child.attrs.get("href")
            if child.type == "link_open" and isinstance(href, str):
                child.attrSet("href", _target(href, dashboards_url.rstrip("/")))
        if token.children and not dashboards_url:
            token.children = _without_dashboards(token.children)
    html: str = reader.renderer.render(tokens, reader.options, {})
    return html


def _target(href: str, dashboards_url: str) -> str:
    """Return where a link of a page leads when the page is served."""
    return dashboards_url + href if href.startswith("/d/") else re.sub(r"^([\w-]+)\.md$", r"\1", href)


def _without_dashboards(children: Sequence[Token]) -> list[Token]:
    """Return inline tokens without the links to dashboards, but with their text."""
    kept, dropping = [], False
    for child in children:
        if child.type == "link_open":
            dropping = str(child.attrs["href"]).startswith("/d/")
        if not (dropping and child.type in ("link_open", "link_close")):
            kept.append(child)
    return kept


@cache
def _reader() -> MarkdownIt:
    """Return the reader of Markdown: with tables, without HTML."""
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _after(tokens: Sequence[Token], kind: str, tag: str) -> str:
    """Return the text of the first element of a kind."""
    for place, token in enumerate(tokens):
        if token.type == kind and token.tag == tag:
            return tokens[place + 1].content
    return ""


def _facts(tokens: Sequence[Token]) -> dict[str, str]:
    """Return the rows of the first table."""
    cells: list[str] = []
    for place, token in enumerate(tokens):
        if token.type == "table_close":
            break
        if token.type == "td_open":
            cells.append(tokens[place + 1].content)
    return dict(zip(cells[::2], cells[1::2], strict=True)) if len(cells) % 2 == 0 else {}


def _blocks(tokens: Sequence[Token]) -> tuple[Block, ...]:
    """Return the fenced blocks, each with the paragraph after it where that says what to expect."""
    blocks = []
    for place, token in enumerate(tokens):
        if token.type == "fence":
            language, *tags = token.info.split() or [""]
            after = tokens[place + 2].content if len(tokens) > place + 2 else ""
            expect = after if after.startswith("Expect:") else ""
            blocks.append(Block(language, tuple(tags), token.content, expect))
    return tuple(blocks)
