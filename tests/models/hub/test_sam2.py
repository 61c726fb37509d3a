"""SAM 2 against plain transformers, on small checkpoints of its true architecture: pictures, videos, bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.models.hub import kit, sam2_tiny
from tests.models.hub.sam2_tiny import SIDE, SIZE, block, centre, disc
from torch.nn import functional as F

from manylens.catalog import Catalog
from manylens.errors import ManylensError, PromptError, UnsupportedError, WeightsError
from manylens.media import Image, Video, from_rle
from manylens.models.processor import Processor
from manylens.models.promptable.everything import Everything
from manylens.models.promptable.prompts import Canvas
from manylens.models.sam2 import parts, spec
from manylens.models.sam2.memory import Bank, Memory, Seen, narrow, wide
from manylens.models.sam2.networks import Found, Networks, clear
from manylens.models.sam2.tracker import Tracker, fitted
from manylens.runtime.context import Context
from manylens.session import Session
from manylens.tasks.regions import SegmentRequest, TrackRequest

EXAMPLES = Path(__file__).parents[3] / "examples"
CONFIGS = Path(__file__).with_name("configs")
WIDTH, HEIGHT = SIZE
CLOSE = 2e-4
"""Of logits up to 10 and of scores; a mask may differ in a pixel whose logit is nearer to zero than that."""


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compiled networks are kept for the whole module, and away from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYLENS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sam2_tiny.save(sam2_tiny.video_model(), tmp_path_factory.mktemp("sam2") / "tiny")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    from transformers import Sam2VideoModel

    return Sam2VideoModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module", params=["torch", "openvino"])
def model(request: pytest.FixtureRequest, folder: Path) -> Any:
    return kit.opened(folder, engine=request.param)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without the memory of a video."""
    return sam2_tiny.save(sam2_tiny.picture_model(), tmp_path_factory.mktemp("sam2") / "pictures")


@pytest.fixture(scope="module")
def picture() -> Image:
    return Image.of(sam2_tiny.frames(1)[0])


def scaled(points: Any) -> torch.Tensor:
    """Pixels of the video as those of the network."""
    return torch.tensor(np.asarray(points, np.float64) * np.array([SIDE / WIDTH, SIDE / HEIGHT]), dtype=torch.float32)


def pixels(rgb: np.ndarray) -> torch.Tensor:
    """What the network takes, by transformers' rule: torch's own antialiased resize of the uint8 pixels."""
    planes = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
    square = F.interpolate(planes, (SIDE, SIDE), mode="bilinear", antialias=True).float() / 255
    return (square - torch.tensor([0.5, 0.45, 0.4])[:, None, None]) / torch.tensor([0.3, 0.25, 0.2])[:, None, None]


def ours(rgb: np.ndarray, folder: Path) -> torch.Tensor:
    return torch.from_numpy(spec.prepared(rgb, spec.read({p.name: p for p in folder.iterdir()}, "tiny")))


class TestPreprocessing:
    @pytest.mark.parametrize("size", [(48, 80), (300, 200), (64, 64), (17, 500)])
    def test_the_square_is_that_of_the_rule_to_a_grey_level(self, folder: Path, size: tuple[int, int]) -> None:
        rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        grey_level = 1 / 255 / 0.2
        np.testing.assert_allclose(ours(rgb, folder), pixels(rgb), atol=1.01 * grey_level, rtol=0)

    @pytest.mark.parametrize("size", [(48, 80), (300, 200), (20, 30)])
    def test_a_mask_is_resized_as_the_reference_does(self, size: tuple[int, int]) -> None:
        down, across = np.mgrid[: size[0], : size[1]]
        mask = (down - size[0] / 3) ** 2 + (across - size[1] / 2) ** 2 < (min(size) / 4) ** 2
        share = F.interpolate(torch.from_numpy(mask)[None, None].float(), (SIDE, SIDE), mode="bilinear", antialias=True)
        clear_cut = (share[0, 0] - 0.5).abs().numpy() > 1e-5
        np.testing.assert_array_equal(fitted(mask, SIDE)[clear_cut], (share[0, 0] >= 0.5).numpy()[clear_cut])

    def test_a_mask_too_fine_for_the_network_keeps_a_pixel(self) -> None:
        mask = np.zeros((1000, 2000), bool)
        mask[500, 1500] = True
        (place,) = np.argwhere(fitted(mask, SIDE))
        assert tuple(place) == (32, 48)

    def test_the_memory_is_rounded_to_bfloat16_as_torch_does(self) -> None:
        values = np.random.default_rng(0).standard_normal(10000).astype(np.float32) * 100
        np.testing.assert_array_equal(wide(narrow(values)), torch.from_numpy(values).bfloat16().float().numpy())


