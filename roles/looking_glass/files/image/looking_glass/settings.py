# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file, read again when it is replaced."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class SettingsError(ValueError):
    """The configuration cannot be used; the message says what is wrong where."""


@dataclass(frozen=True)
class Node:
    """A node and the addresses of its looking glass, in the order in which they are tried."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """What the configuration file says."""

    title: str
    node: str
    port: int
    nodes: tuple[Node, ...]

    def find(self, name: str) -> Node | None:
        """Return the node of that name, if there is one."""
        return next((node for node in self.nodes if node.name == name), None)


def parse_settings(text: str) -> Settings:
    """Read and check the configuration; raise SettingsError."""
    try:
        data = json.loads(text)
        settings = Settings(
            title=_typed(data, "title", str),
            node=_typed(data, "node", str),
            port=_typed(data, "port", int),
            nodes=tuple(_parse_node(node) for node in _typed(data, "nodes", list)),
        )
    except json.JSONDecodeError as error:
        raise SettingsError(f"not JSON: {error}") from error
    if not 1 <= settings.port <= 65535:
        raise SettingsError(f"port: {settings.port} is not between 1 and 65535")
    if settings.find(settings.node) is None:
        raise SettingsError(f"node: {settings.node!r} is not among the nodes")
    return settings


def _parse_node(data: Any) -> Node:
    name = _typed(data, "name", str)
    families = [family for family in ("ipv6", "ipv4") if data.get(family) is not None]
    addresses = tuple(_typed(data, family, str) for family in families)
    if not addresses:
        raise SettingsError(f"node {name!r}: it has no address")
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise SettingsError(f"node {name!r}: {error}") from error
    return Node(name, addresses)


def _typed(data: Any, key: str, kind: type) -> Any:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise SettingsError(f"{key}: a value of type {kind.__name__} is needed")
    return value


class SettingsFile:
    """The settings in a file that is replaced, or whose directory is, while the program runs."""

    def __init__(self, path: Path) -> None:
        """Read the file for the first time; raise SettingsError or OSError."""
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._identity()
        self._settings = parse_settings(path.read_text("utf-8"))

    def current(self) -> Settings:
        """Return the settings as the file is now, or the last good ones when it cannot be used."""
        with self._lock:
            try:
                identity = self._identity()
                if identity != self._seen:
                    self._seen = identity
                    self._settings = parse_settings(self._path.read_text("utf-8"))
            except (OSError, ValueError) as error:
                log.error("%s: %s; going on with the settings before", self._path, error)
            return self._settings

    def _identity(self) -> tuple[int, int, int, int]:
        """Tell files apart without reading them; links in the path are followed."""
        stat = os.stat(self._path)
        return (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
