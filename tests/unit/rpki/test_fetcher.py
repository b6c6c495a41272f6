# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at real web servers, most of which misbehave: the last good set stays, and it is said why."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dn42_rpki import download, health
from dn42_rpki.fetcher import Fetcher, pause, spread
from dn42_rpki.roas import parse
from dn42_rpki.settings import Settings
from dn42_rpki.settings import parse as read_settings
from dn42_rpki.store import Store
from rpki_source import Handler, Source, as_json, lines

TIMEOUT = 60  # seconds; no test waits for it but the one that makes it short


def settings(*sources: dict[str, str], **others: Any) -> Settings:
    """The configuration of these sources."""
    return read_settings({"node": "fra1", "interval": 900, "timeout": TIMEOUT, "stale_after": 3600, "smallest_share": 50, "smallest_first": 1, "sources": list(sources), **others})


def published(directory: Path) -> tuple[int, int]:
    """How many ROAs of each family the published files have; each is complete and of its family."""
    found = [parse((directory / name).read_bytes()) for name in ("roa4.conf", "roa6.conf")]
    assert not found[0]["ipv6"] and not found[1]["ipv4"]
    return len(found[0]["ipv4"]), len(found[1]["ipv6"])


def status(directory: Path) -> dict[str, Any]:
    """The status file."""
    return dict(json.loads((directory / "status.json").read_bytes()))


def fetcher_of(directory: Path) -> Fetcher:
    """A fetcher that downloads without a process for each URL, which is what costs time here."""
    return Fetcher(Store(directory), lambda url, _seconds: download.download(url, download.SIZE_LIMIT))


def html(handler: Handler) -> None:
    handler.send(b"<html><body><h1>It works!</h1></body></html>", Content_Type="text/html")


def not_found(handler: Handler) -> None:
    handler.send(b"route 172.20.0.0/24 max 28 as 1;\n", status=404)


def empty(handler: Handler) -> None:
    handler.send(b"")


def cut_off(handler: Handler) -> None:
    """At the end of a line, so that only the length tells."""
    content = handler.owner.contents[handler.path]
    handler.send(content[: content.rfind(b"\n", 0, 3000) + 1], length=len(content))


