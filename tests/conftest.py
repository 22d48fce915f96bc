"""
What all tests share: how `hypothesis` looks for examples, and how wide the output of commands is.

`make test` looks at the same examples every time, so that a change and not chance decides whether it passes;
`make test-all` looks at others every time. No example has a deadline: the machine may be busy.
"""

from __future__ import annotations

import os

from hypothesis import settings

collect_ignore = ["typing"]  # read by a type checker; parts of it are wrong on purpose

os.environ["COLUMNS"] = "200"  # whatever the terminal, or the lack of one, says

settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None, print_blob=True)
settings.load_profile("steady")
