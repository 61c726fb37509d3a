import json

import numpy as np
import pytest

from manylens.models.minilm import MAX_TOKENS
from manylens.runtime.context import Context
from manylens.tasks import EmbedRequest

MINILM = "manylens/minilm"
SENTENCES = ["A cat sits on the sofa.", "A kitten is lying on the couch.", "The stock market fell sharply today."]


@pytest.mark.weights
def test_paraphrases_are_closer_than_strangers(run):
    cat, kitten, market = (run(MINILM, EmbedRequest.of(text=text)) for text in SENTENCES)
    assert cat.space == kitten.space
    assert cat.vector @ kitten.vector > 0.6 > 0.2 > abs(cat.vector @ market.vector)
    assert np.linalg.norm(cat.vector) == pytest.approx(1, abs=1e-5)
    assert cat.vector.dtype == np.float32


@pytest.mark.weights
def test_a_batch_gives_what_each_alone_gives(load):
    texts = [*SENTENCES, "x", "a much longer text " * 20]
    together = list(load(MINILM).run([EmbedRequest.of(text=text) for text in texts], Context()))
    alone = [next(load(MINILM).run([EmbedRequest.of(text=text)], Context())) for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert one.vector == pytest.approx(other.vector, abs=1e-5)


@pytest.mark.weights
def test_a_long_text_is_cut_and_said(run):
    notes: list[str] = []
    run(MINILM, EmbedRequest.of(text="word " * 100), notes=notes)
    assert notes == []
    run(MINILM, EmbedRequest.of(text="word " * 400), notes=notes)
    assert notes == [f"text: only its first {MAX_TOKENS} word pieces count"]


@pytest.mark.weights
def test_a_text_is_encoded_once(load):
    ctx = Context()
    request = EmbedRequest.of(text="seen before")
    first = next(load(MINILM).run([request], ctx))
    assert ctx.notes["cache"] == "miss"
    second = next(load(MINILM).run([request], ctx))
    assert ctx.notes["cache"] == "memory"
    assert (first.vector == second.vector).all()


@pytest.mark.weights
def test_equals_transformers(run, weights):
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    files = weights(MINILM)
    config = json.loads(files["config.json"].read_text())
    model = BertModel(
        BertConfig(**{k: v for k, v in config.items() if k not in ("architectures", "model_type")})
    ).eval()
    left = model.load_state_dict(load_file(files["model.safetensors"]), strict=False)
    assert not [name for name in left.missing_keys if not name.startswith("pooler")]
    tokens = Tokenizer.from_file(str(files["tokenizer.json"]))
    tokens.no_padding()
    for text in SENTENCES:
        with torch.no_grad():
            states = model(torch.tensor([tokens.encode(text).ids])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(states.mean(0), dim=0).numpy()
        assert run(MINILM, EmbedRequest.of(text=text)).vector == pytest.approx(expected, abs=1e-4)
