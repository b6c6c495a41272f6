# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Getting a file from an untrusted server, within limits of time and size that the server cannot stretch."""

from __future__ import annotations

import http.client
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

REDIRECTS = 5
SIZE_LIMIT = 16 * 1024 * 1024  # bytes; DN42's whole set is about half a megabyte
# Of a single step of the connection. The whole is limited from outside.
STEP_SECONDS = 20
AGENT = "dn42.compose-rpki"


class DownloadError(Exception):
    """Nothing usable was received; the message says why."""


def fetch(url: str, seconds: float, limit: int = SIZE_LIMIT) -> bytes:
    """The content at a URL, in `seconds` and at most `limit` bytes. Raises DownloadError.

    A process of its own does it, which can be ended in whatever it hangs: name resolution, TLS, a server that
    sends a byte now and then.
    """
    command = [sys.executable, "-m", __package__, "fetch", "--limit", str(limit), url]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parents[1], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise DownloadError(f"no complete answer within {seconds:g} s") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise DownloadError(said[-1] if said else f"the download ended with {done.returncode}")
    return done.stdout


def download(url: str, limit: int) -> bytes:
    """The content at a URL; without a limit of time. Raises DownloadError."""
    request = urllib.request.Request(url, headers={"User-Agent": AGENT, "Accept-Encoding": "identity"})
    try:
        with _opener().open(request, timeout=STEP_SECONDS) as response:
            if response.status != http.client.OK:
                raise DownloadError(f"HTTP status {response.status}")
            content = response.read(limit + 1)
            if len(content) > limit:
                raise DownloadError(f"more than {limit} bytes")
            # Reading a given amount does not complain about a connection that ends too early.
            if response.length:
                raise DownloadError(f"the answer ends {response.length} bytes too early")
            return content
    except urllib.error.HTTPError as error:
        raise DownloadError(f"HTTP status {error.code}: {' '.join(str(error.reason).split())}") from error
    except urllib.error.URLError as error:
        raise DownloadError(str(error.reason)) from error
    except http.client.IncompleteRead as error:
        raise DownloadError("the answer ends too early") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(str(error) or type(error).__name__) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows few redirects, and none from HTTPS to HTTP."""

    max_redirections = REDIRECTS

    def redirect_request(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Refuse what would lose the encryption or leave HTTP."""
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise DownloadError(f"redirected from {req.type} to {scheme}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener for HTTP and HTTPS alone: no files, no FTP, no proxies from the environment."""
    opener = urllib.request.OpenerDirector()
    handlers = (urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _Redirects, urllib.request.HTTPDefaultErrorHandler)
    for handler in (*handlers, urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler):
        opener.add_handler(handler())
    return opener