LOGITS = np.random.default_rng(5).standard_normal((16, 16)).astype(np.float32) * 8
PROMPTS: dict[str, dict[str, Any]] = {
    "a click": {"points": [(30, 20)]},
    "two clicks": {"points": [(30, 20)], "background_points": [(60, 40)]},
    "a box": {"box": (20, 10, 50, 40)},
    "a box and a click": {"box": (20, 10, 50, 40), "points": [(30, 20)]},
    "a mask": {"mask": disc(1)},
    "a click on a mask": {"points": [(30, 20)], "previous": LOGITS},
}


@torch.no_grad()
def decoded(plain: Any, image: np.ndarray, said: dict[str, Any], folder: Path) -> tuple[np.ndarray, ...]:
    """Logits, qualities and masks of plain transformers, the best first."""
    from transformers import Sam2Model

    clicks = [*said.get("points", ()), *said.get("background_points", ())]
    labels = [1] * len(said.get("points", ())) + [0] * len(said.get("background_points", ()))
    logits = said.get("previous")
    if "mask" in said:
        logits = Canvas.filled(SIZE, SIDE).logits(said["mask"], 16)
    several = len(clicks) == 1 and "box" not in said and logits is None
    state = Sam2Model(Sam2Model.config_class(**sam2_tiny.parts_of(plain.config))).eval()
    state.load_state_dict({name: plain.state_dict()[name] for name in state.state_dict()})
    out = state(
        pixel_values=ours(image, folder),
        input_points=scaled(clicks)[None, None] if clicks else None,
        input_labels=torch.tensor(labels)[None, None] if clicks else None,
        input_boxes=scaled(np.reshape(said["box"], (2, 2))).reshape(1, 1, 4) if "box" in said else None,
        input_masks=None if logits is None else torch.from_numpy(logits)[None, None],
        multimask_output=several,
    )
    masks = F.interpolate(out.pred_masks[0], (HEIGHT, WIDTH), mode="bilinear", align_corners=False)[0] > 0
    order = torch.argsort(-out.iou_scores[0, 0], stable=True)
    return out.pred_masks[0, 0][order].numpy(), out.iou_scores[0, 0][order].numpy(), masks[order].numpy()


