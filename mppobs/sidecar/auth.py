"""
Who may read and who may write: bearer tokens, compared in constant time.

Reading is open where no read token is set (settings allow that on loopback alone). Writing always needs a
token: without one configured, nothing is taken from the network.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from mppobs.errors import ConfigError
from mppobs.sidecar.problems import ProblemError
from mppobs.sidecar.settings import SidecarSettings

Right = Literal["read", "write"]

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="mppobs"'}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens in force. `None`: open for reading, closed for writing."""

    read: str | None
    write: str | None

    @classmethod
    def of(cls, settings: SidecarSettings) -> Tokens:
        """
        Return the tokens of the settings, read from their files where they name files.

        Raises ConfigError where both are the same: a reader could then write.
        """
        tokens = cls(settings.token("read"), settings.token("write"))
        if tokens.read is not None and tokens.read == tokens.write:
            raise ConfigError("read_token and write_token are the same: whoever may read could write")
        return tokens

    def check(self, right: Right, presented: str | None) -> None:
        """
        Return if the token that a request presents gives the right, else raise `ProblemError` 401 or 403.

        >>> Tokens(read=None, write="w").check("read", None)
        """
        needed = self.read if right == "read" else self.write
        if needed is None:
            if right == "read":
                return
            raise ProblemError(
                HTTPStatus.FORBIDDEN, "this sidecar has no write_token, so it takes nothing in", "closed"
            )
        if presented is None:
            raise ProblemError(HTTPStatus.UNAUTHORIZED, f"a {right} token is needed", "unauthorized", _CHALLENGE)
        if _same(presented, needed):
            return
        other = self.write if right == "read" else self.read
        if other is not None and _same(presented, other):
            raise ProblemError(HTTPStatus.FORBIDDEN, f"this token does not give the right to {right}", "forbidden")
        raise ProblemError(HTTPStatus.UNAUTHORIZED, f"this {right} token is not known", "unauthorized", _CHALLENGE)


def _same(presented: str, expected: str) -> bool:
    """Compare in a time that says nothing about where they differ."""
    return hmac.compare_digest(presented.encode("utf-8", "surrogatepass"), expected.encode())


def guard(tokens: Tokens, right: Right) -> Callable[..., Awaitable[None]]:
    """Return a dependency that lets a request through if its bearer token gives the right."""
    scheme = HTTPBearer(auto_error=False, scheme_name=f"{right} token", description=f"The sidecar's {right}_token.")

    async def check(credentials: HTTPAuthorizationCredentials | None = Security(scheme)) -> None:  # noqa: B008
        tokens.check(right, credentials.credentials if credentials else None)

    return check
