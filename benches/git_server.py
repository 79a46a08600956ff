"""A git server on this machine: git's http-backend behind Python's HTTP server. Its repositories hold what the bench commits."""

import http.server
import os
import shutil
import subprocess
import threading


class GitServer(http.server.ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1 until it is left; serves the bare repositories below a folder."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def commit(self, name, files):
        """Adds these files to what the repository has, or begins it with them."""
        repository = self.folder / name
        stream = change(files, begins=not repository.exists())
        if not repository.exists():
            git("init", "--quiet", "--bare", "--initial-branch=main", repository)
            # Large files are kept and sent as they are: nobody waits for a search for likenesses among random bytes.
            git("-C", repository, "config", "core.bigFileThreshold", "1m")
            git("-C", repository, "config", "core.compression", "0")
        git("-C", repository, "fast-import", "--quiet", input=stream)

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.thread.join()
        shutil.rmtree(self.folder)


def change(files, begins):
    """A commit as git's fast-import reads it."""
    parts = [b"commit refs/heads/main\ncommitter Bench <bench@example.com> 1700000000 +0000\ndata 6\nChange\n"]
    if not begins:
        parts.append(b"from refs/heads/main^0\n")
    for path, content in files.items():
        parts += [f"M 100644 inline {path}\ndata {len(content)}\n".encode(), content, b"\n"]
    return b"".join(parts)


def git(*words, **more):
    subprocess.run(["git", *words], check=True, capture_output=True, **more)


class Handler(http.server.BaseHTTPRequestHandler):
    def serve(self):
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"], "HOME": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": str(self.server.folder), "PATH_INFO": path, "QUERY_STRING": query,
            "REQUEST_METHOD": self.command, "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": self.headers.get("Content-Length", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        with subprocess.Popen(["git", "http-backend"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as backend:
            backend.stdin.write(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            backend.stdin.close()
            head = {}
            while line := backend.stdout.readline().strip():
                name, _, value = line.decode().partition(": ")
                head[name] = value
            self.send_response(int(head.pop("Status", "200").split()[0]))
            for name, value in head.items():
                self.send_header(name, value)
            self.end_headers()
            shutil.copyfileobj(backend.stdout, self.wfile, 1 << 16)

    do_GET = do_POST = serve

    def log_message(self, *_):
        pass
