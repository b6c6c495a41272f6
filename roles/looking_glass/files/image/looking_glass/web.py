# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages and the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException, NotFound

from .cluster import Answer, Cluster, Question
from .settings import Node, Settings, SettingsFile
from .targets import TargetError, parse_target

API = "/api/"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": ("default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "interest-cohort=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(settings_file: SettingsFile, cluster: Cluster) -> Flask:
    """Return the application; it reads the settings anew for each request."""
    app = Flask(__name__)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    _add_pages(app, settings_file, cluster)
    _add_api(app, settings_file, cluster)
    app.after_request(_harden)
    app.register_error_handler(HTTPException, lambda error: _failure(settings_file, error.code, error.description))
    app.register_error_handler(TargetError, lambda error: _failure(settings_file, 400, str(error)))
    return app


def _add_pages(app: Flask, settings_file: SettingsFile, cluster: Cluster) -> None:
    @app.get("/")
    def sessions_page() -> str:
        settings = settings_file.current()
        answers = cluster.ask(settings, _chosen(settings, "all"), Question())
        return _page("sessions.html", settings, answers=answers)

    @app.get("/route")
    def route_page() -> str:
        settings = settings_file.current()
        target = parse_target(request.args.get("target", ""))
        answers = cluster.ask(settings, _chosen(settings, "all"), Question(target))
        return _page("route.html", settings, answers=answers, target=target)

    @app.get("/health")
    def health() -> Response:
        return jsonify(node=settings_file.current().node)


def _add_api(app: Flask, settings_file: SettingsFile, cluster: Cluster) -> None:
    @app.get(API + "v1/sessions")
    def sessions() -> tuple[Response, int]:
        return _answer(settings_file.current(), cluster, Question())

    @app.get(API + "v1/route")
    def route() -> tuple[Response, int]:
        return _answer(settings_file.current(), cluster, Question(parse_target(request.args.get("target", ""))))

    @app.get(API + "v1/nodes")
    def nodes() -> Response:
        settings = settings_file.current()
        return jsonify(
            node=settings.node,
            nodes=[{"name": node.name, "addresses": node.addresses} for node in settings.nodes],
        )


def _answer(settings: Settings, cluster: Cluster, question: Question) -> tuple[Response, int]:
    """Answer for this node, or for those that the request names.

    Without a name no other node is asked, because this is how the nodes ask each other.
    """
    name = request.args.get("node", settings.node)
    answers = cluster.ask(settings, _chosen(settings, name), question)
    about = {} if question.target is None else {"target": question.target}
    if name == "all":
        return jsonify(about | {"nodes": [answer.as_json() for answer in answers]}), 200
    return jsonify(about | answers[0].as_json()), 502 if answers[0].error else 200


def _chosen(settings: Settings, default: str) -> Sequence[Node]:
    """Return the nodes that the request names; raise NotFound for an unknown one."""
    name = request.args.get("node") or default
    if name == "all":
        return settings.nodes
    node = settings.find(name)
    if node is None:
        raise NotFound("There is no node of that name.")
    return [node]


def _page(template: str, settings: Settings, **values: Any) -> str:
    return render_template(
        template,
        settings=settings,
        asked=request.args.get("target", "")[:64],
        chosen=request.args.get("node", "")[:64],
        **values,
    )


def _failure(settings_file: SettingsFile, code: int | None, message: str | None) -> tuple[Response | str, int]:
    """Say what is wrong, to programs as JSON and to people as a page with the form to try again."""
    status, text = code or 500, message or "Something went wrong."
    if request.path.startswith(API):
        return jsonify(error=text), status
    return _page("error.html", settings_file.current(), message=text, answers=list[Answer]()), status


def _harden(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response
