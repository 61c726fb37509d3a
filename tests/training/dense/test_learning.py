"""Each head learns four tiny pictures by heart, whose features come from random convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.detection import Detection
from manylens.evaluation.measures.semantic import Semantic
from manylens.media import to_rle
from manylens.models.adapted.heads import readout
from manylens.models.adapted.heads.detection import Detector
from manylens.models.adapted.heads.queries import MaskQueries
from manylens.models.adapted.heads.semantic import LinearSemantic, UPerNet
from manylens.training.balance import losses as balance
from manylens.training.dense.boxes import box_loss
from manylens.training.dense.losses import VOID, class_dice, enlarged
from manylens.training.dense.scenes import Scenes
from manylens.training.dense.sets import SetWeights, set_loss
from manylens.training.dense.store import ObjectStore
from manylens.training.dense.targets import Classes, class_map, objects
from tests.training.dense import made_up
from tests.training.dense.made_up import CATEGORIES, NAMES, SIDE

COUNT, SIZE = 4, (SIDE, SIDE)


@pytest.fixture
def records(tmp_path):
    return made_up.records(COUNT, tmp_path)


@pytest.fixture(scope="module")
def encoder():
    return made_up.Encoder()


@pytest.fixture
def features(encoder):
    with torch.no_grad():
        return encoder(made_up.tensor(np.stack([made_up.picture(i)[0] for i in range(COUNT)])))


def scenes(records, names):
    store = ObjectStore.of(records, names)
    return [Scenes(store, SIDE).scene(i, 0) for i in range(COUNT)]


def fit(head, loss, steps, rate):
    optimiser = torch.optim.AdamW(head.parameters(), rate)
    for step in range(steps):
        optimiser.zero_grad()
        loss(step).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
    return head.eval()


@pytest.mark.parametrize(
    ("kind", "options", "steps", "least"),
    [
        (LinearSemantic, {}, 150, 0.7),  # its map has but 8 x 8 cells
        (UPerNet, {"width": 24, "features": ("block.0", "block.1", "block.2", "block.3")}, 60, 0.9),
    ],
)
def test_semantic_heads(records, encoder, features, kind, options, steps, least):
    classes = Classes.of(CATEGORIES, unlabelled="background")
    labels = torch.from_numpy(np.stack([class_map(one, classes) for one in scenes(records, classes.names)]))
    torch.manual_seed(0)
    head = kind(encoder.widths, len(classes.names), **options)

    entropy = balance.build("cross_entropy", np.ones(len(classes.names)), ignore_index=VOID)

    def loss(step):
        logits = head(features, SIZE)["logits"]
        return entropy(enlarged(logits, labels), labels) + 0.2 * class_dice(logits, labels)

    fit(head, loss, steps, 5e-3)
    judge = Semantic(CATEGORIES)
    with torch.no_grad():
        logits = head(features, SIZE)["logits"].numpy()
    for record, one in zip(records, logits, strict=True):
        judge.add(record, readout.class_map(one, SIZE)[0].astype(np.int32))  # ids of categories begin at 1, too
    # Background is void to the measure: what is painted there does not count, so look at all classes by pixel too.
    assert judge.tally().all()["mIoU"] > least
    painted = np.stack([readout.class_map(one, SIZE)[0] for one in logits])
    assert (painted == labels.numpy()).mean() > 0.95


def test_queries(records, encoder, features):
    classes = Classes.of(CATEGORIES)
    true = [objects(one, classes) for one in scenes(records, NAMES)]
    torch.manual_seed(0)
    head = MaskQueries(encoder.widths, 2, queries=8, width=48, layers=2, heads=4)
    steps = 90

    def loss(step):
        head.anneal(step / steps)
        return set_loss(head(features, SIZE), true, SetWeights(points=256))["loss"]

    fit(head, loss, steps, 3e-3)
    head.anneal(1.0)
    with torch.no_grad():
        found = {key: one.numpy() for key, one in head(features, SIZE).items()}
    judge = Detection(CATEGORIES, kind="mask")
    for i, record in enumerate(records):
        segments = readout.regions(found["classes"][i], found["masks"][i], SIZE, "instance", threshold=0.05)
        names, scores = [NAMES[one.label] for one in segments], np.array([one.score for one in segments], np.float32)
        judge.add(record, Regions(names, scores, masks=[to_rle(one.mask) for one in segments]))
    assert judge.tally().all()["AP"] > 0.8


def test_detector(records, encoder, features):
    classes = Classes.of(CATEGORIES)
    true = [objects(one, classes) for one in scenes(records, NAMES)]
    torch.manual_seed(0)
    head = Detector(encoder.widths, 2, width=32, depth=1)
    fit(head, lambda step: box_loss(head(features, SIZE), true)["loss"], 120, 4e-3)
    with torch.no_grad():
        found = {key: one.numpy() for key, one in head(features, SIZE).items()}
    judge = Detection(CATEGORIES)
    for i, record in enumerate(records):
        boxes, scores, labels = readout.boxes(found["scores"][i], found["boxes"][i], SIZE, SIZE)
        judge.add(record, Regions([NAMES[k] for k in labels], scores, boxes=boxes))
    figures = judge.tally().all()
    assert figures["AP"] > 0.7
    assert figures["AP50"] > 0.95
