"""The server of the search page under load: 50 good clients beside slow, broken and hostile ones.

    python -m experiments.benchmarks.server_load --index=runs/quickstart --clients=200

Starts `delg search --serve` on a workdir in its own process. Each good client searches random boxes
of pictures of many sizes, requests the matches of the best result and fetches its image, one
request after the other; one that is refused with Retry-After waits as told and asks again, which
its time includes. Beside them, slow clients send a byte a second or nothing, broken ones leave in
the middle, hostile ones send what must be refused, and heavy ones send pictures that take long to
decode. Counts and times the responses, and follows the memory of the server with its processes. In
the end it must obey SIGTERM within 10 seconds although searches are running. Linux only. Writes
server_load.json and server_load.md into --results; with another number of clients than 50, it is in
the names.
"""

import asyncio
import collections
import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
from absl import flags
from PIL import Image

from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError

_IMAGES = 8  # of the database, that the pictures of clients are made from
_SIZES = (160, 900)  # pixels of the sides of pictures, least and most
_GOOD = ("search", "matches", "image")  # requests of good clients
_SLOW, _BROKEN, _HOSTILE, _HEAVY = 10, 5, 5, 1  # clients beside the good ones
_HEAVY_SIDE, _HEAVY_SCANS = 4500, 80  # seconds of decoding, below all limits
_CURVE_SECONDS = 15.0  # between measurements of memory
_SHOWN = 12  # at most, of these measurements in the table
_UNFINISHED = 3  # heavy pictures that are decoded when SIGTERM comes
_WARMING = 10  # one search of so many comes before those that are measured
_SIGTERM_SECONDS = 10.0  # at most, from SIGTERM to the end of the server
_JPEG = {"Content-Type": "image/jpeg"}


