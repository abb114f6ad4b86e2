import logging
import socket
import struct
import zlib

import pytest

from delg_jax.errors import UserError
from delg_jax.serving.requests import allowed_hosts
from tests import search_page
from tests.search_page import ask, jpeg, refused, search

pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")


@pytest.mark.parametrize("path", ["/", "/search.js", "/api/about", "/api/image/0", "/absent"])
def test_every_answer_is_fenced(port, path):
    headers = ask(port, "GET", path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Python" not in headers["Server"]
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "", "::1"])
def test_another_host_is_refused(port, host):
    answer = ask(port, "GET", "/api/about", headers={"Host": host.format(port=port)})
    assert refused(answer, 403, "Host")


def test_no_host_and_two_hosts_are_refused(port):
    for head in ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(head.encode())
            assert client.recv(100).split()[1] in (b"403", b"400")


@pytest.mark.parametrize("host", ["LOCALHOST:{port}", "[::1]:{port}", search_page.FURTHER_HOST])
def test_its_own_names_are_let_in(port, host):
    assert ask(port, "GET", "/", headers={"Host": host.format(port=port)}).status == 200


def test_port_80_needs_no_port():
    assert {"localhost", "[::2]", "[::2]:80"} <= allowed_hosts("::2", 80)
    assert "localhost" not in allowed_hosts("::2", 81)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "file://"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_pages_of_other_sites_cannot_search(port, server, headers):
    assert refused(search(port, **headers), 403, "another site")
    assert server.searcher.asked == []
    assert search(port, Origin=f"http://localhost:{port}").status == 200


def test_failures_stay_on_the_server(port, server, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("delg_jax"), "propagate", True)
    server.searcher.failure = UserError("workdir", "/home/secret", "was made by another one")
    answer = search(port, body=jpeg(31))
    assert refused(answer, 500)
    assert "secret" not in answer.json["error"]
    server.searcher.failure = RuntimeError("/home/secret")
    answer = search(port, body=jpeg(32))
    assert refused(answer, 500)
    assert "secret" not in answer.json["error"]
    assert "/home/secret" in caplog.text


pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain"},
        {"Content_Type": "multipart/form-data; boundary=x"},
        {"Content_Encoding": "gzip"},
    ],
)
def test_bodies_of_another_type_are_refused(port, headers):
    assert refused(search(port, **headers), 415)


def test_a_body_that_is_too_large_is_refused(port, server):
    large = bytes(search_page.LIMITS.upload_bytes + 1)
    assert refused(search(port, body=large), 413, "20000 bytes")
    chunked = ask(port, "POST", "/api/search", iter([large]), {"Content-Type": "image/png"})
    assert refused(chunked, 413)
    assert server.searcher.asked == []


def _bomb():
    """A PNG that declares 50,000 x 50,000 pixels."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"<script>alert(1)</script>", "not an image"),
        (b"GIF89a" + bytes(50), "cannot be used"),
        (_bomb(), "pixels"),
        (jpeg()[:700], "cannot be used"),
        (jpeg(0, 12, 12), "under 16"),
    ],
)
def test_an_unusable_picture_is_refused(port, body, words):
    assert refused(search(port, body=body), 422, words)


def test_slow_and_broken_clients_are_ended_and_hurt_nobody(port):
    head = f"POST /api/search HTTP/1.1\r\nHost: localhost:{port}\r\n"
    body = f"{head}Content-Type: image/jpeg\r\nContent-Length: 9000\r\n\r\nabc"
    slow = {}
    for name, start in (
        ("head", head),
        ("body", body),
        ("nothing", ""),
        ("noise", "\0\1\2\r\n\r\n"),
    ):
        slow[name] = socket.create_connection(("127.0.0.1", port), 10)
        slow[name].sendall(start.encode())
    broken = socket.create_connection(("127.0.0.1", port), 10)
    broken.sendall(body.encode())
    broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    broken.close()  # a reset, without a good-bye
    assert search(port).status == 200
    answers = {name: client.recv(100) for name, client in slow.items()}
    for client in slow.values():
        client.close()
    assert answers["head"] == answers["nothing"] == b""
    assert answers["body"].split()[1] == b"408"
    assert answers["noise"].split()[1] == b"400"
