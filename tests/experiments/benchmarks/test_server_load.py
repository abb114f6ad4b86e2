import asyncio
import contextlib
import json
import os
import sys
import time

import pytest

pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")

import aiohttp
from aiohttp import test_utils, web

from delg_jax.cli.main import run_experiment
from delg_jax.serving.requests import Limits
from experiments.benchmarks import server_load
from tests import search_page


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory as Linux counts it")
def test_good_clients_are_served_beside_the_others(tmp_path, capsys, monkeypatch):
    @contextlib.contextmanager
    def served(index, config):
        assert (index, config) == ("w", None)
        with search_page.running(search_page.QuickSearcher(), Limits(body_seconds=1.0)) as server:
            yield server_load.Served(os.getpid(), server.port)

    monkeypatch.setattr(server_load, "served", served)
    monkeypatch.setattr(server_load, "_HEAVY_SIDE", 200)
    monkeypatch.setattr(server_load, "_CURVE_SECONDS", 0.2)
    flags = ["--index=w", "--clients=12", "--seconds=2", f"--results={tmp_path}", "--requests=100"]
    flags += ["--sizes=9"]
    assert run_experiment(server_load, flags) == 0
    found = json.loads((tmp_path / "server_load_12.json").read_text())
    answers = {kind: entry["answers"] for kind, entry in found["requests"].items()}
    searches = answers["search"]["200"]
    assert 12 <= searches <= 100
    for kind in ("search", "matches", "image"):
        assert answers[kind] == {"200": searches}
        entry = found["requests"][kind]
        assert entry["errors"] == 0
        assert 0 < entry["p50"] <= entry["p99"] <= entry["slowest"]
    assert set(answers["hostile"]) <= {"400", "403", "413", "422"}
    assert answers["broken"]["gone"] > 0
    assert set(answers.get("heavy", {})) <= {"200"}
    assert len(found["memory_curve"]) >= 2
    assert set(found["memory_megabytes"]) == {"start", "warm", "end"}
    assert (tmp_path / "server_load_12.md").read_text() == capsys.readouterr().out


def test_a_good_client_waits_as_told_and_asks_again():
    async def answer(request):
        asked.append(time.monotonic())
        if len(asked) == 1:
            return web.Response(status=503, headers={"Retry-After": "1"})
        return web.json_response({"number": len(asked)})

    async def ask():
        app = web.Application()
        app.router.add_get("/", answer)
        async with test_utils.TestServer(app) as server, aiohttp.ClientSession() as session:
            load.port = server.port
            return await load._ask(session, "search", "GET", "/")

    asked: list[float] = []
    load = server_load.Load(0, "global", 1, 1)
    assert asyncio.run(ask()) == {"number": 2}
    assert (load.asked_again, load.statuses) == ({"search": 1}, {"search": {"200": 1}})
    (seconds,) = load.seconds["search"]
    assert 1 <= asked[1] - asked[0] <= seconds
    found = server_load.summarize(load)["search"]
    assert (found["errors"], found["asked_again"]) == (0, 1)


def test_a_workdir_that_cannot_be_served_is_one_line(tmp_path, capsys):
    assert run_experiment(server_load, [f"--index={tmp_path}", f"--results={tmp_path}"]) == 2
    assert "--index" in capsys.readouterr().err