class Load:
    """Clients of the server, and the responses they got.

    Args:
      port: of the server.
      method: of the searches.
      limit: most searches of good clients.
      sizes: number of sizes of the pictures of good clients.

    Attributes:
      seconds: by kind of request, of each response with status 200.
      statuses: by kind of request, number of responses by status.
      asked_again: by kind of request of good clients, responses that told them to ask again.
    """

    def __init__(self, port: int, method: str, limit: int, sizes: int) -> None:
        self.port, self._method, self._left, self._sizes = port, method, limit, sizes
        self._images: list[bytes] = []
        self._shapes: list[tuple[int, int]] = []
        self._heavy = b""
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self.statuses: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.asked_again: collections.Counter[str] = collections.Counter()

    async def good(self, session, rng: np.random.Generator) -> None:
        """Searches, requests matches and fetches an image."""
        self._left -= 1
        number = rng.integers(len(self._images))
        image, (width, height) = self._images[number], self._shapes[number]
        x1, y1 = rng.uniform(0, 0.3, 2) * (width, height)
        x2, y2 = rng.uniform(0.7, 1, 2) * (width, height)
        asked = {"method": self._method, "box": f"{x1},{y1},{x2},{y2}", "top": "10"}
        found = await self._ask(
            session, "search", "POST", "/api/search", params=asked, data=image, headers=_JPEG
        )
        if found is None:
            return
        best = found["hits"][0]["image"]
        pair = {"query": found["query"], "image": best}
        await self._ask(session, "matches", "POST", "/api/matches", json=pair)
        await self._ask(session, "image", "GET", f"/api/image/{best}")

    def is_done(self) -> bool:
        """Whether all searches of good clients have begun."""
        return self._left <= 0

    async def slow(self, session, rng: np.random.Generator) -> None:
        """Sends nothing, or a byte a second of a head or body, until the connection is closed."""
        del session
        kind = rng.integers(3)
        line = b"POST /api/search HTTP/1.1\r\n"
        if kind == 1:
            line += f"Host: localhost:{self.port}\r\nContent-Type: image/jpeg\r\n".encode()
            line += b"Content-Length: 100000\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(line if kind else b"")
        answer = asyncio.ensure_future(reader.read(100))
        try:
            while not answer.done():
                writer.write(b"x" if kind else b"")
                await asyncio.sleep(1)
            words = answer.result().split()
            self.statuses["slow"][words[1].decode() if words else "closed"] += 1
        finally:
            answer.cancel()
            writer.close()

    async def broken(self, session, rng: np.random.Generator) -> None:
        """Resets the connection in the middle of a request or before the response."""
        del session
        image = self._images[0]
        head = f"POST /api/search HTTP/1.1\r\nHost: localhost:{self.port}\r\n"
        head += f"Content-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
        request = head.encode() + image
        client = socket.create_connection(("127.0.0.1", self.port), 10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(request[: rng.integers(1, len(request) + 1)])
        await asyncio.sleep(0.05)
        client.close()
        self.statuses["broken"]["gone"] += 1
        await asyncio.sleep(0.5)

    async def hostile(self, session, rng: np.random.Generator) -> None:
        """Sends requests that must be refused."""
        path, kinds = "/api/search", rng.integers(7)
        asks = (
            {"data": io.BytesIO(bytes(30 << 20)), "headers": _JPEG},
            {"data": b"<script>", "headers": _JPEG},
            {"data": self._images[0], "headers": {**_JPEG, "Host": "evil.example"}},
            {"data": self._images[0], "headers": {**_JPEG, "Origin": "http://evil.example"}},
            {"data": self._images[0], "headers": _JPEG, "params": {"box": "nan,0,1,1"}},
            {"data": many_scans(64, 10_000), "headers": _JPEG},
            {"data": _too_many_pixels(), "headers": _JPEG},
        )
        await self._ask(session, "hostile", "POST", path, **asks[kinds])
        await asyncio.sleep(0.5)

    async def heavy(self, session, rng: np.random.Generator) -> None:
        """Sends a picture that takes long to decode, each time another file: none is cached."""
        stamp = rng.bytes(8)
        await self._ask(
            session, "heavy", "POST", "/api/search", data=self._heavy + stamp, headers=_JPEG
        )

    def start_heavy(self, count: int) -> list[socket.socket]:
        """Sends pictures that take long to decode, and does not wait; the open connections."""
        head = f"POST /api/search HTTP/1.1\r\nHost: localhost:{self.port}\r\n"
        head += f"Content-Type: image/jpeg\r\nContent-Length: {len(self._heavy) + 1}\r\n\r\n"
        clients = []
        for number in range(count):
            clients.append(socket.create_connection(("127.0.0.1", self.port), 10))
            clients[-1].sendall(head.encode() + self._heavy + bytes([number]))
        return clients

    async def prepare(self, session, heavy: bool) -> None:
        """Fetches images, and makes the pictures of clients from them."""
        fetched = []
        for index in range(_IMAGES):
            async with session.get(f"http://127.0.0.1:{self.port}/api/image/{index}") as answer:
                if answer.status == 200:
                    fetched.append(Image.open(io.BytesIO(await answer.read())).convert("RGB"))
        rng = np.random.default_rng(0)
        for number in range(self._sizes):
            shape = (int(rng.integers(*_SIZES)), int(rng.integers(*_SIZES)))
            target = io.BytesIO()
            fetched[number % len(fetched)].resize(shape).save(target, "JPEG")
            self._images.append(target.getvalue())
            self._shapes.append(shape)
        self._heavy = many_scans(_HEAVY_SIDE, _HEAVY_SCANS) if heavy else b""

    async def _ask(self, session, kind: str, method: str, path: str, **options):
        """Returns the content of a response with status 200, which is timed; else None."""
        start = time.perf_counter()
        try:
            url = f"http://127.0.0.1:{self.port}{path}"
            while True:
                async with session.request(method, url, **options) as answer:
                    content = await answer.read()
                    wait = answer.headers.get("Retry-After")
                    if wait is None or kind not in _GOOD:
                        self.statuses[kind][str(answer.status)] += 1
                        if answer.status != 200:
                            return None
                        self.seconds[kind].append(time.perf_counter() - start)
                        is_json = answer.content_type.endswith("json")
                        return await answer.json() if is_json else content
                self.asked_again[kind] += 1
                await asyncio.sleep(float(wait))
        except OSError as error:
            self.statuses[kind][type(error).__name__] += 1
            return None


@functools.cache
def many_scans(side: int, repeats: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    target = io.BytesIO()
    Image.new("RGB", (side, side)).save(target, "JPEG", progressive=True, quality=20)
    data, end = target.getvalue()[:-2], target.getvalue()[-2:]
    return data + data[data.rindex(b"\xff\xda") :] * repeats + end


def _too_many_pixels() -> bytes:
    """A PNG of a few bytes that declares 2,500 million pixels."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0), b"IDAT", b"IEND")
    chunks = (
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


async def drive(load: Load, clients: int, seconds: float, others: bool) -> None:
    """Runs the clients until all searches are made, or for some seconds."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await load.prepare(session, others)
        kinds: list[Callable[..., Awaitable[None]]] = [load.good] * clients
        if others:
            kinds += [load.slow] * _SLOW + [load.broken] * _BROKEN + [load.hostile] * _HOSTILE
            kinds += [load.heavy] * _HEAVY
        end = time.monotonic() + seconds

        async def repeat(action: Callable[..., Awaitable[None]], seed: int) -> None:
            rng = np.random.default_rng(seed)
            while time.monotonic() < end and not load.is_done():
                try:
                    await action(session, rng)
                except OSError:  # of clients that misbehave
                    load.statuses[action.__name__]["closed"] += 1
                    await asyncio.sleep(0.1)

        tasks = [asyncio.ensure_future(repeat(*task[::-1])) for task in enumerate(kinds)]
        await asyncio.gather(*tasks[:clients])
        for task in tasks[clients:]:  # slow clients run until the server closes their connections
            task.cancel()
        await asyncio.gather(*tasks[clients:], return_exceptions=True)


@dataclasses.dataclass
class Served:
    """A server.

    Attributes:
      process: its id.
      port: of the page.
      ending: seconds from SIGTERM to its end; None before it.
    """

    process: int
    port: int
    ending: float | None = None


@contextlib.contextmanager
def served(index: str, config: str | None) -> Iterator[Served]:
    """Yields a server, which must exit with status 0 at the end."""
    command = [sys.executable, "-m", "delg_jax", "search", "--serve", "--port=0"]
    command += [f"--index={index}", *([f"--config={config}"] if config else [])]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        if "http://" not in line:
            raise UserError("--index", index, "cannot be served; see the error above")
        found = Served(server.pid, int(line.split("http://")[1].split("/")[0].rpartition(":")[2]))
        yield found
    finally:
        start = time.monotonic()
        server.send_signal(signal.SIGTERM)
        status = server.wait(60)
        seconds = time.monotonic() - start
        server.stdout.close()
    if status:
        raise UserError("delg search --serve", status, "must end with status 0 after SIGTERM")
    found.ending = seconds


def _memory(process: int) -> float:
    """Resident memory of a process and those that it started, in megabytes."""
    folder = pathlib.Path(f"/proc/{process}")
    lines = (folder / "status").read_text().splitlines()
    own = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)
    started = {int(child) for task in folder.glob("task/*/children") for child in _words(task)}
    return own + sum(_memory(child) for child in started if pathlib.Path(f"/proc/{child}").exists())


def _words(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # of a thread that has ended
        return []


async def _follow(process: int, curve: list[tuple[float, float]]) -> None:
    """Measures the memory of the server at equal times."""
    start = time.monotonic()
    while True:
        with contextlib.suppress(OSError):  # of a process that has ended meanwhile
            curve.append((time.monotonic() - start, _memory(process)))
        await asyncio.sleep(_CURVE_SECONDS)


async def _followed(load: Load, process: int, values: flags.FlagValues) -> list:
    """Drives the load and measures memory meanwhile."""
    curve: list[tuple[float, float]] = []
    follower = asyncio.ensure_future(_follow(process, curve))
    try:
        await drive(load, values.clients, values.seconds, others=True)
    finally:
        follower.cancel()
    return curve


def summarize(load: Load) -> dict[str, dict]:
    """Returns responses, median, 99th percentile and slowest in ms, by kind of request.

    Errors are last responses to good clients with another status than 200.
    """
    found: dict[str, dict] = {}
    for kind, statuses in load.statuses.items():
        found[kind] = {"answers": dict(statuses)}
        if kind in _GOOD:
            found[kind]["errors"] = statuses.total() - statuses["200"]
            found[kind]["asked_again"] = load.asked_again[kind]
        if load.seconds[kind]:
            times = 1000 * np.array(load.seconds[kind])
            p50, p99 = np.percentile(times, [50, 99])
            found[kind] |= {"p50": float(p50), "p99": float(p99), "slowest": float(times.max())}
    return found


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "index", None, "Workdir to search.", required=True)
    text = "Config file; by default, that of the workdir's features."
    arguments.define_path(values, "config_file", None, text)
    flags.DEFINE_string("method", "global", "Method of the searches.", flag_values=values)
    flags.DEFINE_integer("clients", 50, "Good clients.", 1, flag_values=values)
    text = "Sizes of the pictures of good clients."
    flags.DEFINE_integer("sizes", 200, text, 1, flag_values=values)
    flags.DEFINE_float(
        "seconds",
        900.0,
        "Most seconds of load; before, at most a quarter of that to warm up.",
        0.1,
        3600.0,
        flag_values=values,
    )
    flags.DEFINE_integer("requests", 3000, "Searches.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Starts the server, runs the clients and prints the table."""
    memory = {}
    with (
        contextlib.ExitStack() as unfinished,
        served(values.index, values.config_file) as server,
    ):
        memory["start"] = _memory(server.process)
        searches = -(-values.requests // _WARMING)
        warming = Load(server.port, values.method, searches, values.sizes)
        asyncio.run(drive(warming, values.clients, values.seconds / 4, others=False))
        memory["warm"] = _memory(server.process)
        load = Load(server.port, values.method, values.requests, values.sizes)
        start = time.monotonic()
        curve = asyncio.run(_followed(load, server.process, values))
        seconds = time.monotonic() - start
        memory["end"] = _memory(server.process)
        for client in load.start_heavy(_UNFINISHED):
            unfinished.enter_context(client)
        time.sleep(1)  # the server decodes them when SIGTERM comes
    found = summarize(load)
    content = {
        "clients": values.clients,
        "method": values.method,
        "seconds": seconds,
        "sizes": values.sizes,
        "memory_megabytes": memory,
        "memory_curve": curve,  # seconds and megabytes
        "sigterm_seconds": server.ending,
        "requests": found,
    }
    text = _table(values, content)
    name = "server_load" if values.clients == 50 else f"server_load_{values.clients}"
    harness.write_result(values.results, name, content, text)
    print(text, end="")
    if (server.ending or 0.0) > _SIGTERM_SECONDS:
        rule = f"must end within {_SIGTERM_SECONDS:.0f} s of SIGTERM"
        raise UserError("delg search --serve", f"{server.ending:.1f} s", rule)


def _table(values: flags.FlagValues, content: dict) -> str:
    lines = [
        f"{values.clients} clients for {content['seconds']:.0f} s, method {values.method}, "
        f"pictures of {values.sizes} sizes, {os.cpu_count()} cores; with {_SLOW} slow, {_BROKEN} "
        f"broken, {_HOSTILE} hostile ones and {_HEAVY} heavy one",
        "",
        "| requests | responses by status | errors | asked again | p50 ms | p99 ms | slowest ms |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, entry in sorted(content["requests"].items()):
        answers = ", ".join(f"{status}: {count}" for status, count in entry["answers"].items())
        counts = (str(entry.get(name, "")) for name in ("errors", "asked_again"))
        times = (
            f"{entry[name]:.0f}" if name in entry else "" for name in ("p50", "p99", "slowest")
        )
        lines.append(f"| {kind} | {answers} | {' | '.join((*counts, *times))} |")
    memory, curve = content["memory_megabytes"], content["memory_curve"]
    sizes = ", ".join(f"{value:.0f} MB {name}" for name, value in memory.items())
    shown = curve[:: -(-len(curve) // _SHOWN)]
    steps = ", ".join(f"{value:.0f} MB at {at:.0f} s" for at, value in shown)
    lines += ["", f"Memory of the server: {sizes}. Under load: {steps}.", ""]
    if content["sigterm_seconds"] is not None:
        text = f"It ended {content['sigterm_seconds']:.1f} s after SIGTERM, which came while it "
        lines += [f"{text}decoded {_UNFINISHED} heavy pictures.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
