import logging
import socket

import pytest

pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")

from delg_jax.errors import UserError
from delg_jax.serving.requests import allowed_hosts
from tests import search_page
from tests.search_page import ask, jpeg, refused, search


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
