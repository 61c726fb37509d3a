from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from manylens.catalog import CAPABILITIES, Catalog, capabilities
from manylens.catalog.families import families
from manylens.errors import ManylensError, UnknownModelError, UnsupportedError, WeightsError
from manylens.tasks import TASKS
from manylens.tasks.requests import SegmentMode, StructureKind


@pytest.fixture(scope="module")
def shipped() -> Catalog:
    return Catalog.load()


@pytest.mark.parametrize(
    ("task", "needs", "first"),
    [
        ("segment", {"points"}, "manylens/regions-s"),
        ("segment", {"points", "box"}, "manylens/regions-s"),
        ("segment", {"text"}, "manylens/words-to-mask"),
        ("segment", {"like"}, "manylens/regions-s"),
        ("segment", {"text", "like"}, "facebook/sam3"),
        ("detect", {"closed"}, "manylens/ssd-coco"),
        ("classify", {"closed"}, "manylens/efficientnet-lite3"),
        ("embed", {"image"}, "manylens/vit-s"),
        ("embed", {"text"}, "manylens/minilm"),
        ("read", {"default"}, "manylens/ppocr"),
        ("answer", {"default"}, "manylens/answers"),
        ("depth", {"default"}, "depth-anything/Depth-Anything-V2-Small-hf"),
    ],
)
def test_the_preferred_model_of_a_task(shipped: Catalog, task: str, needs: set[str], first: str) -> None:
    rows = shipped.for_task(task, frozenset(needs))
    assert rows[0].id == first
    assert [row.rank for row in rows] == sorted((row.rank for row in rows), reverse=True)
    assert all(needs <= row.tasks[task] for row in rows)


def test_embedded_only_leaves_out_what_needs_a_hub(shipped: Catalog) -> None:
    assert shipped.for_task("depth", embedded_only=True) == []
    assert {row.source for row in shipped.for_task("embed", embedded_only=True)} == {"wheel"}
    assert [row.id for row in shipped.for_task("segment", frozenset({"text"}), embedded_only=True)] == [
        "manylens/words-to-mask"
    ]


def test_no_row_does_all_at_once(shipped: Catalog) -> None:
    assert shipped.for_task("segment", frozenset({"points", "semantic"})) == []
    assert shipped.for_task("no such task") == []


def test_every_task_that_models_serve_has_a_row(shipped: Catalog) -> None:
    tasks = {task.name for task in TASKS.values() if not task.workflow}
    assert {task for row in shipped for task in row.tasks} == tasks


def test_the_capability_words_are_those_of_the_requests() -> None:
    modes = set(get_args(SegmentMode)) - {"prompt"}
    assert modes <= capabilities("segment")
    assert capabilities("structure") == set(get_args(StructureKind))
    assert set(CAPABILITIES) <= set(TASKS)


def test_families_agree_with_the_rows(shipped: Catalog) -> None:
    """A hub row that is opened as a folder does what its row says."""
    for row in shipped:
        if row.source == "hub":
            known = [family.tasks for family in families() if family.name == row.family]
            assert any(all(words <= tasks.get(task, set()) for task, words in row.tasks.items()) for tasks in known)


def test_the_parts_of_a_composed_row(shipped: Catalog) -> None:
    parts = [row.id for row in shipped.parts(shipped["manylens/words-to-mask"])]
    assert parts == ["manylens/ssd-coco", "manylens/regions-s"]
    assert shipped.parts(shipped["manylens/vit-s"]) == []


def test_rows_know_what_they_are(shipped: Catalog) -> None:
    sources = {row.id: (row.source, row.embedded, row.composed) for row in shipped}
    assert sources["manylens/vit-s"] == ("wheel", True, False)
    assert sources["manylens/ppocr"] == ("package", True, False)
    assert sources["manylens/answers"] == ("composed", True, True)
    assert sources["facebook/dinov2-small"] == ("hub", False, False)
    assert shipped["manylens/efficientnet-lite3"].bytes == 9597325 + 21674
    assert shipped["manylens/efficientnet-lite3"].download_bytes == 74955669


def test_files_of_one_wheel_are_companions(shipped: Catalog) -> None:
    companions = {file.name for file in shipped["manylens/efficientnet-lite3"].companions}
    assert companions == {"frozen_inference_graph.pb", "movenet_lightning.tflite"}
    assert shipped["manylens/vit-s"].companions == ()


def test_weights_hashes_tell_models_apart(shipped: Catalog) -> None:
    weights = {(row.repo or row.id) if not row.files else frozenset(row.files) for row in shipped}
    assert len({row.weights_hash for row in shipped}) == len(weights)  # vit-s and follow-s are the same file
    assert shipped["manylens/vit-s"].weights_hash == Catalog.load()["manylens/vit-s"].weights_hash


@pytest.mark.parametrize(
    ("ref", "nearest"),
    [
        ("manylens/vit", "manylens/vit-s"),
        ("ssd-coco", "manylens/ssd-coco"),
        ("Manylens-Regions-S", "manylens/regions-s"),
        ("zzzz", None),
        ("", None),
    ],
)
def test_an_unknown_name_gets_the_nearest(shipped: Catalog, ref: str, nearest: str | None) -> None:
    with pytest.raises(UnknownModelError) as caught:
        shipped.resolve(ref)
    assert caught.value.what == f"{ref or 'an empty name'}: no such model"
    assert "manylens models" in caught.value.remedy
    assert ("did you mean" in caught.value.remedy) == (nearest is not None)
    assert nearest is None or nearest in caught.value.remedy
    with pytest.raises(UnknownModelError):
        shipped[ref]


