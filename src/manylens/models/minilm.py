"""MiniLM (Wang et al., 2020) as a sentence encoder: text to unit vectors of 384 numbers.

The network is built operator by operator from the weights, so neither torch nor transformers is loaded to run it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models.base import Model
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings, compile
from manylens.runtime.store import Key
from manylens.tasks import Embedding, EmbedRequest, Request

if TYPE_CHECKING:
    import openvino as ov

    from manylens.catalog import Row

MAX_TOKENS = 256
"""What the encoder was trained on; the rest of a longer text is cut off, and said so."""


class MiniLm(Model):
    """Sentence vectors: mean of the token states, to unit length."""

    batch_size = 16

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        from tokenizers import Tokenizer

        config = json.loads(files["config.json"].read_text())
        self._tokens = Tokenizer.from_file(str(files["tokenizer.json"]))
        self._space = _space(row)
        self._tokens.no_padding()
        self._tokens.enable_truncation(MAX_TOKENS)
        self._net = compile(bert(files["model.safetensors"], config), settings)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Embedding]:
        """Serve ``embed`` requests of texts; those of a batch run together."""
        texts = [request.text or "" for request in requests if isinstance(request, EmbedRequest)]
        encodings = self._tokens.encode_batch(texts)
        ctx.check()
        for vector, encoding, cached in zip(*self._vectors(texts, encodings, ctx), strict=True):
            if encoding.overflowing:
                ctx.notes.setdefault("notes", []).append(f"text: only its first {MAX_TOKENS} word pieces count")
            ctx.notes["cache"] = cached
            yield Embedding(vector=vector, space=self._space)

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the vector of a sentence."""
        encodings = self._tokens.encode_batch(["a photograph of a cat that sits on a red sofa"])
        return lambda: self._encode(encodings)

    def close(self) -> None:
        """Give the network's memory back."""
        self._net.close()

    def _vectors(self, texts: Sequence[str], encodings: Sequence[Any], ctx: Context) -> tuple[Any, Any, Any]:
        keys = [self._key(text) for text in texts]
        kept = [ctx.store.find(key) for key in keys]
        new = {i: j for j, i in enumerate(i for i, (arrays, _) in enumerate(kept) if arrays is None)}
        fresh = self._encode([encodings[i] for i in new]) if new else np.empty((0, 0))
        for i, j in new.items():
            ctx.store.put(keys[i], {"vector": fresh[j]})
        vectors = [fresh[new[i]] if arrays is None else arrays["vector"] for i, (arrays, _) in enumerate(kept)]
        return vectors, encodings, [hit or "miss" for _, hit in kept]

    def _encode(self, encodings: Sequence[Any]) -> np.ndarray:
        """Unit vectors ``(N, 384)`` of tokenised texts."""
        longest = max(len(encoding.ids) for encoding in encodings)
        ids = np.zeros((len(encodings), longest), np.int64)
        mask = np.zeros((len(encodings), longest), np.float32)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        return self._net(ids, mask)[0]

    def _key(self, text: str) -> Key:
        from manylens.media.identity import content_id

        return Key(
            content_id("text", [text]),
            self.row.weights_hash,
            f"minilm-{self.row.preprocessing}",
            "mean",
            self.settings.engine,
            self.settings.precision,
        )


def _space(row: Row) -> str:
    """Texts of one network lie in one space, whatever the row around it is called."""
    hashes = [file.sha256 for file in row.files if file.name == "model.safetensors"]
    return f"minilm-{(hashes[0] if hashes else row.weights_hash)[:16]}"


def bert(path: Path, config: Mapping[str, Any]) -> ov.Model:
    """The encoder with mean pooling and normalisation.

    Args:
        path: ``model.safetensors`` of a BERT model.
        config: Its ``config.json``.

    Returns:
        A model from ids int64 ``(N, T)`` and mask float32 ``(N, T)``, 1 where a token is, to float32 ``(N, D)``.
    """
    import openvino as ov
    from openvino import opset13 as op
    from safetensors.numpy import load_file

    weights = load_file(path)
    heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
    width = config["hidden_size"]

    def linear(x: Any, name: str) -> Any:
        return op.add(op.matmul(x, op.constant(weights[f"{name}.weight"]), False, True), weights[f"{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        scaled = op.multiply(op.mvn(x, np.array([-1]), True, epsilon, "inside_sqrt"), weights[f"{name}.weight"])
        return op.add(scaled, weights[f"{name}.bias"])

    def split(x: Any) -> Any:
        return op.transpose(op.reshape(x, np.array([0, 0, heads, width // heads]), True), np.array([0, 2, 1, 3]))

    ids = op.parameter([-1, -1], np.int64, name="ids")
    mask = op.parameter([-1, -1], np.float32, name="mask")
    for port, name in ((ids, "ids"), (mask, "mask")):
        port.output(0).set_names({name})
    # Minus 10,000 where there is no token: nothing is left of it after the softmax.
    hidden_tokens = op.multiply(op.subtract(op.unsqueeze(mask, np.array([1, 2])), np.float32(1)), np.float32(1e4))

    words = op.gather(op.constant(weights["embeddings.word_embeddings.weight"]), ids, np.int64(0))
    length = op.gather(op.shape_of(ids), np.array([1]), np.int64(0))
    table = op.constant(weights["embeddings.position_embeddings.weight"])
    places = op.slice(table, np.array([0]), length, np.array([1]), np.array([0]))
    x = op.add(op.add(words, places), weights["embeddings.token_type_embeddings.weight"][0])
    x = norm(x, "embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        query, key, value = (split(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
        context = op.scaled_dot_product_attention(query, key, value, hidden_tokens)
        context = op.reshape(op.transpose(context, np.array([0, 2, 1, 3])), np.array([0, 0, width]), True)
        x = norm(op.add(x, linear(context, f"{layer}.attention.output.dense")), f"{layer}.attention.output.LayerNorm")
        inner = op.gelu(linear(x, f"{layer}.intermediate.dense"), "erf")
        x = norm(op.add(x, linear(inner, f"{layer}.output.dense")), f"{layer}.output.LayerNorm")
    # The sum over tokens needs no division by their number: the vector is brought to unit length anyway.
    pooled = op.reduce_sum(op.multiply(x, op.unsqueeze(mask, np.array([2]))), np.array([1]))
    vector = op.normalize_l2(pooled, np.array([1]), 1e-12, "max")
    return ov.Model([vector], [ids, mask], "minilm")
