# Copyright (c) 2026 the dn42.compose contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that says its name: `serve NAME ADDRESS...` answers DNS queries with it, `ask udp|tcp SOURCE ADDRESS PORT` prints it.

Standard library alone, because it runs in network namespaces.
"""

from __future__ import annotations

import socket
import sys
import threading

PORT = 53
WAIT = 3.0  # seconds until a question counts as lost
# Have a UDP socket told of every ICMP error (linux/in.h, linux/in6.h): "no route" is none that it would hear of otherwise.
RECEIVE_ERRORS = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
QUERY = b"\x12\x34\x01\x00" + b"\x00\x01" + b"\x00" * 6


def _socket(address: str, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _serve_udp(server: socket.socket, name: bytes) -> None:
    while True:
        query, client = server.recvfrom(4096)
        server.sendto(query[:2] + bytes([query[2] | 0x80]) + query[3:12] + name, client)


def _serve_tcp(server: socket.socket, name: bytes) -> None:
    while True:
        connection, _client = server.accept()
        with connection:
            connection.sendall(name)


def serve(name: str, *addresses: str) -> None:
    """Answer for ever."""
    for address in addresses:
        for kind, answer in ((socket.SOCK_DGRAM, _serve_udp), (socket.SOCK_STREAM, _serve_tcp)):
            server = _socket(address, kind)
            server.bind((address, PORT))
            if kind == socket.SOCK_STREAM:
                server.listen()
            threading.Thread(target=answer, args=(server, name.encode()), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


def ask(transport: str, source: str, address: str, port: str) -> None:
    """Print the name that answers, or what went wrong."""
    with _socket(address, socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM) as client:
        client.settimeout(WAIT)
        client.setsockopt(*RECEIVE_ERRORS[client.family], 1)
        client.bind((source, 0))
        try:
            client.connect((address, int(port)))
            if transport == "udp":
                client.send(QUERY)
                print(client.recv(4096)[12:].decode())
            else:
                print(client.recv(4096).decode())
        except OSError as error:
            print(f"error: {error.strerror or error}")


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
