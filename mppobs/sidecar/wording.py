"""What is wrong with a value, in the words of this project instead of pydantic's."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any, Final

_WORDS: Final[Mapping[str, str]] = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "missing": "is missing",
    "string_type": "must be a text",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_short": "must have at least {min_length} of them",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
}


def in_words(problem: Mapping[str, Any]) -> str:
    """
    Return what an error of pydantic says; the value itself is not repeated, since it may be secret.

    >>> in_words({"type": "less_than_equal", "ctx": {"le": 65535}, "msg": "Input should be ..."})
    'must be at most 65535'
    >>> in_words({"type": "string_too_short", "msg": "too short"})
    'too short'
    """
    words = _WORDS.get(problem["type"])
    given = problem.get("ctx", {})
    context = {name: f"{value:g}" if isinstance(value, float) else value for name, value in given.items()}
    if words is None or any(name and name not in context for _, name, _, _ in Formatter().parse(words)):
        return str(problem["msg"]).removeprefix("Value error, ")  # FastAPI makes some without what they were held to
    return words.format_map(context)
