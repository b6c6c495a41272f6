# Copyright (c) 2026 the dn42.compose contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch packets in network namespaces, and leave nothing behind whatever happens.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
The rules belong to a process (``flags owner``): when it ends, the kernel removes them. Every process started here is killed by
the kernel when ours ends, so that also ``kill -9`` leaves no rule. The one sysctl that legacy tables need is put back by a
child in a session of its own that waits for our end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import time
from typing import Callable, Dict, Iterator, List, Optional

from ansible_collections.dn42.compose.plugins.module_utils._trace_events import LOST, Event, LegacyEvent, parse_line, parse_nflog
from ansible_collections.dn42.compose.plugins.module_utils._trace_rules import TABLE, Flow, commands

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
# Both bound a wait for something that takes milliseconds on an idle machine.
LOAD_WAIT = 20.0
MARK_WAIT = 20.0
_POLL = 0.1
# A child that puts a sysctl back does so at the latest after these seconds more than the trace may take.
_GRACE = 30.0
_NFLOG = "nfnetlink_log"
_PROTOCOL_FAMILIES = {4: 2, 6: 10}


class CaptureError(Exception):
    """The trace cannot be made; the message says why and what helps."""


class Namespace:
    """A network namespace, kept by a descriptor so that it cannot become another one under our hands."""

    def __init__(self, name: str, pid: int) -> None:
        """Open the namespace of a process. Raises CaptureError."""
        self.name = name
        try:
            self._descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CaptureError(f"the network namespace of the {name} (process {pid}) cannot be opened: {error.strerror}") from error

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Make what is opened, read and started inside belong to the namespace. Raises CaptureError."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _LIBC.setns(self._descriptor, _CLONE_NEWNET) != 0:
                raise CaptureError(f"the network namespace of the {self.name} cannot be entered: {os.strerror(ctypes.get_errno())}; run as root (become: true)")
            try:
                yield
            finally:
                if _LIBC.setns(home, _CLONE_NEWNET) != 0:
                    os._exit(1)  # in a foreign namespace nothing may go on
        finally:
            os.close(home)

    def read(self, path: str) -> str:
        """Return the text of a file of /proc as this namespace shows it, empty if there is none."""
        with self.entered():
            try:
                with open(path, encoding="ascii", errors="replace") as stream:
                    return stream.read().strip()
            except OSError:
                return ""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives in this namespace."""
        with self.entered():
            return socket.socket(family, kind, protocol)


def _spawn(namespace: Namespace, argv: List[str], **streams: object) -> subprocess.Popen:
    """Start a program in a namespace; it is killed when our process ends."""
    parent = os.getpid()

    def die_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    # nft keeps a history of interactive commands in HOME.
    environment = dict(os.environ, LC_ALL="C", HOME="/nonexistent")
    with namespace.entered():
        return subprocess.Popen(argv, env=environment, preexec_fn=die_with_parent, **streams)  # type: ignore[call-overload]


class _Member:
    """One namespace that is watched: the owner of the rules, the monitor, and the socket of the markers."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.owner: Optional[subprocess.Popen] = None
        self.monitor: Optional[subprocess.Popen] = None
        self.log: Optional[socket.socket] = None
        self.marker = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.marked = 0
        self.rest = b""
        self.events: List[Event] = []
        self.legacy: List[LegacyEvent] = []
        self.lost = False

    def take(self, data: bytes, marker_port: int) -> None:
        """Read what the monitor printed."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for raw in lines:
            line = raw.decode("utf-8", "replace")
            self.lost = self.lost or LOST in line
            event = parse_line(line)
            if event is None:
                continue
            if event.fields.get("daddr") == "127.0.0.1" and event.fields.get("dport") == str(marker_port):
                self.marked = max(self.marked, int(event.fields.get("udp length", "8")) - 8)
            else:
                self.events.append(event)


class Capture:
    """Rules and monitors in some namespaces at once. Use as a context manager."""

    def __init__(self, nft: str, flow: Flow, namespaces: List[Namespace], run: Callable[[List[str]], str], legacy: List[str]) -> None:
        """`run` runs a command and returns what it prints; `legacy` are the names of the namespaces with legacy tables in use."""
        self.nft, self.flow, self.run, self.legacy = nft, flow, run, legacy
        self.members: Dict[str, _Member] = {}
        self.namespaces = namespaces
        self.marks = 0
        # Discard; the rule that marks the marker drops it anyway.
        self.marker_port = 9
        self._watchdog: Optional[Watchdog] = None

    def __enter__(self) -> Capture:
        try:
            for namespace in self.namespaces:
                self._start(namespace)
            self.mark()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _start(self, namespace: Namespace) -> None:
        """Load the rules into a namespace and start watching. Raises CaptureError."""
        member = self.members[namespace.name] = _Member(namespace)
        member.owner = _spawn(namespace, [self.nft, "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._load(member, "inet")
        if namespace.name == "host":
            # Not every kernel has the bridge family; without it a frame that the host's rules do not see is not seen here either.
            with contextlib.suppress(CaptureError):
                self._load(member, "bridge")
        if namespace.name in self.legacy:
            member.log = open_nflog(namespace)
        member.monitor = _spawn(namespace, [self.nft, "monitor", "trace"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.set_blocking(member.monitor.stdout.fileno(), False)

    def _load(self, member: _Member, family: str) -> None:
        """Give the owner its table in one transaction, and wait until it is there. Raises CaptureError."""
        owner = member.owner
        where = f"the {member.namespace.name}'s namespace"
        os.set_blocking(owner.stderr.fileno(), False)
        try:
            owner.stdin.write(("; ".join(commands(self.flow, self.marker_port, family)) + "\n").encode())
            owner.stdin.flush()
        except BrokenPipeError:
            pass
        said, end = b"", time.monotonic() + LOAD_WAIT
        while time.monotonic() < end:
            with member.namespace.entered():
                tables = self.run([self.nft, "list", "tables"])
            if f"table {family} {TABLE}" in tables.splitlines():
                return
            said += owner.stderr.read() or b""
            if b"Error" in said or owner.poll() is not None:
                break
            time.sleep(_POLL)
        text = " ".join(said.decode("utf-8", "replace").split())[:300]
        raise CaptureError(f"nft did not take the trace rules in {where}: {text or 'no answer'} (nftables 1.0 or newer and a kernel from 5.12 on are needed)")

    def pump(self, seconds: float) -> None:
        """Read what the monitors print, waiting some seconds at most. Raises CaptureError."""
        readers: Dict[object, _Member] = {}
        for member in self.members.values():
            readers[member.monitor.stdout] = member
            if member.log is not None:
                readers[member.log] = member
        for stream in select.select(list(readers), [], [], max(seconds, 0))[0]:
            member = readers[stream]
            if stream is member.log:
                self._take_legacy(member)
                continue
            data = stream.read()
            if not data:
                raise CaptureError(f"nft monitor ended in the {member.namespace.name}'s namespace: {member.rest.decode('utf-8', 'replace')[:300]}")
            member.take(data, self.marker_port)

    @staticmethod
    def _take_legacy(member: _Member) -> None:
        """Read what NFLOG has."""
        while True:
            try:
                member.legacy += parse_nflog(member.log.recv(65536))
            except BlockingIOError:
                return
            except OSError:
                member.lost = True
                return

    def mark(self) -> None:
        """Send a marker in each namespace and read until each monitor has told of it. Raises CaptureError.

        The events of a namespace come in their order: whatever happened before has been told then.
        """
        self.marks += 1
        end = time.monotonic() + MARK_WAIT
        again = 0.0
        while any(member.marked < self.marks for member in self.members.values()):
            now = time.monotonic()
            if now > end:
                late = ", ".join(name for name, member in self.members.items() if member.marked < self.marks)
                raise CaptureError(f"nft monitor trace tells nothing in the namespace of: {late}")
            if now >= again:
                # A monitor that has not begun to listen misses it.
                again = now + 5 * _POLL
                for member in self.members.values():
                    # Dropped by our own rule, which the kernel tells the sender.
                    with contextlib.suppress(OSError):
                        member.marker.sendto(bytes(self.marks), ("127.0.0.1", self.marker_port))
            self.pump(_POLL)

    def watch_legacy(self, seconds: float) -> None:
        """Let the kernel send the traces of legacy tables to NFLOG, until close() or our end. Raises CaptureError."""
        places = [member.namespace for member in self.members.values() if member.log is not None]
        if places:
            self._watchdog = Watchdog(places, _PROTOCOL_FAMILIES[self.flow.version], seconds)

    @property
    def lost(self) -> List[str]:
        """Names of the namespaces whose monitor lost events."""
        return [name for name, member in self.members.items() if member.lost]

    def close(self) -> None:
        """End everything: the kernel removes the rules with their owner."""
        if self._watchdog is not None:
            self._watchdog.close()
        for member in self.members.values():
            for process in (member.monitor, member.owner):
                if process is not None:
                    process.kill()
                    process.wait()
            member.marker.close()
            if member.log is not None:
                member.log.close()


class Watchdog:
    """Sets ``net.netfilter.nf_log`` in namespaces and puts it back when told, when our process is gone, or at a deadline."""

    def __init__(self, namespaces: List[Namespace], protocol_family: int, seconds: float) -> None:
        """Fork the child that does it, and wait until it has set the values. Raises CaptureError."""
        alive, self._end = os.pipe()
        told, telling = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            code = 1
            try:
                os.setsid()
                os.close(self._end)
                _quiet(alive, telling)
                code = _keep_nf_log(namespaces, protocol_family, alive, telling, seconds + _GRACE)
            finally:
                os._exit(code)
        os.close(alive)
        os.close(telling)
        answer = os.read(told, 4096).decode("utf-8", "replace")
        os.close(told)
        if answer != "ready":
            self.close()
            raise CaptureError(f"the traces of legacy (ip6)tables cannot be read here: net.netfilter.nf_log.{protocol_family} does not take {_NFLOG} ({answer or 'no answer'})")

    def close(self) -> None:
        """Let the child put the values back, and wait for it."""
        os.close(self._end)
        os.waitpid(self._child, 0)


def _quiet(*keep: int) -> None:
    """Hold nothing of the module's: ssh waits until its output is closed by everybody."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for name in keep:
        os.set_inheritable(name, False)


