"""Who may order jobs: whoever holds the token; without one, only pages and programs of this very machine."""

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from http import HTTPStatus

from app.errors import RequestError
from app.settings import Settings

TOKEN_BYTES = 24


class UnauthorizedError(RequestError):
    """No token, where one is needed."""

    status = HTTPStatus.UNAUTHORIZED
    code = "token_needed"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class ForbiddenError(RequestError):
    """A wrong token, or a request that some other site made a browser send."""

    status = HTTPStatus.FORBIDDEN
    code = "forbidden"


class Access:
    """The rule for all job routes and for the Distil tab.

    Args:
        token: what must be shown; None lets in whoever reaches a server that only this machine can reach.
    """

    def __init__(self, token: str | None):
        self._token = token

    @property
    def open(self) -> bool:
        """Whether no token is needed."""
        return self._token is None

    def check_token(self, sent: str | None) -> None:
        """Let the holder of the token pass.

        Raises:
            UnauthorizedError, ForbiddenError: without a token, or with a wrong one.
        """
        if self._token is None:
            return
        if not sent:
            raise UnauthorizedError(
                "Jobs need the token that the server printed at its start (or read from L2D_TOKEN): send `Authorization: Bearer TOKEN`."
            )
        # JSON may hold half of a pair of surrogates, which UTF-8 has no bytes for.
        if not hmac.compare_digest(*(token.encode(errors="surrogatepass") for token in (sent, self._token))):
            raise ForbiddenError("That is not the token that the server printed at its start (or read from L2D_TOKEN).")

    def check_request(self, authorization: str | None, host: str | None, origin: str | None, client: str | None) -> None:
        """Judge a request by its headers, and by the address that it came from.

        A browser can be made to send requests by any page that it shows. Where no token stands in the way, such requests are told by
        their origin, and by a host name that is not this machine's (an attacker's name that leads here). Others' requests that a proxy
        on this machine passes on are told by their address, if the proxy says it.

        Raises:
            UnauthorizedError, ForbiddenError: if it may not pass.
        """
        kind, _, sent = (authorization or "").partition(" ")
        self.check_token(sent.strip() if kind.lower() == "bearer" else None)
        if not self.open:
            return
        if not is_loopback(_strip_port(host or "")):
            raise ForbiddenError(f"Without a token, jobs are for this machine alone, not for the host {host!r}: set L2D_TOKEN.")
        if client is not None and not is_loopback(client):
            raise ForbiddenError(f"Without a token, jobs are for this machine alone, not for {client}: set L2D_TOKEN.")
        if origin is not None and origin.partition("://")[2] != host:
            raise ForbiddenError(f"Without a token, jobs are for this server's own page, not for {origin}: set L2D_TOKEN.")


def choose_token(settings: Settings) -> str | None:
    """The token of a server: the one that is set, or a new one where others can reach it, by its address or through a proxy."""
    if settings.token is not None:
        return settings.token.get_secret_value()
    return None if is_loopback(settings.host) and not settings.root_path else secrets.token_urlsafe(TOKEN_BYTES)


def is_loopback(host: str) -> bool:
    """Whether a host can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return read_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address; one of IPv4 that is told as one of IPv6 (::ffff:192.0.2.1), as by who listens to both, is what it is.

    Raises:
        ValueError: if it is none.
    """
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _strip_port(host: str) -> str:
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
