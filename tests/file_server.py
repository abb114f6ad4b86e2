"""A server of files on this machine, as bad as those of the world."""

import contextlib
import http.server
import re
import threading


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`.

    `broken` connections first break off half way through what is asked for. The names in `short`
    are served as if they were half as long, those in `moved` redirect to another name.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.broken, self.asked, self.ranges = {}, 0, [], True
        self.short, self.moved, self.names = set(), {}, []

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        name = self.path[1:]
        if name in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.url(self.server.moved[name]))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.files.get(name)
        if content is not None and name in self.server.short:
            content = content[: len(content) // 2]
        start = int(re.sub(r"\D", "", self.headers.get("Range") or "0"))
        start = start if self.server.ranges else 0
        if not head:
            self.server.asked.append(start)
            self.server.names.append(name)
        if content is None:
            self.send_error(404)
            return
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        part = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if head:
            return
        if self.server.broken:
            self.server.broken -= 1
            part = part[: len(part) // 2]
        with contextlib.suppress(OSError):
            self.wfile.write(part)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def running():
    """A server, until the block ends."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
