"""A model family without weights, and catalogs of it: what the door's contract is tested on."""

import threading
import time
from pathlib import Path

from manylens.catalog import Catalog
from manylens.models.base import Model
from manylens.tasks import Answer, Classification, Label, request

FAMILY = "tests.session.fakes:Fake"


class Fake(Model):
    """Answers with what it was asked; remembers what happened to it."""

    batch_size = 4
    loaded: list[str] = []
    closed: list[str] = []
    batches: list[int] = []
    running = 0
    most_running = 0
    pause = 0.0
    lock = threading.Lock()

    def __init__(self, row, files, settings):
        super().__init__(row, files, settings)
        Fake.loaded.append(row.id)

    def run(self, requests, ctx):
        Fake.batches.append(len(requests))
        for asked in requests:
            with Fake.lock:
                Fake.running += 1
                Fake.most_running = max(Fake.most_running, Fake.running)
            try:
                for _ in range(10):
                    ctx.check()
                    time.sleep(Fake.pause / 10)
                yield self._answer(asked, ctx)
            finally:
                with Fake.lock:
                    Fake.running -= 1

    def _answer(self, asked, ctx):
        if asked.task == "answer":
            if "fail" in asked.question:
                raise ValueError("the model broke")
            if "nested" in asked.question:
                inner = ctx.call("classify", request("classify", image=asked.image))
                return Answer(f"nested {inner.best.name}")
            ctx.notes.setdefault("notes", []).append("a note")
            ctx.spend(1.0)
            return Answer(f"{self.row.id} {asked.question} {ctx.rng().integers(1000)}")
        return Classification((Label(f"{self.row.id} {asked.image.width}", 1.0),))

    def close(self):
        Fake.closed.append(self.row.id)

    @classmethod
    def reset(cls):
        cls.loaded, cls.closed, cls.batches, cls.running, cls.most_running, cls.pause = [], [], [], 0, 0, 0.0


ROW = """
[[model]]
id = "manylens/{name}"
family = "{family}"
summary = "a fake"
tasks = {{ {tasks} }}
rank = {rank}
licence = "Apache-2.0"
commercial = true
memory_mb = {memory}
devices = ["cpu"]
engines = ["openvino"]
uses = ["{uses}"]
"""


def row(name, tasks="answer = ['default'], classify = ['closed']", rank=50, memory=100, family="fake", uses="classify"):
    return ROW.format(name=name, tasks=tasks.replace("'", '"'), rank=rank, memory=memory, family=family, uses=uses)


def catalog(folder: Path, *rows: str) -> Catalog:
    path = folder / "catalog.toml"
    path.write_text("\n".join(rows))
    return Catalog.load(path)


def hub_row(name, tasks='answer = ["default"]'):
    return f"""
[[model]]
id = "{name}"
family = "fake"
summary = "a fake on a hub"
tasks = {{ {tasks} }}
rank = 90
licence = "Apache-2.0"
commercial = true
memory_mb = 100
devices = ["cpu"]
repo = "{name}"
revision = "main"
bytes = 1000
"""