def test_a_hub_id_that_is_not_listed(shipped: Catalog) -> None:
    row = shipped.resolve("someone/some-model")
    assert (row.source, row.repo, row.revision, row.family, row.tasks) == ("hub", "someone/some-model", "main", "", {})
    assert (row.commercial, row.licence) == (None, "see the model page")
    assert shipped.resolve("facebook/dinov2-small") is shipped["facebook/dinov2-small"]


def _folder(tmp_path: Path, **files: object) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"x" * 2**20)
    return folder


@pytest.mark.parametrize(
    ("files", "family", "task"),
    [
        ({"config": {"model_type": "dinov2"}}, "dino", "embed"),
        ({"config": {"model_type": "sam"}}, "sam", "segment"),
        ({"model_index": {"_class_name": "StableDiffusionPipeline"}}, "diffusion", "generate"),
    ],
)
def test_a_local_folder(shipped: Catalog, tmp_path: Path, files: dict[str, object], family: str, task: str) -> None:
    folder = _folder(tmp_path, **files)
    row = shipped.resolve(folder)
    assert (row.source, row.family, row.folder, row.id) == ("folder", family, folder, str(folder))
    assert task in row.tasks
    assert row.memory_mb > 200
    assert not row.embedded


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({}, WeightsError, "the folder has no config.json"),
        ({"config": {"model_type": "bert"}}, UnsupportedError, "no family here loads model_type 'bert'; known are"),
        ({"config": {}}, WeightsError, "its config.json has no model_type"),
        ({"config": "not json"}, WeightsError, "its config.json is not JSON"),
        ({"config": []}, WeightsError, "its config.json is not a JSON object"),
        ({"model_index": {"_class_name": "FluxPipeline"}}, UnsupportedError, "'FluxPipeline'"),
    ],
)
def test_a_folder_that_cannot_be_used(
    shipped: Catalog, tmp_path: Path, files: dict[str, object], error: type[ManylensError], said: str
) -> None:
    folder = _folder(tmp_path, **files)
    with pytest.raises(error) as caught:
        shipped.resolve(folder)
    assert str(caught.value).startswith(str(folder))
    assert said in str(caught.value)


def test_an_unsupported_folder_lists_the_known_types(shipped: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        shipped.resolve(_folder(tmp_path, config={"model_type": "bert"}))
    assert "dinov2, " in caught.value.remedy
    assert "whisper" not in caught.value.remedy  # declared, but nothing here loads it yet


@pytest.mark.parametrize("ref", ["./nowhere", "/no/where", "~/nowhere/at/all"])
def test_a_folder_that_is_not_there(shipped: Catalog, ref: str) -> None:
    with pytest.raises(UnknownModelError, match=f"{ref}: no such folder"):
        shipped.resolve(ref)


def test_a_mistyped_folder_is_not_looked_for_on_a_hub(
    shipped: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModelError, match=r"^runs/frist: no such folder; give the folder of a model$"):
        shipped.resolve("runs/frist")
    for name in ("runs/first", "runs/lora", "mine/first"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs" / "frist.txt").touch()
    for ref, near in (("runs/frist", "runs/first"), (str(tmp_path / "mine" / "fist"), str(tmp_path / "mine/first"))):
        with pytest.raises(UnknownModelError) as caught:
            shipped.resolve(ref)
        assert (caught.value.what, caught.value.remedy) == (f"{ref}: no such folder", f"did you mean {near}?")
    with pytest.raises(UnknownModelError, match=r"^mine/first/else: no such folder; give"):
        shipped.resolve("mine/first/else")
    assert shipped.resolve("mine/dinov2-of-another").source == "hub"
    assert shipped.resolve("someone/some-model").source == "hub"
    (tmp_path / "facebook").mkdir()
    assert shipped.resolve("facebook/dinov2-small").source == "hub"  # the catalog comes first


def test_a_run_without_a_model_says_so(shipped: Catalog, tmp_path: Path) -> None:
    run = tmp_path / "part"
    run.mkdir()
    (run / "run.json").write_text('{"state": "stopped"}')
    said = r"part: the run has no model yet \(its state is stopped\); end it with --resume$"
    with pytest.raises(UnknownModelError, match=said):
        shipped.resolve(run)
    (run / "run.json").write_text("[]")
    with pytest.raises(UnknownModelError, match="its state is unknown"):
        shipped.resolve(run)


def test_a_file_is_not_a_model(shipped: Catalog, tmp_path: Path) -> None:
    path = _folder(tmp_path, config={}) / "model.safetensors"
    with pytest.raises(UnknownModelError, match="give the folder that it lies in"):
        shipped.resolve(path)


def test_a_folders_hash_follows_its_content(shipped: Catalog, tmp_path: Path) -> None:
    folder = _folder(tmp_path, config={"model_type": "dinov2"})
    before = shipped.resolve(folder).weights_hash
    assert shipped.resolve(folder).weights_hash == before
    (folder / ".cache").mkdir()
    (folder / ".cache" / "note").write_text("hidden files do not count")
    assert shipped.resolve(folder).weights_hash == before
    (folder / "model.safetensors").write_bytes(b"y" * 2**20)
    assert shipped.resolve(folder).weights_hash != before


@pytest.mark.parametrize("named", [5, "CLIPModel", None, [["CLIPModel"], 3]])
def test_architectures_of_a_wrong_type_name_none(named: object, shipped: Catalog, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "architectures": named}))
    assert shipped.resolve(tmp_path).family == "clip"
