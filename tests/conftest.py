"""
What all tests share: how `hypothesis` looks for examples.

`make test` looks at the same examples every time, so that a change and not chance decides whether it passes;
`make test-all` looks at others every time. No example has a deadline: the machine may be busy.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None, print_blob=True)
settings.load_profile("steady")
