"""YAML with places: what is accepted, and how errors read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mppobs.errors import ConfigError
from mppobs.yamlfile import load, load_all, loads, loads_all


def test_an_unknown_key_names_file_line_and_the_nearest_word() -> None:
    """A typo is told with its place and with what was probably meant."""
    item = loads("a: 1\npriecs: {}\n", "prices.yaml")
    with pytest.raises(ConfigError, match=r"^prices\.yaml:2: priecs: unknown key 'priecs'; did you mean 'prices'\?$"):
        item.mapping(["a", "prices"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "x:2: 'a' is given twice"),
        ("a: [1\n", r"x:2: .*"),
        ("a: !!python/object/apply:os.system ['true']\n", r"x:1: .*"),
        ("a: *nobody\n", "x:1: found undefined alias"),
        ("a: 1\n---\na: 2\n", "x:2: expected a single document in the stream, but found another document"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_line(text: str, message: str) -> None:
    """Damaged or dangerous documents are errors, never values."""
    with pytest.raises(ConfigError, match=message):
        loads(text, "x").mapping()["a"].string()


def test_nested_aliases_do_not_unfold_without_end() -> None:
    """A small file with aliases of aliases is refused before it fills the memory."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError, match="too many values"):
        loads("\n".join(levels), "bomb.yaml")


def test_scalars_are_typed_and_their_text_is_kept() -> None:
    """Numbers can be read exactly from the text, and the wrong type is told."""
    items = loads("n: 0.9990\nb: yes\ns: word\nl: [1, 2]\nempty:\n").mapping()
    assert items["n"].text == "0.9990"
    assert items["b"].boolean() is True
    assert [item.integer() for item in items["l"].items()] == [1, 2]
    for key, read in (("s", "number"), ("n", "integer"), ("empty", "string"), ("l", "boolean"), ("b", "mapping")):
        with pytest.raises(ConfigError, match="expected"):
            getattr(items[key], read)()


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    """A missing, binary or huge file is one clear error."""
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "binary")
    (tmp_path / "huge").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load(tmp_path / "huge")
    (tmp_path / "empty").write_text("")
    assert load(tmp_path / "empty").mapping() == {}


def test_a_file_can_hold_several_documents(tmp_path: Path) -> None:
    """Each document keeps its lines, empty ones are left out, and a mistake in any of them is told with its line."""
    (tmp_path / "many").write_text("---\na: 1\n---\n# nothing\n---\n\na: [2]\n")
    assert [(item.line, item.mapping()["a"].line) for item in load_all(tmp_path / "many")] == [(2, 2), (7, 7)]
    assert loads_all("") == []
    with pytest.raises(ConfigError, match=r"x\.yaml:3: 'a' is given twice"):
        loads_all("a: 1\n---\n{a: 1, a: 2}\n", "x.yaml")
    with pytest.raises(ConfigError, match=r"x\.yaml:3:"):
        loads_all("a: 1\n---\n]\n", "x.yaml")
    with pytest.raises(ConfigError, match="another document"):
        loads("a: 1\n---\na: 2\n")