def _keep_nf_log(namespaces: List[Namespace], protocol_family: int, alive: int, telling: int, seconds: float) -> int:
    """Set, say so, wait for the end of the pipe, put back. Returns an exit code."""
    path = f"/proc/sys/net/netfilter/nf_log/{protocol_family}"
    before = [(namespace, namespace.read(path)) for namespace in namespaces]
    try:
        for namespace, _value in before:
            _write_in(namespace, path, _NFLOG)
        os.write(telling, b"ready")
        os.close(telling)
        select.select([alive], [], [], seconds)
    except OSError as error:
        os.write(telling, (error.strerror or "error").encode())
    finally:
        for namespace, value in before:
            # Somebody who set it to something else meanwhile meant it.
            if namespace.read(path) == _NFLOG != value:
                _write_in(namespace, path, value)
    return 0


def _write_in(namespace: Namespace, path: str, value: str) -> None:
    """Write a sysctl of a namespace. Raises OSError."""
    with namespace.entered(), open(path, "w", encoding="ascii") as stream:
        stream.write(value + "\n")


# linux/netfilter/nfnetlink_log.h: bind to group 0, send whole packets' heads, do not wait for more of them.
_NETLINK_NETFILTER, _NFLOG_CONFIG = 12, 4 << 8 | 1
_CONFIG_COMMAND, _CONFIG_MODE, _CONFIG_THRESHOLD = 1, 2, 5
_COMMAND_BIND, _COPY_PACKET, _HEAD = 1, 2, 128
_REQUEST_ACK = 0x1 | 0x4


def _attribute(kind: int, value: bytes) -> bytes:
    padded = value + b"\0" * (-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + padded


def open_nflog(namespace: Namespace) -> socket.socket:
    """Return a socket that gets the TRACE lines of a namespace's legacy tables. Raises CaptureError."""
    log = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    log.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    log.settimeout(5)
    settings = [
        _attribute(_CONFIG_COMMAND, bytes([_COMMAND_BIND])),
        _attribute(_CONFIG_MODE, struct.pack("!IBB", _HEAD, _COPY_PACKET, 0)),
        _attribute(_CONFIG_THRESHOLD, struct.pack("!I", 1)),
    ]
    for setting in settings:
        body = struct.pack("!BBH", 0, 0, 0) + setting
        log.send(struct.pack("=IHHII", 16 + len(body), _NFLOG_CONFIG, _REQUEST_ACK, 1, 0) + body)
        answer = log.recv(65536)
        code = -struct.unpack_from("=i", answer, 16)[0]
        if code:
            log.close()
            raise CaptureError(f"the traces of legacy (ip6)tables cannot be read: NFLOG group 0 says {os.strerror(code)} (another program has it?)")
    log.setblocking(False)
    return log
