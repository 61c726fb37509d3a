"""The promptable head against transformers' own SAM modules, and its guides against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from manylens.errors import UnsupportedError
from manylens.models.adapted.heads.guides import MAPS, keys, maps
from manylens.models.adapted.heads.promptable import Doubled, Promptable, Prompts

SIZE = (48, 48)
OPTIONS: dict[str, Any] = {"width": 32, "heads": 4, "hidden": 48, "mixing": 1}


def head(**options: Any) -> Promptable:
    torch.manual_seed(0)
    made = Promptable({"dense": 12, "block.1": 20}, **{**OPTIONS, **options})
    return made.eval().requires_grad_(False)


def features(pictures: int = 2, shape: tuple[int, int] = (6, 6)) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(1)
    return {
        "dense": torch.randn(pictures, *shape, 12, generator=made),
        "block.1": torch.randn(pictures, *shape, 20, generator=made) * 5,
    }


def prompts(count: int = 4, masks: bool = False, shape: tuple[int, int] = (24, 24)) -> Prompts:
    """Half of them clicks, half of them boxes, with two more clicks each."""
    made = torch.Generator().manual_seed(2)
    labels = torch.tensor([[1, 1, 0, -1], [2, 3, 0, 1]]).repeat(count // 2, 1)
    points = torch.rand(count, 4, 2, generator=made) * 40
    logits = torch.randn(count, 1, *shape, generator=made) * 3 if masks else None
    return Prompts(points, labels, torch.arange(count) % 2, logits)


# ------------------------------------------------------------------ the decoder is SAM's


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_it_answers_as_transformers_own_modules_do(masks, several):
    made, asked = head(guided=False), prompts(masks=masks)
    found = made(features(), SIZE, asked)
    embedding = made.embed(features()).picture
    for number in range(len(asked.labels)):
        logits = None if asked.masks is None else asked.masks[number : number + 1]
        expected = by_transformers(made, embedding[asked.picture[number]], asked, number, logits, several)
        kept = slice(1, None) if several else slice(0, 1)
        torch.testing.assert_close(found["masks"][number, kept], expected[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found["iou"][number, kept], expected[1], atol=1e-5, rtol=1e-4)


def by_transformers(
    made: Promptable, embedding: Tensor, asked: Prompts, number: int, logits: Any, several: bool
) -> Any:
    encoder: Any = made.prompt_encoder
    labels, points = asked.labels[number], asked.points[number]
    encoder.input_image_size = SIZE[0]
    encoder.image_embedding_size = embedding.shape[-2:]
    boxed = bool((labels == 2).any())
    clicks = labels >= 0 if not boxed else (labels == 0) | (labels == 1)
    sparse, dense = encoder(
        input_points=points[clicks][None, None],
        input_labels=labels[clicks][None, None],
        input_boxes=points[labels >= 2].reshape(1, 1, 4) if boxed else None,
        input_masks=logits,
    )
    where = by_hand(encoder, embedding.shape[-1])
    decoder: Any = made.mask_decoder
    found = decoder(embedding[None], where, sparse, dense, multimask_output=several)
    return found[0][0, 0], found[1][0, 0]


def by_hand(encoder: Any, grid: int) -> Tensor:
    """The middle of each cell, one after the other."""
    middles = [[((x + 0.5) / grid, (y + 0.5) / grid) for x in range(grid)] for y in range(grid)]
    return encoder.shared_embedding(torch.tensor([middles])).permute(0, 3, 1, 2)


@pytest.mark.parametrize("guided", [False, True])
def test_each_prompt_is_answered_for_itself_and_on_its_own_picture(guided):
    made, asked = head(guided=guided), prompts(masks=True)
    together = made(features(), SIZE, asked)
    for number in range(len(asked.labels)):
        rows = slice(number, number + 1)
        alone = Prompts(asked.points[rows], asked.labels[rows], torch.zeros(1, dtype=torch.long), asked.masks[rows])
        picture = {name: one[asked.picture[rows]] for name, one in features().items()}
        for name, one in made(picture, SIZE, alone).items():
            torch.testing.assert_close(together[name][rows], one, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together["masks"][0], together["masks"][2], atol=1e-2)  # the test can fail


@pytest.mark.parametrize("guided", [False, True])
def test_only_where_a_point_lies_in_the_picture_matters(guided):
    made, asked = head(guided=guided), prompts()
    twice = asked._replace(points=(asked.points + 0.5) * torch.tensor([2.0, 3.0]) - 0.5)
    one, other = made(features(), SIZE, asked), made(features(), (3 * SIZE[0], 2 * SIZE[1]), twice)
    torch.testing.assert_close(one["masks"], other["masks"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "shape", "expected"),
    [
        ({}, (6, 6), (24, 24)),
        ({"finer": 2}, (6, 6), (48, 48)),
        ({}, (3, 5), (12, 20)),
        ({"features": ("dense", "block.1")}, (6, 6), (24, 24)),
    ],
)
def test_masks_have_four_logits_a_cell(options, shape, expected):
    made = head(**options)
    found = made({name: one.half() for name, one in features(shape=shape).items()}, SIZE, prompts())
    assert found["masks"].shape == (4, 4, *expected)
    assert found["iou"].shape == (4, 4)
    assert found["masks"].dtype == torch.float32
    assert made.low_res(made.embed(features(shape=shape))) == expected


def test_every_map_that_is_asked_for_is_looked_at():
    made = head(features=("dense", "block.1"))
    before = made(features(), SIZE, prompts())["masks"]
    for name in made.needs:
        changed = features()
        changed[name] = changed[name].flip(1)
        assert not torch.allclose(before, made(changed, SIZE, prompts())["masks"], atol=1e-2)


def test_a_mask_alone_is_a_prompt():
    asked = prompts(masks=True)
    bare = asked._replace(points=asked.points[:, :0], labels=asked.labels[:, :0])
    padded = asked._replace(points=asked.points[:, :1] * 0, labels=torch.full((4, 1), -1))
    made = head()
    torch.testing.assert_close(made(features(), SIZE, bare), made(features(), SIZE, padded))


def test_all_parameters_learn_but_the_frequencies():
    made = head().requires_grad_(True)
    for parameter in made.prompt_encoder.shared_embedding.parameters():
        parameter.requires_grad_(False)
    for masks in (False, True):
        found = made(features(), SIZE, prompts(masks=masks))
        (found["masks"].square().mean() + found["iou"].square().mean()).backward()
    still = [
        name for name, one in made.named_parameters() if one.requires_grad and (one.grad is None or not one.grad.any())
    ]
    assert [name for name in still if "k_proj.bias" not in name] == []  # softmax does not see the bias of the keys
    fresh = Promptable({"dense": 12}, **OPTIONS)
    assert [name for name, one in fresh.named_parameters() if not one.requires_grad] == [
        "prompt_encoder.shared_embedding.positional_embedding"
    ]


@pytest.mark.parametrize("options", [{"width": 36}, {"width": 40, "heads": 3}, {"finer": 3}])
def test_numbers_that_do_not_go_together_are_refused(options):
    with pytest.raises(UnsupportedError, match="promptable head"):
        Promptable({"dense": 12}, **options)


# ------------------------------------------------------------------ guides


def test_maps_of_prompts_are_those_of_plain_loops():
    random = np.random.default_rng(0)
    rows, columns, count = 4, 6, 3
    table = torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(count, 5, rows, columns))), dim=1)
    points = torch.from_numpy(random.random((count, 4, 2)))
    labels = torch.tensor([[1, 0, 1, -1], [2, 3, 0, 1], [1, -1, -1, -1]])
    points[1, 0], points[1, 1] = torch.tensor([0.2, 0.3]), torch.tensor([0.7, 0.9])
    found = maps(table, points, labels).numpy()
    assert found.shape == (count, MAPS, rows, columns)
    for number in range(count):
        expected = loops(table[number].numpy(), points[number].numpy(), labels[number].tolist())
        np.testing.assert_allclose(found[number], expected, atol=1e-5)


def loops(table: np.ndarray, points: np.ndarray, labels: list[int]) -> np.ndarray:
    _, rows, columns = table.shape
    made = np.zeros((MAPS, rows, columns))
    made[[1, 3, 5]] = -1
    corner: dict[int, tuple[float, float]] = {}
    cell = lambda x, y: table[:, min(int(y), rows - 1), min(int(x), columns - 1)]  # noqa: E731
    for (x, y), label in zip(points * [columns, rows], labels, strict=True):
        if label in (2, 3):
            corner[label] = (x, y)
        if label in (0, 1):
            first = 0 if label == 1 else 2
            for i in range(rows):
                for j in range(columns):
                    disc = np.exp(-((j + 0.5 - x) ** 2 + (i + 0.5 - y) ** 2) / 2)
                    made[first, i, j] = max(made[first, i, j], disc)
                    made[first + 1, i, j] = max(made[first + 1, i, j], float(cell(x, y) @ table[:, i, j]))
    if corner:
        (x0, y0), (x1, y1) = corner[2], corner[3]
        for i in range(rows):
            for j in range(columns):
                wide, high = min(j + 1, x1) - max(j, x0), min(i + 1, y1) - max(i, y0)
                made[4, i, j] = max(wide, 0) * max(high, 0)
                made[5, i, j] = cell((x0 + x1) / 2, (y0 + y1) / 2) @ table[:, i, j]
        made[6] = 1
    return made


def test_cells_are_compared_without_what_they_all_share():
    shared = torch.full((1, 2, 2, 3), 100.0)
    own = torch.tensor([[[1.0, 0, 0], [1, 0, 0]], [[0, 1, 0], [-2, -1, 0]]])[None]
    found = keys(shared + own, 1)
    assert found.shape == (1, 3, 2, 2)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(1, 2, 2))
    torch.testing.assert_close(found[0, :, 0, 0], found[0, :, 0, 1])
    assert float(found[0, :, 0, 0] @ found[0, :, 1, 1]) < 0


def test_enlarging_leaves_no_chessboard():
    """What is alike is answered alike, whatever the weights; a transposed convolution has four answers to it."""
    torch.manual_seed(0)
    layer = Doubled(8, 4)
    found = layer(torch.randn(2, 8, 1, 1).expand(-1, -1, 6, 6))[..., 1:-1, 1:-1]
    assert found.shape == (2, 4, 10, 10)
    torch.testing.assert_close(found, found[..., :1, :1].expand_as(found))
