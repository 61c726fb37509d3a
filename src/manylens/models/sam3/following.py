"""All that words mean, found in each frame of a video and followed from one to the next.

The association of detections and tracks, their birth, hot start and removal are those of transformers'
``Sam3VideoModel``, which runs on torch; its trunk, which is most of the work, runs on the engine of the settings. Only
the frame that is looked at is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manylens.errors import MediaError
from manylens.media import Video, to_rle
from manylens.models import checkpoint
from manylens.models.promptable import masks as full
from manylens.models.promptable.prompts import Canvas
from manylens.models.sam3.kernels import Kernels
from manylens.models.sam3.networks import Networks
from manylens.models.sam3.spec import Spec
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks.results import Frame, Tracked, Tracks


class Follower:
    """The video model of a checkpoint. Serves one video at a time.

    Args:
        files: The checkpoint's files.
        name: What to call it in an error.
        spec: Its numbers.
        settings: Engine of the trunk, precision, threads and device.
        networks: The pieces, of which the trunk is used.

    Raises:
        WeightsError: The weights are not those of this network.
    """

    def __init__(
        self, files: Mapping[str, Path], name: str, spec: Spec, settings: EngineSettings, networks: Networks
    ) -> None:
        from transformers.models.sam3_video import modeling_sam3_video

        # Left alone, transformers skips this work where the package "kernels" is missing, and fetches code where not.
        video: Any = modeling_sam3_video
        video.cv_utils_kernel = Kernels()
        self._model: Any = checkpoint.load(video.Sam3VideoModel, files, name)
        self._model.detector_model.vision_encoder.backbone = _Trunk(networks, settings.device)
        self._model = self._model.to(settings.device)
        self._session: Any = video.Sam3VideoInferenceSession
        self._spec, self._settings, self._networks = spec, settings, networks

    def run(self, video: Video, asked: Sequence[tuple[str, np.ndarray, int]], ctx: Context) -> Tracks:
        """Follow everything that some words mean.

        Args:
            video: The video.
            asked: Names, their token ids int64 ``(1, L)``, and how many of these are not padding.
            ctx: The context.

        Raises:
            MediaError: The video is cut in the middle or changes its size.
        """
        self._networks.prepare("trunk")  # before half precision is on, under which it cannot be traced
        state = self._opened(video, asked, ctx)
        frames = []
        for found in self._steps(state):
            frames.append(self._frame(found, state, video))
            ctx.progress(len(frames) / video.count, f"frame {len(frames)} of {video.count}")
        return Tracks(frames=tuple(frames), width=video.width, height=video.height, fps=video.fps)

    def _opened(self, video: Video, asked: Sequence[tuple[str, np.ndarray, int]], ctx: Context) -> Any:
        device = self._settings.device
        state = self._session(
            video_height=video.height, video_width=video.width, inference_device=device, dtype=torch.float32
        )
        state.processed_frames = _Frames(video, self._spec, ctx)
        for name, ids, length in asked:
            number = state.add_prompt(name)
            state.prompt_input_ids[number] = torch.from_numpy(ids).to(device)
            state.prompt_attention_masks[number] = (torch.arange(ids.shape[1]) < length).long()[None].to(device)
        return state

    def _steps(self, state: Any) -> Iterator[Any]:
        device = torch.device(self._settings.device).type
        steps = self._model.propagate_in_video_iterator(state)
        while True:
            with torch.autocast(device, torch.bfloat16, enabled=self._settings.precision == "bf16"):
                found = next(steps, None)
            if found is None:
                return
            yield found
            self._forget(state)

    def _forget(self, state: Any) -> None:
        """Drop what no later frame looks back at, so that memory does not grow with the video."""
        config = self._model.tracker_model.config
        latest = state.processed_frames.latest
        oldest = latest - max(config.num_maskmem, config.max_object_pointers_in_encoder)
        for kept in state.output_dict_per_obj.values():
            others = kept["non_cond_frame_outputs"]
            for frame in [frame for frame in others if frame < oldest]:
                del others[frame]
        for told in (state.obj_id_to_tracker_score_frame_wise, state.suppressed_obj_ids):
            for frame in [frame for frame in told if frame < latest]:
                del told[frame]

    def _frame(self, found: Any, state: Any, video: Video) -> Frame:
        """A frame's objects at the video's size; of those of one name, a pixel belongs to the surest."""
        hidden = set(found.suppressed_obj_ids or ()) | state.hotstart_removed_obj_ids
        ids = [one for one in sorted(found.obj_id_to_mask) if one not in hidden]
        if not ids:
            return Frame(found.frame_idx)
        low_res = torch.cat([found.obj_id_to_mask[one] for one in ids]).float().cpu().numpy()
        masks = full.full_size(low_res, Canvas.filled(video.size, low_res.shape[-1]))
        prompts = np.array([state.obj_id_to_prompt_id[one] for one in ids])
        sure = np.array([found.obj_id_to_tracker_score.get(one, 0.0) for one in ids], np.float32)
        for prompt in np.unique(prompts):
            mine = np.flatnonzero(prompts == prompt)
            masks[mine] = _apart(masks[mine], sure[mine])
        boxes = full.boxes(masks)
        objects = [
            Tracked(
                tracker_id=one + 1,
                box=tuple(float(value) for value in box),  # type: ignore[arg-type]
                score=float(found.obj_id_to_score[one]),
                mask=dict(to_rle(mask)),
                name=state.prompts[int(prompt)],
            )
            for one, box, mask, prompt in zip(ids, boxes, masks, prompts, strict=True)
            if mask.any()
        ]
        return Frame(found.frame_idx, tuple(objects))


class _Trunk(torch.nn.Module):
    """The trunk on its engine, where transformers expects its own."""

    def __init__(self, networks: Networks, device: str) -> None:
        super().__init__()
        self._networks, self._device = networks, device

    def forward(self, pixels: torch.Tensor, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        tokens = self._networks.trunk(pixels.float().cpu().numpy())
        return BaseModelOutput(last_hidden_state=torch.from_numpy(tokens).to(self._device))


class _Frames(Mapping[int, torch.Tensor]):
    """The frames of a video as the network takes them, float32 ``(3, side, side)``, made when asked for in order.

    Attributes:
        latest: The frame that was asked for last.
    """

    def __init__(self, video: Video, spec: Spec, ctx: Context) -> None:
        self._video, self._spec, self._ctx = video, spec, ctx
        self._images = video.frames()
        self.latest = -1
        self._pixels = torch.empty(0)

    def __len__(self) -> int:
        return self._video.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __getitem__(self, frame: int) -> torch.Tensor:
        while self.latest < frame:
            self._ctx.check()
            image = next(self._images, None)
            if image is None:
                raise MediaError(f"{self._video.name}: ends at frame {self.latest + 1} of {len(self)}", "give it whole")
            processor = self._spec.processor
            self._pixels = torch.from_numpy(processor.normalised(processor.pixels(image.array)))
            self.latest += 1
        return self._pixels


def _apart(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Masks bool ``(N, H, W)`` of which a pixel that several have is left to the one of the highest score."""
    order = np.argsort(-scores, kind="stable")
    taken = np.zeros(masks.shape[1:], bool)
    apart = np.zeros_like(masks)
    for one in order:
        apart[one] = masks[one] & ~taken
        taken |= masks[one]
    return apart
