"""Decodes uploads in a process of its own, which is ended if one takes too much time or memory.

The decoders of images are written in C: a thread inside one cannot be stopped, and a fault there
would end the server. Server and process exchange a line of JSON and then bytes.
"""

import contextlib
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import IO, Any, NamedTuple

import numpy as np

from delg_jax.data import images
from delg_jax.errors import UserError

Box = tuple[float, float, float, float]


class TooLargeError(Exception):
    """An image that takes more pixels, time or memory than a process may; its text says which."""


class Upload(NamedTuple):
    """A decoded upload, cropped and shrunk.

    Attributes:
      loaded: result of `images.prepare`.
      size: rows and columns of the whole picture.
    """

    loaded: images.Loaded
    size: tuple[int, int]


class Decoder:
    """One process that decodes one image at a time; threads may share it.

    Args:
      min_side: pixels; a smaller image is refused.
      max_pixels: a larger image is too large, which is found before it is decoded.
      max_size: pixels of the longer side, see `images.prepare`; 0 for no limit.
      seconds: maximum time for an image.
      megabytes: maximum memory for an image; only Linux enforces it.
    """

    def __init__(
        self, min_side: int, max_pixels: int, max_size: float, seconds: float, megabytes: int
    ) -> None:
        self._limits = {"min_side": min_side, "max_pixels": max_pixels, "max_size": max_size}
        self._limits |= {"seconds": seconds, "megabytes": megabytes}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock, self._closed = threading.Lock(), False

    def start(self) -> None:
        """Starts the process and waits for it, so that the first image need not."""
        with self._lock:
            self._started()

    def close(self) -> None:
        """Ends the process, also within an image; later images are too large."""
        self._closed = True
        self._end()

    def decode(self, data: bytes, box: Box | None) -> Upload:
        """Decodes, crops and shrinks an image.

        Args:
          data: the encoded image.
          box: x1, y1, x2, y2 in pixels, or None.

        Returns:
          The image.

        Raises:
          BadImageError: for an image that cannot be used.
          TooLargeError: see there; another process may take the image.
          UserError: for a box outside the image.
        """
        with self._lock:
            head, pixels = self._ask({"box": box, "bytes": len(data)}, data)
        if "bad" in head:
            raise images.BadImageError(head["bad"])
        if "large" in head:
            raise TooLargeError(head["large"])
        if "box" in head:
            raise UserError("--box", box, head["box"])
        image = np.frombuffer(pixels, np.uint8).reshape(head["shape"])
        loaded = images.Loaded(image, head["scale"], tuple(head["part"]))
        return Upload(loaded, tuple(head["size"]))

    def _ask(self, asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """What the process answers to an image."""
        if self._closed:
            raise TooLargeError("the server is stopping")
        process, seconds = self._started(), self._limits["seconds"]
        timer, start = threading.Timer(seconds, process.kill), time.monotonic()
        timer.start()
        try:
            _write(_open(process.stdin), asked, data)
            return _read(_open(process.stdout))
        except (OSError, ValueError):  # it has ended
            self._end()
            late = time.monotonic() >= start + seconds
            return {"large": f"takes more than {seconds:g} s" if late else "ends its decoder"}, b""
        finally:
            timer.cancel()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        folder = str(pathlib.Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-m", "delg_jax.serving.decoding", json.dumps(self._limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C in a terminal is for the server
        )
        self._process = process
        if self._closed:
            self._end()
        elif not _open(process.stdout).readline() and not self._closed:
            raise RuntimeError("the process that decodes images does not start")
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # of what it has not read
                    _open(stream).close()


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # of a process that was started with pipes
    return stream


def _write(stream: IO[bytes], head: dict[str, Any], content: bytes | memoryview = b"") -> None:
    stream.write(json.dumps(head).encode() + b"\n")
    stream.write(content)
    stream.flush()


def _read(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """A line of JSON, and as many bytes as its field `bytes` says; a ValueError at the end."""
    head = json.loads(stream.readline())
    content = stream.read(head["bytes"])
    if len(content) < head["bytes"]:
        raise ValueError("the stream has ended")
    return head, content


def main(limits: dict[str, Any]) -> None:
    """Decodes images until standard input ends; `limits` are those of a `Decoder`."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not become an answer
    _limit_memory(limits["megabytes"])
    _write(stream, {})
    while True:
        try:
            asked, data = _read(sys.stdin.buffer)
        except (OSError, ValueError):  # the server has ended
            return
        if hasattr(signal, "alarm"):  # ends this process even if the server is gone
            signal.alarm(int(limits["seconds"]) + 1)
        head, pixels = _decoded(data, asked["box"], limits)
        _write(stream, {**head, "bytes": len(pixels)}, pixels)
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _decoded(data: bytes, box: Box | None, limits: dict[str, Any]) -> tuple[dict, Any]:
    """The answer to an image, and its pixels."""
    try:
        picture = images.decode(data, limits["min_side"], limits["max_pixels"])
    except images.TooManyPixelsError as error:
        return {"large": str(error)}, b""
    except images.BadImageError as error:
        return {"bad": str(error)}, b""
    except MemoryError:
        return {"large": f"takes more than {limits['megabytes']} MB of memory"}, b""
    try:
        loaded = images.prepare(picture, box, limits["max_size"])
    except images.BadImageError as error:
        return {"box": str(error)}, b""
    image = np.ascontiguousarray(loaded.image)
    head = {"shape": image.shape, "scale": loaded.scale, "part": loaded.size}
    return {**head, "size": picture.shape[:2]}, image.reshape(-1).data


def _limit_memory(megabytes: int) -> None:
    """Limits the memory that this process takes from now on."""
    if not sys.platform.startswith("linux"):  # elsewhere there is no such limit
        return
    resource = importlib.import_module("resource")
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData:"))
    limit = used * 2**10 + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
