# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .roas import FAMILIES

KEYS = ("url", *FAMILIES)
NO_SOURCES = (
    "dn42_rpki_sources is empty: without a source every route would be refused. Leave the option away for the two sources of the DN42 wiki's page on RPKI,"
    " or name your own, such as [{url: 'https://roa.example.net/dn42_roa_46.json'}, {ipv4: ..., ipv6: ...}]"
)


class SettingsError(ValueError):
    """The configuration cannot be used; the message says what is wrong where."""


@dataclass(frozen=True)
class Source:
    """URLs of one source: {family: URL}. `both`: it is one URL for both families."""

    urls: dict[str, str]
    both: bool


@dataclass(frozen=True)
class Settings:
    """What the configuration file says. Times are in seconds, `smallest_share` is in percent, `smallest_first` counts ROAs of a family."""

    node: str
    interval: int
    timeout: int
    stale_after: int
    smallest_share: int
    smallest_first: int
    sources: tuple[Source, ...]


def load(path: Path) -> Settings:
    """Read and check the configuration file. Raises SettingsError."""
    try:
        return parse(json.loads(path.read_bytes()))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(str(error)) from error


def parse(data: Any) -> Settings:
    """Check the decoded configuration. Raises SettingsError."""
    if not isinstance(data, dict):
        raise SettingsError("a mapping is expected")
    sources = data.get("sources")
    if not isinstance(sources, list):
        raise SettingsError("dn42_rpki_sources: must be a list, each item with url, or with ipv4 and ipv6")
    if not sources:
        raise SettingsError(NO_SOURCES)
    read = tuple(_source(item, f"dn42_rpki_sources[{index}]") for index, item in enumerate(sources))
    for family in FAMILIES:
        if not any(family in source.urls for source in read):
            raise SettingsError(f"dn42_rpki_sources: none has a URL for {family}, so that every {family} route would be refused")
    return Settings(
        node=str(data.get("node")),
        # Sources are other people's machines.
        interval=_number(data, "interval", 60, 86400),
        timeout=_number(data, "timeout", 1, 600),
        stale_after=_number(data, "stale_after", 60, 30 * 86400),
        smallest_share=_number(data, "smallest_share", 0, 100),
        smallest_first=_number(data, "smallest_first", 1, 100000),
        sources=read,
    )


def _number(data: dict[str, Any], key: str, lowest: int, highest: int) -> int:
    value = data.get(key)
    if type(value) is not int or not lowest <= value <= highest:
        raise SettingsError(f"dn42_rpki_{key}: {value!r} is not a number from {lowest} to {highest}")
    return value


def _source(item: Any, where: str) -> Source:
    if not isinstance(item, dict):
        raise SettingsError(f"{where}: {item!r} must be a mapping such as {{url: 'https://roa.example.net/dn42_roa_46.json'}}")
    given = {str(key): value for key, value in item.items() if value is not None}
    for key in given:
        if key not in KEYS:
            raise SettingsError(f"{where}.{key} is no option of a source (there are {', '.join(KEYS)})")
    if not given or ("url" in given and len(given) > 1):
        raise SettingsError(f"{where}: must have url, for both families, or ipv4 and ipv6 (or one of them)")
    urls = {key: _url(value, f"{where}.{key}") for key, value in given.items()}
    if "url" in urls:
        return Source(dict.fromkeys(FAMILIES, urls["url"]), both=True)
    return Source(urls, both=False)


def _url(value: Any, where: str) -> str:
    if not isinstance(value, str) or re.search(r"[^!-~]", value):
        raise SettingsError(f"{where}: {value!r} is no URL (ASCII, without blanks)")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{where}: {value!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SettingsError(f"{where}: {value!r} must begin with https:// or http:// and a host, with a port from 1 to 65535 if any")
    if "@" in parts.netloc:
        raise SettingsError(f"{where}: must not have a user name or password in it")
    return value
