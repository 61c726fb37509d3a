"""Two processes that share a batch give what one gives that has it all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from manylens.training.selfsupervised import masking, objectives
from manylens.training.selfsupervised.crops import CropOptions, Crops, MultiCrop
from manylens.training.selfsupervised.dino import Dino, DinoOptions
from manylens.training.selfsupervised.objectives import Centre
from manylens.training.selfsupervised.recipe import WithoutLabels
from tests.training import two_processes
from tests.training.selfsupervised.made_up import MEAN, STD, textures, tower

PICTURES = 6


def computed(chosen: torch.Tensor) -> dict[str, torch.Tensor]:
    """Centres, balanced answers and gradients, of some pictures of the batch."""
    found: dict[str, torch.Tensor] = {}
    logits = torch.randn(PICTURES, 5, generator=torch.Generator().manual_seed(0))
    centre = Centre(5)
    centre.update(logits[chosen])
    found |= {"centre": centre.mean, "gathered": objectives.gathered(chosen)}
    found["balanced"] = objectives.gathered(objectives.sinkhorn(logits[chosen], 0.5))
    multi = MultiCrop(CropOptions(side=24, local_side=16, locals=2))
    crops = multi(textures(PICTURES)[0], multi.numbers(PICTURES, torch.Generator().manual_seed(1)))
    large, small = (one.unflatten(0, (2, PICTURES))[:, chosen].flatten(0, 1) for one in crops)
    for centring in ("centre", "sinkhorn"):
        torch.manual_seed(0)
        options = DinoOptions(prototypes=16, hidden=16, bottleneck=8, centring=centring, ibot=1.0, koleo=0.0)
        net = Dino(tower(), MEAN, STD, options)
        numbers = torch.rand(2, PICTURES, masking.RECTANGLES + 1, 4, generator=torch.Generator().manual_seed(2))
        masks = options.masks(numbers[:, chosen].flatten(0, 1), (3, 3))
        net(Crops(large, small), 0.05, masks)["loss"].backward()
        gradients = [one.grad.flatten() for one in net.parameters() if one.grad is not None]
        found[f"gradient {centring}"] = objectives.summed(torch.cat(gradients)) / (PICTURES / len(chosen))
        found[f"mean {centring}"] = net.centre.mean
    return found


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distribution")
def test_two_processes_agree_with_one(tmp_path: Path):
    whole = computed(torch.arange(PICTURES))
    for rank, part in enumerate(two_processes.parts(computed, PICTURES, tmp_path)):
        assert part.keys() == whole.keys()
        for name, one in whole.items():
            assert torch.allclose(part[name].float(), one.float(), atol=2e-5), (rank, name)


class Judged(WithoutLabels):
    """A recipe that does nothing but judge."""

    encoder = None

    def __init__(self) -> None:
        self._met, self._answers, self._judges = {}, [], self
        self.pictures: list[int] = []

    def judged(self, pixels):
        return pixels, None

    def accuracy(self, numbers, vectors):
        self.pictures = numbers.tolist()
        return float(vectors[:, 0].sum())

    def train_source(self):
        raise NotImplementedError

    def loss(self, batch, step):
        raise NotImplementedError


def judging(rank: int, folder: str) -> None:
    """Five pictures on two processes: the first has one more, in a step of its own."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    recipe = Judged()
    for numbers in ([[0, 1], [4]], [[2, 3]])[rank]:
        chosen = torch.tensor(numbers)
        recipe.judge({"pixels": chosen[:, None] + torch.arange(3.0), "number": chosen})
    torch.save((recipe.figures()["knn"], recipe.pictures), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distribution")
def test_processes_that_have_not_as_many_pictures_judge_all_of_them(tmp_path: Path):
    torch.multiprocessing.spawn(judging, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == (10.0, [0, 1, 2, 3, 4])