def cut_off_in_a_line(handler: Handler) -> None:
    """Without a length: HTTP/1.0, whose answers end when the connection does."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(handler.owner.contents[handler.path][:-9])


def chunk_missing(handler: Handler) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    content = handler.owner.contents[handler.path]
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
    handler.close_connection = True


def other_family(handler: Handler) -> None:
    handler.send(handler.owner.contents["/v6" if handler.path == "/v4" else "/v4"])


def both_families(handler: Handler) -> None:
    handler.send(lines("ipv4", 100) + lines("ipv6", 100))


def a_tenth(handler: Handler) -> None:
    handler.send(lines("ipv4" if handler.path == "/v4" else "ipv6", 10))


def loop(handler: Handler) -> None:
    handler.send(b"", status=302, Location=handler.path)


def a_file(handler: Handler) -> None:
    handler.send(b"", status=302, Location="file:///etc/passwd")


def no_content(handler: Handler) -> None:
    handler.send_response(204)
    handler.end_headers()


def no_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")


def hang_up(_handler: Handler) -> None:
    pass


BAD: list[tuple[Callable[[Handler], None], str]] = [
    (html, "line 1 is no ROA: '<html>"),
    (not_found, "HTTP status 404"),
    (empty, "nothing was sent"),
    (cut_off, "bytes too early"),
    (cut_off_in_a_line, "is no ROA"),
    (chunk_missing, "ends too early"),
    (other_family, "though it is the source for IPv"),
    (both_families, "though it is the source for IPv"),
    (a_tenth, "it holds 10 IPv. ROAs, less than 50 % of the 100"),
    (loop, "HTTP status 302: .*infinite loop"),
    (a_file, "HTTP status 302|redirected from http to file"),
    (no_content, "HTTP status 204"),
    (no_http, "SSH-2.0"),
    (hang_up, "closed connection without response|Connection reset"),
]


@pytest.mark.parametrize(("answer", "said"), BAD, ids=[answer.__name__ for answer, _said in BAD])
def test_a_bad_answer_changes_nothing_and_is_told(tmp_path: Path, source: Source, capfd: pytest.CaptureFixture[str], answer: Callable[[Handler], None], said: str) -> None:
    config = settings({"ipv4": source.url("/v4"), "ipv6": source.url("/v6")})
    fetcher = fetcher_of(tmp_path)
    fetcher.look(config)
    assert published(tmp_path) == (100, 100)
    before = [(tmp_path / name).stat().st_ino for name in ("roa4.conf", "roa6.conf")]
    known = status(tmp_path)
    capfd.readouterr()

    source.answer = answer
    fetcher.look(config)
    assert published(tmp_path) == (100, 100)
    assert [(tmp_path / name).stat().st_ino for name in ("roa4.conf", "roa6.conf")] == before
    told = status(tmp_path)
    for family, path in (("ipv4", "/v4"), ("ipv6", "/v6")):
        assert told[family]["count"] == 100 and told[family]["confirmed"] == known[family]["confirmed"]
        (problem,) = told[family]["problems"]
        assert problem.startswith(source.url(path)) and re.search(said, problem), problem
    assert capfd.readouterr().err.count("the 100 ROAs there are stay") == 2
    fetcher.look(config)
    assert capfd.readouterr().err == "", "a fault is told once, not with every look"

    source.answer = lambda handler: handler.send(source.contents[handler.path])
    fetcher.look(config)
    assert status(tmp_path)["ipv4"]["problems"] == []
    assert capfd.readouterr().err.count("no problem any more") == 2
    assert [(tmp_path / name).stat().st_ino for name in ("roa4.conf", "roa6.conf")] == before, "the same set again is no change"


def test_a_server_that_never_ends_is_left(tmp_path: Path, source: Source) -> None:
    """Some bytes each second, for ever: no step of the connection ever takes long."""

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not source.closing.wait(0.1):
            handler.wfile.write(b"# patience\n")

    source.answer = drip
    fetcher = Fetcher(Store(tmp_path))
    fetcher.look(settings({"url": source.url("/both")}, timeout=2))
    assert status(tmp_path)["ipv4"]["problems"] == [f"{source.url('/both')}: no complete answer within 2 s"]
    assert source.asked == {"/both": 1}, "one URL of both families is asked once"


def test_a_huge_answer_is_not_read_to_its_end(source: Source) -> None:
    def huge(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not source.closing.is_set():
            handler.wfile.write(b"#" * 65536 + b"\n")

    source.answer = huge
    with pytest.raises(download.DownloadError, match="more than 1000000 bytes"):
        download.fetch(source.url("/both"), TIMEOUT, 1_000_000)


def test_a_redirect_is_followed_and_too_many_are_not(source: Source) -> None:
    def hop(handler: Handler) -> None:
        left = int(handler.path[1:])
        handler.send(b"there", status=200 if left == 0 else 301, **({"Location": f"/{left - 1}"} if left else {}))

    source.answer = hop
    assert download.fetch(source.url(f"/{download.REDIRECTS}"), TIMEOUT) == b"there"
    with pytest.raises(download.DownloadError, match=r"HTTP status 301: .*infinite loop"):
        download.fetch(source.url(f"/{download.REDIRECTS + 1}"), TIMEOUT)


def test_the_second_source_steps_in_for_the_family_that_the_first_lacks(tmp_path: Path, source: Source, second: Source) -> None:
    source.contents["/both"] = as_json(100, 0)
    second.contents["/both"] = as_json(120, 90)
    config = settings({"url": source.url("/both")}, {"url": second.url("/both")})
    fetcher = fetcher_of(tmp_path)
    assert fetcher.look(config) == pause(config, 0)
    assert published(tmp_path) == (100, 90)
    told = status(tmp_path)
    assert (told["ipv4"]["source"], told["ipv6"]["source"]) == (source.url("/both"), second.url("/both"))
    assert told["ipv6"]["problems"] == [f"{source.url('/both')}: it holds no IPv6 ROA"], "what the first one lacks is told although there is data"
    assert health.problems(tmp_path, config, told["written"]) == []


def test_the_second_source_is_not_asked_while_the_first_is_good(tmp_path: Path, source: Source, second: Source) -> None:
    fetcher_of(tmp_path).look(settings({"url": source.url("/both")}, {"url": second.url("/both")}))
    assert second.asked == {}


def test_families_are_independent(tmp_path: Path, source: Source) -> None:
    config = settings({"ipv4": source.url("/v4"), "ipv6": source.url("/v6")})
    fetcher = fetcher_of(tmp_path)
    fetcher.look(config)
    source.contents.update({"/v4": b"<html>", "/v6": lines("ipv6", 101)})
    assert fetcher.look(config) == pause(config, 1) < pause(config, 0)
    assert published(tmp_path) == (100, 101)


def test_what_was_published_is_there_after_a_start_without_network(tmp_path: Path, source: Source, capfd: pytest.CaptureFixture[str]) -> None:
    config = settings({"url": source.url("/both")})
    fetcher_of(tmp_path).look(config)
    known = status(tmp_path)["ipv4"]
    source.answer = hang_up
    os.utime(tmp_path / "roa4.conf", (1, 1))  # when it was confirmed is not when it last changed
    capfd.readouterr()
    again = fetcher_of(tmp_path)
    assert "IPv4: 100 ROAs kept from before" in capfd.readouterr().err
    again.look(config)
    assert published(tmp_path) == (100, 100)
    told = status(tmp_path)["ipv4"]
    assert (told["confirmed"], told["source"]) == (known["confirmed"], known["source"])
    source.answer, source.contents["/both"] = lambda handler: handler.send(source.contents[handler.path]), as_json(10, 10)
    again.look(config)
    assert published(tmp_path) == (100, 100), "plausible is measured by the set from before the start"


def test_a_first_start_without_network_has_valid_empty_files(tmp_path: Path, source: Source, capfd: pytest.CaptureFixture[str]) -> None:
    fetcher = fetcher_of(tmp_path)
    assert published(tmp_path) == (0, 0)
    assert "no ROA data yet, every IPv6 route is refused" in capfd.readouterr().err
    source.answer = not_found
    config = settings({"url": source.url("/both")})
    fetcher.look(config)
    found = health.problems(tmp_path, config, status(tmp_path)["written"])
    assert [problem.split(";")[0] for problem in found] == [f"no ROA data for {name}, every {name} route is refused" for name in ("IPv4", "IPv6")]
    assert "HTTP status 404" in found[0]


def test_a_first_set_that_is_implausibly_small_is_not_believed(tmp_path: Path, source: Source, second: Source) -> None:
    """A file that was cut off between two lines is a good one to look at; the next source is asked."""
    source.contents["/both"], second.contents["/both"] = as_json(99, 100), as_json(100, 100)
    config = settings({"url": source.url("/both")}, smallest_first=100)
    fetcher = fetcher_of(tmp_path)
    fetcher.look(config)
    assert published(tmp_path) == (0, 100)
    assert "it holds 99 IPv4 ROAs, and a first set must have 100 (dn42_rpki_smallest_first)" in health.problems(tmp_path, config, status(tmp_path)["written"])[0]
    fetcher.look(settings({"url": source.url("/both")}, {"url": second.url("/both")}, smallest_first=100))
    assert published(tmp_path) == (100, 100)
    fetcher.look(config)
    assert published(tmp_path) == (99, 100), "later sets are compared with the one before"


def test_a_roa_that_all_sources_have_dropped_is_gone_and_old_ones_stay_while_nobody_answers(tmp_path: Path, source: Source, second: Source) -> None:
    """A ROA has no date of its own here: it ends with the first good set without it, and an old set is used and told."""
    config = settings({"url": source.url("/both")}, {"url": second.url("/both")}, stale_after=3600)
    fetcher = fetcher_of(tmp_path)
    fetcher.look(config)
    source.contents["/both"] = as_json(99, 100)
    second.answer = not_found
    fetcher.look(config)
    assert published(tmp_path) == (99, 100)
    source.answer = not_found
    fetcher.look(config)
    now = status(tmp_path)["ipv4"]["confirmed"] + 3601
    told = [problem for problem in health.problems(tmp_path, config, now) if "old" in problem]
    assert published(tmp_path) == (99, 100)
    assert len(told) == 2 and "the IPv4 ROAs are 1.0 h old (limit 1.0 h)" in told[0] and "HTTP status 404" in told[0]


def test_a_broken_file_of_our_own_stays_until_there_is_a_good_set(tmp_path: Path, source: Source) -> None:
    (tmp_path / "roa4.conf").write_bytes(b"route 172.20.0.0/24 ma")
    fetcher = fetcher_of(tmp_path)
    assert (tmp_path / "roa4.conf").read_bytes() == b"route 172.20.0.0/24 ma", "the router keeps what it has only if it is not told of an empty set"
    fetcher.look(settings({"url": source.url("/both")}))
    assert published(tmp_path) == (100, 100)


def test_health_tells_stale_data_and_a_fetcher_that_stands_still(tmp_path: Path, source: Source) -> None:
    config = settings({"url": source.url("/both")}, stale_after=3600)
    assert health.problems(tmp_path, config, 0) == ["the fetcher has written no status yet"]
    fetcher_of(tmp_path).look(config)
    written = status(tmp_path)["written"]
    assert health.problems(tmp_path, config, written + 3500 - 2600) == []
    found = health.problems(tmp_path, config, written + 7200)
    assert [problem.partition(" for ")[0].partition(" (")[0] for problem in found] == [
        "the fetcher has not looked at its sources",
        "the IPv4 ROAs are 2.0 h old",
        "the IPv6 ROAs are 2.0 h old",
    ]


def test_looks_are_spread_over_nodes_and_come_sooner_after_failures() -> None:
    config = settings({"url": "http://roa.example.net/"})
    assert {spread(f"node{number}") for number in range(50)} == {spread(f"node{number}") for number in range(50)}
    assert len({round(spread(f"node{number}"), 3) for number in range(50)}) > 40
    assert all(0.9 <= spread(f"node{number}") <= 1.1 for number in range(50))
    ratio = [round(pause(config, failures) / spread("fra1")) for failures in (0, 1, 2, 3, 4, 5, 50)]
    assert ratio == [900, 60, 120, 240, 480, 900, 900]
