"""Questions to a Prometheus, by its HTTP interface."""

from __future__ import annotations

import json
from typing import Any

from calico_debug import __version__
from calico_debug.activity import say
from calico_debug.errors import EvidenceError, UsageError

SECONDS = 30.0
"""How long a query may take."""
LARGEST = 128 << 20
"""Bytes of the largest answer that is taken."""


class Prometheus:
    """A server. Nothing is sent before something is asked."""

    def __init__(self, url: str) -> None:
        """``url`` is ``http(s)://[USER:PASSWORD@]HOST[:PORT][/PREFIX]``. Raises `UsageError`."""
        import urllib3
        from urllib3.exceptions import LocationParseError
        from urllib3.util import make_headers, parse_url

        try:
            parsed = parse_url(url)
        except LocationParseError:
            parsed = None
        if parsed is None or parsed.scheme not in ("http", "https") or not parsed.host or parsed.query:
            raise UsageError(f"{_shown(url)!r} is no address of a Prometheus: give http://HOST:PORT or https://…")
        self._origin = parsed._replace(auth=None).url.rstrip("/")
        self._headers = {"User-Agent": f"calico-debug/{__version__}"}
        if parsed.auth:
            self._headers |= make_headers(basic_auth=parsed.auth)
        self._pool = urllib3.PoolManager(num_pools=1, timeout=SECONDS, retries=urllib3.Retry(1, redirect=0))

    @property
    def origin(self) -> str:
        """The address, without a password."""
        return self._origin

    def ask(self, query: str) -> Any:
        """The answer to an instant query, as the server gave it. Raises `EvidenceError`."""
        from urllib3.exceptions import HTTPError

        say(f"asking Prometheus at {self._origin}")
        try:
            response = self._pool.request(
                "POST",
                f"{self._origin}/api/v1/query",
                fields={"query": query, "timeout": f"{SECONDS:g}s"},
                encode_multipart=False,
                headers=self._headers,
                preload_content=False,
            )
            try:
                data = response.read(LARGEST + 1)
            finally:
                response.close()
        except HTTPError as error:
            raise EvidenceError(
                f"Prometheus at {self._origin} cannot be asked ({error}): see whether --prometheus names it and it runs"
            ) from None
        if len(data) > LARGEST:
            raise EvidenceError(
                f"Prometheus at {self._origin} sent more than {LARGEST >> 20} MiB: ask a shorter window"
            )
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise EvidenceError(
                f"{self._origin} does not speak Prometheus' language (status {response.status}): see whether "
                "--prometheus names one, with its path prefix if it has one"
            ) from None


def _shown(url: str) -> str:
    """The address without what may be a password."""
    return url.rpartition("@")[2]
