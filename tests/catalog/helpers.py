"""Small wheels, a small package index and a small model hub, all on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from manylens.catalog import Catalog, Row, WeightsStore

PACKAGE, VERSION = "tiny-weights", "1.0"
ALPHA, BETA = b"alpha weights " * 5000, b"beta weights " * 100
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def build_wheel(folder: Path, members: dict[str, bytes], package: str = PACKAGE, version: str = VERSION) -> Path:
    """Writes a wheel by hand, as pip accepts it."""
    name = package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    files = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{member},,\n" for member in files) + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in {**files, f"{info}/RECORD": record.encode()}.items():
            wheel.writestr(member, content)
    return path


def wheel_file(name: str, content: bytes, member: str = "") -> str:
    return f"""
[[model.file]]
name = "{name}"
source = "wheel"
package = "{PACKAGE}"
version = "{VERSION}"
member = "{member or f"tiny_weights/{name}"}"
bytes = {len(content)}
sha256 = "{sha256(content)}"
"""


def model(identity: str, body: str, tasks: str = '{ detect = ["closed"] }', rank: int = 10, extra: str = "") -> str:
    return f"""
[[model]]
id = "{identity}"
family = "ssd"
summary = "for tests"
tasks = {tasks}
rank = {rank}
licence = "MIT"
memory_mb = 1
{extra}
{body}
"""


def wheel_table(size: int) -> str:
    return f'[[wheel]]\npackage = "{PACKAGE}"\nversion = "{VERSION}"\nbytes = {size}\n'


def leftovers(store: WeightsStore) -> list[str]:
    """What a run left half done in the store's folder."""
    suspicious = (".part", ".tmp", ".link", ".whl", ".incomplete", ".log")
    return [path.name for path in store.root.rglob("*") if path.is_file() and path.name.endswith(suspicious)]


class Server:
    """An HTTP server on this machine.

    Attributes:
        files: What it serves: body by path.
        headers: Further headers by path.
        status: Status by path where it is not 200.
        tokens: The authorizations that came with requests.
        hits: How often each path was asked for with GET.
        stall_at: Paths whose body stops in the middle until `go` is set.
        started: Set when a stalled body begins.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.tokens: set[str] = set()
        self.status: dict[str, int] = {}
        self.hits: Counter[str] = Counter()
        self.stall_at: set[str] = set()
        self.started, self.go = threading.Event(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._answer(self, body=True)

            def do_HEAD(self) -> None:
                server._answer(self, body=False)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self.go.set()
        self._http.shutdown()
        self._http.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlsplit(request.path).path)
        self.tokens.add(request.headers.get("Authorization", ""))
        self.hits[path] += body
        content = self.files.get(path)
        request.send_response(404 if content is None else self.status.get(path, 200))
        for name, value in self.headers.get(path, {}).items():
            request.send_header(name, value)
        if content is None and path.startswith("/api/models/"):
            request.send_header("X-Error-Code", "RepoNotFound")
        request.send_header("Content-Length", str(len(content or b"")))
        request.end_headers()
        if not body or content is None:
            return
        if path in self.stall_at:
            request.wfile.write(content[: len(content) // 2])
            request.wfile.flush()
            self.started.set()
            self.go.wait(30)
            content = content[len(content) // 2 :]
        request.wfile.write(content)


CONFIG = json.dumps({"model_type": "dinov2"}).encode()
HUB_FILES = {
    "config.json": CONFIG,
    "model.safetensors": b"safe tensors" * 1000,
    "pytorch_model.bin": b"a pickle",
    "onnx/model.safetensors": b"a copy for others",
}


def serve_repository(server: Server, repo: str, files: dict[str, bytes], card: dict[str, str] | None = None) -> None:
    siblings, tree = [], []
    for name, content in files.items():
        large = name.endswith(".safetensors")
        oid = hashlib.sha1(content).hexdigest()
        lfs = {"size": len(content), "pointerSize": 100}
        sibling = {"rfilename": name, "size": len(content), "blobId": oid}
        entry = {"type": "file", "path": name, "size": len(content), "oid": oid}
        siblings.append(sibling | ({"lfs": lfs | {"sha256": sha256(content)}} if large else {}))
        tree.append(entry | ({"lfs": lfs | {"oid": sha256(content)}} if large else {}))
        path = f"/{repo}/resolve/{COMMIT}/{name}"
        server.files[path] = content
        server.headers[path] = {"ETag": f'"{sha256(content) if large else oid}"', "X-Repo-Commit": COMMIT}
    info = {"id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0}
    server.files[f"/api/models/{repo}/revision/main"] = json.dumps(
        {**info, "siblings": siblings, **({"cardData": card} if card else {})}
    ).encode()
    server.files[f"/api/models/{repo}/tree/{COMMIT}"] = json.dumps(tree).encode()


def hub_row(repo: str = "owner/name") -> Row:
    return Catalog({}).resolve(repo)