class TestPictures:
    @pytest.mark.parametrize("said", PROMPTS.values(), ids=PROMPTS)
    def test_masks_are_those_of_transformers(
        self, model: Any, plain: Any, folder: Path, picture: Image, said: dict[str, Any]
    ) -> None:
        found = kit.run(model, SegmentRequest.of(image=picture, **said))
        logits, scores, masks = decoded(plain, picture.array, said, folder)
        assert len(found) == (3 if said == PROMPTS["a click"] else 1)
        assert masks.any(axis=(1, 2)).all()
        assert not masks.all(axis=(1, 2)).any()
        np.testing.assert_allclose(found.confidence, scores, atol=CLOSE, rtol=0)
        np.testing.assert_allclose(found.metadata["low_res"], logits, atol=CLOSE, rtol=0)
        assert (found.mask != masks).mean() < 1e-3

    def test_half_precision_stays_near(self, folder: Path, model: Any, picture: Image) -> None:
        request = SegmentRequest.of(image=picture, **PROMPTS["a click"])
        half = kit.opened(folder, engine=model.settings.engine, precision="bf16")
        exact, near = kit.run(model, request), kit.run(half, request)
        np.testing.assert_allclose(
            np.sort(near.metadata["low_res"], axis=0), np.sort(exact.metadata["low_res"], axis=0), atol=0.5, rtol=0
        )
        np.testing.assert_allclose(near.confidence, exact.confidence, atol=0.02, rtol=0)

    @pytest.mark.parametrize("engine", ["torch", "openvino"])
    def test_half_precision_moves_no_click(self, folder: Path, plain: Any, engine: str) -> None:
        networks = kit.opened(folder, engine=engine, precision="bf16").networks
        points = np.random.default_rng(0).uniform(0, SIDE, (1, 50, 2)).astype(np.float32)
        with torch.no_grad():
            right = plain.prompt_encoder.shared_embedding((torch.from_numpy(points)[None] + 0.5) / SIDE)[0]
        np.testing.assert_allclose(networks._sines(points), right, atol=1e-5)

    def test_several_objects_are_what_each_is_alone(self, model: Any, picture: Image) -> None:
        said = [PROMPTS[name] for name in ("a box", "two clicks", "a mask", "a box and a click")]
        together = kit.run(model, SegmentRequest.of(image=picture, objects=said))
        assert sorted(together.data["object"].tolist()) == [0, 1, 2, 3]
        for number, one in enumerate(said):
            alone = kit.run(model, SegmentRequest.of(image=picture, **one))
            (row,) = np.flatnonzero(together.data["object"] == number)
            np.testing.assert_allclose(together.metadata["low_res"][row], alone.metadata["low_res"][0], atol=CLOSE)

    @torch.no_grad()
    def test_an_unstable_mask_gives_way_to_the_best_of_the_others(self, plain: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = (
            torch.randn(40, 1, 4, 16, 16, generator=generator) * torch.rand(40, 1, 1, 1, 1, generator=generator) * 9
        )
        iou = torch.rand(40, 1, 4, generator=generator)
        masks, scores = plain.mask_decoder._dynamic_multimask_via_stability(logits, iou)
        numbers = spec.read(written(plain), "tiny")
        chosen = clear(Found(logits[:, 0].numpy(), iou[:, 0].numpy(), np.zeros((40, 1)), None), numbers)
        assert {0} < set(chosen)
        np.testing.assert_array_equal(scores[:, 0, 0], iou[np.arange(40), 0, chosen])
        np.testing.assert_array_equal(masks[:, 0, 0], logits[np.arange(40), 0, chosen])

    def test_everything_is_what_the_clicks_of_a_grid_give(
        self, model: Any, picture: Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Masks of noise are not stable; the generator's own thresholds are tested with the kit.
        asked = Everything(points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1)
        monkeypatch.setattr(Everything, "of", lambda request, **family: asked)
        found = kit.run(model, SegmentRequest.of(image=picture, mode="everything"))
        assert len(found) > 3
        for mask, score, number in zip(found.mask, found.confidence, found.data["object"], strict=True):
            point = ((number % 3 + 0.5) * WIDTH / 3, (number // 3 + 0.5) * HEIGHT / 3)
            click = kit.run(model, SegmentRequest.of(image=picture, points=[point]))
            nearest = int(np.argmin(np.abs(click.confidence - score)))
            assert click.confidence[nearest] == pytest.approx(score, abs=CLOSE)
            assert (click.mask[nearest] != mask).mean() < 1e-3

    def test_a_checkpoint_for_pictures_serves_pictures_only(self, pictures: Path, picture: Image) -> None:
        still = kit.opened(pictures)
        assert set(still.row.tasks) == {"segment"}
        assert len(kit.run(still, SegmentRequest.of(image=picture, box=(20, 10, 50, 40)))) == 1
        with pytest.raises(UnsupportedError, match="for pictures, without the memory of a video"):
            kit.run(still, TrackRequest.of(video=sam2_tiny.frames(2), points=[(5, 5)]))


def written(plain: Any) -> dict[str, Path]:
    """The config of a model, as files."""
    folder = Path(plain.name_or_path)
    return {path.name: path for path in folder.iterdir()}


ANSWERS: dict[str, list[dict[str, Any]]] = {
    "a click and a box": [{"points": [centre(3)]}, {"box": block(3)}],
    "a mask and two clicks": [{"mask": disc(3)}, {"points": [centre(3)], "background_points": [(60, 40)]}],
}


def session_of(folder: Path, video: np.ndarray) -> Any:
    """A video opened by plain transformers."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    tensors = torch.cat([ours(frame, folder) for frame in video])
    return Sam2VideoInferenceSession(tensors, HEIGHT, WIDTH, dtype=torch.float32)


def followed(plain: Any, folder: Path, video: np.ndarray, at: int, said: list[dict[str, Any]]) -> dict[int, Any]:
    """Logits at the video's size and scores of each frame, of plain transformers: forwards, then backwards."""
    state = session_of(folder, video)
    for number, one in enumerate(said, 1):
        index = state.obj_id_to_idx(number)
        if "mask" in one:
            mask = torch.from_numpy(one["mask"])[None, None].float()
            share = F.interpolate(mask, (SIDE, SIDE), mode="bilinear", antialias=True)
            state.add_mask_inputs(index, at, (share >= 0.5).float())
            continue
        places = [*np.reshape(one.get("box", ()), (-1, 2)), *one.get("points", ()), *one.get("background_points", ())]
        labels = (
            [2, 3] * ("box" in one) + [1] * len(one.get("points", ())) + [0] * len(one.get("background_points", ()))
        )
        given = {"point_coords": scaled(places)[None, None], "point_labels": torch.tensor(labels)[None, None]}
        state.add_point_inputs(index, at, given)
    state.obj_with_new_inputs = list(range(1, len(said) + 1))
    plain(state, frame_idx=at)
    found = {}
    for reverse in (False, True):
        for out in plain.propagate_in_video_iterator(state, start_frame_idx=at, reverse=reverse):
            if not (reverse and out.frame_idx == at):
                logits = F.interpolate(out.pred_masks, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
                found[out.frame_idx] = logits[:, 0].numpy(), out.object_score_logits[:, 0].numpy()
    return found


def same(tracks: Any, found: dict[int, Any], count: int) -> int:
    """Hold tracks to those of the reference; gives how many objects were out of sight."""
    hidden = 0
    assert [frame.index for frame in tracks.frames] == sorted(found)
    for frame in tracks.frames:
        logits, scores = found[frame.index]
        seen = {one.tracker_id: one for one in frame.objects}
        for number in range(1, count + 1):
            if scores[number - 1] <= 0:
                assert number not in seen
                hidden += 1
                continue
            one = seen[number]
            assert one.score == pytest.approx(1 / (1 + np.exp(-scores[number - 1])), abs=10 * CLOSE)
            mask = from_rle(one.mask)
            assert mask.any()
            unsure = np.abs(logits[number - 1]) < CLOSE
            np.testing.assert_array_equal(mask[~unsure], (logits[number - 1] > 0)[~unsure])
            down, across = np.nonzero(mask)
            assert one.box == (across.min(), down.min(), across.max() + 1, down.max() + 1)
    return hidden


class TestVideos:
    @pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS)
    def test_tracks_are_those_of_transformers_frame_by_frame(
        self, model: Any, plain: Any, folder: Path, said: list[dict[str, Any]]
    ) -> None:
        video = sam2_tiny.frames()
        tracks = kit.run(model, TrackRequest.of(video=video, frame=3, objects=said))
        hidden = same(tracks, followed(plain, folder, video, 3, said), len(said))
        assert 0 < hidden < 12  # both happen: in sight and out of it
        assert tracks.ids == (1, 2)

    def test_sam_2_without_what_2_1_added(self, tmp_path: Path) -> None:
        from transformers import Sam2VideoModel

        folder = sam2_tiny.save(sam2_tiny.video_model(newer=False, seed=3), tmp_path / "older")
        said, video = ANSWERS["a click and a box"], sam2_tiny.frames(6)
        tracks = kit.run(kit.opened(folder), TrackRequest.of(video=video, frame=3, objects=said))
        same(tracks, followed(Sam2VideoModel.from_pretrained(folder).eval(), folder, video, 3, said), 2)

    def test_half_precision_stays_near(self, folder: Path) -> None:
        request = TrackRequest.of(video=sam2_tiny.frames(4), mask=disc(0))
        exact, near = (kit.run(kit.opened(folder, precision=one), request) for one in ("f32", "bf16"))
        for one, other in zip(exact, near, strict=True):
            if len(one) and len(other):
                both, either = one.mask[0] & other.mask[0], one.mask[0] | other.mask[0]
                assert both.sum() / either.sum() > 0.7

    def test_a_long_video_takes_no_more_memory_than_a_short_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, trackers, encoded = kit.opened(folder), [], []
        make, encode = model._tracker, Networks.encode
        monkeypatch.setattr(model, "_tracker", lambda video: trackers.append(make(video)) or trackers[0])
        monkeypatch.setattr(Networks, "encode", lambda self, x: encoded.append(1) or encode(self, x))
        context = Context()
        tracks = next(model.run([TrackRequest.of(video=sam2_tiny.frames(40), frame=30, points=[(30, 20)])], context))
        (bank,) = trackers[0]._banks.values()
        assert len(tracks) == 40
        assert len(encoded) == 40
        assert len(bank.followed) <= 3 * model.spec.reach
        assert len(bank.prompted) == 1
        assert context.store.stats().memory_items == 1  # of passing frames nothing is kept

    def test_it_says_how_far_it_is_and_stops_when_told(self, folder: Path) -> None:
        model, told = kit.opened(folder), []
        request = TrackRequest.of(video=sam2_tiny.frames(4), frame=2, points=[(30, 20)])
        context = Context(progress=lambda share, line: told.append((share, line)))
        next(model.run([request], context))
        assert [share for share, _ in told] == [0.25, 0.5, 0.75, 1.0]
        assert told[-1][1] == "frame 4 of 4"
        stopping = Context(progress=lambda share, line: stopping.cancel.set())
        with pytest.raises(ManylensError, match="cancelled"):
            next(model.run([request], stopping))


def outputs(folder: Path, plain: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """What a parity test compares, pictures and videos together; one module takes the tensors of each folder."""
    plain.load_state_dict(load_file(folder / "model.safetensors"))
    monkeypatch.setattr(Networks, "load", lambda self: plain)
    model = kit.opened(folder)
    image, video = sam2_tiny.frames(1)[0], sam2_tiny.frames(3)
    asked = [PROMPTS[name] for name in ("a click", "a box", "a mask")]
    answer = kit.run(model, SegmentRequest.of(image=image, objects=asked))
    found = {"logits": answer.metadata["low_res"], "scores": answer.confidence}
    seen = []
    follow = Tracker._tracked

    def spy(self: Tracker, number: int, one: Any) -> Any:
        seen.append(np.array([one.there, *one.low_res.ravel()]))
        return follow(self, number, one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "_tracked", spy)
        kit.run(model, TrackRequest.of(video=video, frame=1, objects=[{"points": [centre(1)]}, {"mask": disc(1)}]))
    return found | {"video": np.stack(seen)}


def test_every_group_of_parameters_matters(
    folder: Path, tmp_path: Path, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A bias of keys adds the same to all logits of a softmax, but where rotary places turn the keys after it. The
    # place in time of "no memory" is in the checkpoints and used by no one.
    rightly = r"mask_decoder\.transformer\..*k_proj\.bias|no_memory_positional_encoding"
    try:
        missed = kit.unnoticed(folder, tmp_path, lambda at: outputs(at, plain, monkeypatch), CLOSE, skip=rightly)
    finally:
        plain.load_state_dict(load_file(folder / "model.safetensors"))
    assert missed == []


def changed(folder: Path, target: Path, **config: Any) -> Path:
    """A copy of a checkpoint whose config says something else."""
    shutil.copytree(folder, target)
    about = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(about | config))
    return target


class TestOpenVideo:
    @pytest.fixture
    def session(self, tmp_path: Path) -> Any:
        with Session(home=tmp_path, engine="torch") as session:
            yield session

    def test_what_is_added_and_followed_is_what_one_request_gives(self, session: Session, folder: Path) -> None:
        video = sam2_tiny.frames(5)
        with session.open("track", video, model=str(folder)) as opened:
            first = opened.state.add(2, points=[centre(2)])
            opened.state.add(2, box=block(2))
            assert opened.state.ids == (1, 2)
            assert first.mask is not None
            tracks = opened.state.tracks()
        request = TrackRequest.of(video=video, frame=2, objects=[{"points": [centre(2)]}, {"box": block(2)}])
        whole = session.run(request, model=str(folder))
        assert tracks.frames == whole.frames
        assert tracks.provenance.model == whole.provenance.model

    def test_a_click_corrects_a_frame_and_what_follows(self, session: Session, folder: Path) -> None:
        with session.open("track", sam2_tiny.frames(6), model=str(folder)) as opened:
            state = opened.state
            state.add(0, mask=disc(0))
            before = list(state.propagate())
            corrected = state.add(3, points=[centre(3)], background_points=[(5, 40)], tracker_id=1)
            after = list(state.propagate(3))
            assert [frame.index for frame in before] == [0, 1, 2, 3, 4, 5]
            assert [frame.index for frame in after] == [3, 4, 5]
            np.testing.assert_array_equal(after[0].detections(SIZE).mask, corrected.mask)
            assert after[0] != before[3]
            assert after[1:] != before[4:]
            again = state.add(3, points=(30, 30), tracker_id=1)  # adds to the clicks that are there
            assert not np.array_equal(again.mask, corrected.mask)
            assert [frame.index for frame in state.propagate(3, reverse=True)] == [2, 1, 0]
            state.remove(1)
            assert state.ids == ()

    @pytest.mark.parametrize(("start", "frame", "reverse"), [(0, 3, False), (5, 3, True), (0, 0, False)])
    @torch.no_grad()
    def test_a_correction_is_that_of_the_reference_given_the_mask_and_the_memory(
        self, session: Session, folder: Path, plain: Any, start: int, frame: int, reverse: bool
    ) -> None:
        """Meta's predictor gives what was found in the frame to the decoder, and looks back the way it was followed."""
        video, again = sam2_tiny.frames(6), [centre(frame), (60, 40)]
        state = session_of(folder, video)
        index = state.obj_id_to_idx(1)
        first = {
            "point_coords": scaled([centre(start)])[None, None],
            "point_labels": torch.tensor([[[1]]]),
        }
        state.add_point_inputs(index, start, first)
        state.obj_with_new_inputs = [1]
        plain(state, frame_idx=start)
        for _ in plain.propagate_in_video_iterator(state, start_frame_idx=start, reverse=reverse):
            pass
        kind = "cond_frame_outputs" if frame == start else "non_cond_frame_outputs"
        before = state.output_dict_per_obj[index][kind][frame]["pred_masks"].clamp(-32, 32)
        right = plain._run_single_frame_inference(
            state,
            frame_idx=frame,
            obj_idx=index,
            batch_size=1,
            is_init_cond_frame=frame == start,
            point_inputs={"point_coords": scaled(again)[None, None], "point_labels": torch.tensor([[[1, 0]]])},
            mask_inputs=None,
            reverse=reverse,
            prev_sam_mask_logits=before,
        )
        with session.open("track", video, model=str(folder)) as opened:
            opened.state.add(start, points=[centre(start)])
            list(opened.state.propagate(reverse=reverse))
            points = again[:1] if frame != start else []
            opened.state.add(frame, points=points, background_points=[(60, 40)], tracker_id=1)
            found = opened.state._tracker._banks[1].prompted[frame].seen
        assert found.there == pytest.approx(float(right["object_score_logits"]), abs=10 * CLOSE)
        assert (before > -32).any()
        np.testing.assert_allclose(found.low_res, right["pred_masks"][0, 0], atol=CLOSE)

    def test_what_is_found_in_a_frame_does_not_remember_itself(self) -> None:
        kept = Memory(np.zeros((4, 2), np.uint16), np.zeros(2, np.float32), Seen(np.zeros((4, 4), np.float32), 1.0))
        processor = Processor.of({}, "tiny", 8)
        numbers = spec.Spec(True, 8, 2, 4, 0.05, None, 7, 16, -1, True, True, (0, 1), processor)
        recalled = Bank(prompted={0: kept, 3: kept}).recall(3, 1, 6, numbers)
        assert len(recalled.memory) == len(recalled.pointers) == 1

    @pytest.mark.parametrize(
        ("act", "line"),
        [
            (lambda state: list(state.propagate()), "track: no prompt for frames"),
            (lambda state: state.tracks(), "track: no prompt for frames"),
            (lambda state: state.add(9, points=[(1, 1)]), "has no frame 9"),
            (lambda state: state.add(0, points=[(1, 1)], tracker_id=4), "there is no object 4"),
            (lambda state: state.add(0, points=[(99, 1)]), "99"),
            (lambda state: state.add(0), "no prompt"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, session: Session, folder: Path, act: Any, line: str) -> None:
        with session.open("track", sam2_tiny.frames(2), model=str(folder)) as opened:
            with pytest.raises(PromptError, match=line) as caught:
                act(opened.state)
            assert "\n" not in str(caught.value)


class TestBadInput:
    @pytest.mark.parametrize(
        ("asked", "line"),
        [
            (lambda: TrackRequest.of(video=[], points=[(1, 1)]), "has no frames"),
            (lambda: TrackRequest.of(video=sam2_tiny.frames(2), frame=2, points=[(1, 1)]), "has no frame 2"),
            (lambda: TrackRequest.of(video=sam2_tiny.frames(2), mask=np.ones((9, 9), bool)), "is 9x9 pixels"),
            (lambda: TrackRequest.of(video=sam2_tiny.frames(2), mask=np.zeros((48, 80), bool)), "is empty"),
            (lambda: SegmentRequest.of(image=sam2_tiny.frames(1)[0], points=[(1, 1)], previous=np.ones((9, 9))), "9x9"),
        ],
    )
    def test_one_line_names_what_is_wrong(self, folder: Path, asked: Any, line: str) -> None:
        with pytest.raises(ManylensError, match=line) as caught:
            kit.run(kit.opened(folder), asked())
        assert "\n" not in str(caught.value)

    def test_a_video_whose_size_changes_stops_there(self, folder: Path) -> None:
        video = [*sam2_tiny.frames(2), np.zeros((20, 20, 3), np.uint8)]
        with pytest.raises(ManylensError, match="frame 2 is 20 x 20, the first 80 x 48"):
            kit.run(kit.opened(folder), TrackRequest.of(video=video, points=[(1, 1)]))

    def test_a_video_that_is_cut_in_the_middle_stops_there(self, folder: Path, tmp_path: Path) -> None:
        av = pytest.importorskip("av")
        path = tmp_path / "moving.mp4"
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height = SIZE
            for frame in np.repeat(sam2_tiny.frames(8), 4, axis=0):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.array(frame), format="rgb24")))
            container.mux(stream.encode())
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(ManylensError, match="cut in the middle"):
            kit.run(kit.opened(folder), TrackRequest.of(video=Video.of(path), points=[(30, 20)]))

    @pytest.mark.parametrize(
        ("config", "line"),
        [
            ({"prompt_encoder_config": {"hidden_size": 128, "image_size": [64, 32]}}, "not that of a square"),
            ({"prompt_encoder_config": {"hidden_size": 128, "image_size": 2 * SIDE}}, "for the encoder and of"),
            ({"enable_occlusion_spatial_embedding": False}, "occlusion_spatial_embedding_parameter"),
            ({"model_type": "sam9"}, "sam9"),
        ],
    )
    def test_a_config_that_does_not_fit(self, folder: Path, tmp_path: Path, config: Any, line: str) -> None:
        target = changed(folder, tmp_path / "other", **config)
        with pytest.raises((WeightsError, UnsupportedError), match=line):
            kit.run(kit.opened(target), TrackRequest.of(video=sam2_tiny.frames(2), points=[(1, 1)]))

    @pytest.mark.parametrize(
        ("values", "line"),
        [
            ({"size": {"height": 9, "width": 9}}, "makes pictures of 9x9"),
            ({"image_std": [0.0, 1.0, 1.0]}, "image_std"),
            ({"resample": 99}, "resample 99"),
        ],
    )
    def test_a_processor_that_does_not_fit(self, folder: Path, tmp_path: Path, values: Any, line: str) -> None:
        shutil.copytree(folder, tmp_path / "other")
        (tmp_path / "other" / "preprocessor_config.json").write_text(json.dumps(values))
        with pytest.raises((WeightsError, UnsupportedError), match=line):
            kit.opened(tmp_path / "other")

    def test_what_the_processor_leaves_out_is_not_done(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "other")
        (tmp_path / "other" / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
        picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        found = spec.prepared(picture, spec.read({p.name: p for p in (tmp_path / "other").iterdir()}, "tiny"))
        np.testing.assert_allclose(found[0], picture.transpose(2, 0, 1) / np.float32(255), atol=1e-6)


AGAIN = """
import sys
from manylens.session import Session
from manylens.tasks import request
with Session(home=sys.argv[1], engine="openvino", precision="f32") as session:
    found = session.run(request("segment", image=sys.argv[3], points=[(200, 150)]), model=sys.argv[2])
assert not {"torch", "transformers"} & set(sys.modules), "torch was loaded"
print(found.metadata["provenance"].cache, len(found))
"""


def test_a_second_visit_needs_neither_the_encoder_nor_torch(folder: Path) -> None:
    home, photo = Path(os.environ["MANYLENS_HOME"]), EXAMPLES / "cat.jpg"
    with Session(home=home, engine="openvino", precision="f32") as session:
        found = session.run(SegmentRequest.of(image=photo, points=[(200, 150)]), model=str(folder))
        assert found.mask.shape[1:] == Image.of(photo).array.shape[:2]
        assert found.metadata["provenance"].cache == "miss"
    command = [sys.executable, "-c", AGAIN, str(home), str(folder), str(photo)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.stdout.split() == ["disk", str(len(found))], told.stderr


def test_the_weights_are_read_once_for_all_pieces(
    folder: Path, picture: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    load = Networks.load
    monkeypatch.setattr(Networks, "load", lambda self: loaded.append(1) or load(self))
    for number, asked in enumerate(
        (
            SegmentRequest.of(image=picture, points=[(30, 20)]),
            TrackRequest.of(video=sam2_tiny.frames(2), mask=disc(0)),
        )
    ):
        monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / str(number)))
        loaded.clear()
        kit.run(kit.opened(folder, engine="openvino"), asked)
        assert loaded == [1]


def test_it_opens_for_training(folder: Path, picture: Image) -> None:
    opened = kit.opened(folder).trainable()
    assert {"encoder", "prompt_encoder", "decoder"} == opened.parts.keys()
    pixels = opened.preprocess([picture, picture]).requires_grad_(True)
    out = opened.forward(pixels)
    assert out["dense"].shape == (2, 4, 4, 128)
    np.testing.assert_allclose(out["image"].norm(dim=-1).detach(), 1, atol=1e-5)
    out["image"].sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert all(any(name.endswith(one) for name, _ in opened.module.named_modules()) for one in opened.lora_targets)


def test_the_probe_gives_features(model: Any) -> None:
    features = model.probe()()
    assert features.shape == (1, 4, 4, 128)
    assert np.isfinite(features).all()


PUBLISHED = {"tiny": (38.9, 12, 96), "small": (46.0, 16, 96), "base-plus": (80.8, 24, 112), "large": (224.4, 48, 144)}
"""Millions of parameters as Meta's own table has them, blocks, and channels of the first stage."""


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("facebook--sam2*-hiera-*.json")))
def test_a_published_checkpoint_has_these_tensors(name: str, tmp_path: Path) -> None:
    from transformers import Sam2VideoConfig, Sam2VideoModel

    about = CONFIGS / f"{name}.json"
    config = Sam2VideoConfig(**json.loads(about.read_text()))
    with torch.device("meta"):
        made = Sam2VideoModel(config)
        pieces = [
            piece(made)
            for piece in (
                parts.Encoder,
                parts.MaskDecoder,
                parts.MemoryAttention,
                parts.MemoryEncoder,
                parts.MaskShrinker,
            )
        ]
    state = made.state_dict(keep_vars=True)
    millions, blocks, channels = PUBLISHED[name.split("-hiera-")[1]]
    assert sum(tensor.numel() for tensor in state.values()) / 1e6 == pytest.approx(millions, rel=0.005)
    assert len(made.vision_encoder.backbone.blocks) == blocks
    places = {"base-plus": 14}.get(name.split("-hiera-")[1], 7)
    assert state["vision_encoder.backbone.pos_embed"].shape == (1, channels, places, places)
    row = next(row for row in Catalog.load() if row.id == name.replace("--", "/"))
    assert row.bytes == pytest.approx(sum(tensor.numel() * 4 for tensor in state.values()), rel=0.01)

    # The pieces use every tensor; these few are read by themselves, and nobody uses the last.
    used = {id(tensor) for piece in pieces for tensor in (*piece.parameters(), *piece.buffers())}
    apart = {"no_memory_embedding", "no_object_pointer", "shared_image_embedding.positional_embedding"}
    left = {key for key, tensor in state.items() if id(tensor) not in used}
    assert left == apart | {"no_memory_positional_encoding"}
    newer = "sam2.1" in name
    assert ("occlusion_spatial_embedding_parameter" in state) == newer
    assert ("temporal_positional_encoding_projection_layer.weight" in state) == newer

    shutil.copy(about, tmp_path / "config.json")
    numbers = spec.read({"config.json": tmp_path / "config.json"}, name)
    assert (numbers.video, numbers.side, numbers.cells, numbers.low_res) == (True, 1024, 64, 256)
    assert numbers.memories == config.num_maskmem
    assert numbers.pointers == config.max_object_pointers_in_encoder
    assert numbers.most_prompted == config.max_cond_frame_num
    assert numbers.several == config.multimask_output_in_sam
    assert numbers.several_tracked == config.multimask_output_for_tracking
    assert numbers.several_points == (config.multimask_min_pt_num, config.multimask_max_pt_num)
    assert numbers.stability_delta == config.mask_decoder_config.dynamic_multimask_stability_delta
    assert numbers.stability_least == config.mask_decoder_config.dynamic_multimask_stability_thresh
