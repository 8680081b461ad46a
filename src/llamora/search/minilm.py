"""Build the ONNX graph of all-MiniLM-L6-v2 from its packaged weights.

Run it as `python -m llamora.search.minilm SOURCE TARGET`: `onnx` and the weights would stay in the
server's memory (134 MB here). The graph is BERT as published (Devlin et al., 2019, figure 1 and
appendix A.2) with the sizes of the model's config.json. The weights lie beside it as external
data, each on pages of its own, so that ONNX Runtime maps the file instead of reading it: of the
47 MB of word embeddings only rows that are used come into memory.
"""

import json
import mmap
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from llamora.search.packaged_model import GRAPH_FILE, write_manifest

WEIGHTS = "weights.bin"
TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
INLINE_BYTES = 4096  # smaller tensors stay in the graph


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the float32 tensors of a safetensors file, mapped, not read.

    The format is a u64 length (little-endian), a JSON header of that length, and the tensors
    (https://huggingface.co/docs/safetensors, "Format"). Raises ValueError or KeyError for another.
    """
    with path.open("rb") as file:
        raw = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header: dict[str, dict[str, Any]] = json.loads(raw[8:start].tobytes())
    tensors: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            first, last = entry["data_offsets"]
            tensors[name] = raw[start + first : start + last].view("<f4").reshape(entry["shape"])
    return tensors


class GraphBuilder:
    """Collect nodes and initialisers; large ones are written to a file as they come."""

    def __init__(self, weights: Path) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self._file = weights.open("wb")

    def add_constant(self, name: str, values: np.ndarray) -> str:
        values = np.ascontiguousarray(values)
        if values.nbytes < INLINE_BYTES:
            self.initialisers.append(numpy_helper.from_array(values, name))
            return name
        # ONNX Runtime maps external data by page, 64 KiB (on Windows) or less.
        offset = -(-self._file.tell() // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._file.seek(offset)
        self._file.write(values.tobytes())
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
            dims=values.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (
            ("location", WEIGHTS),
            ("offset", str(offset)),
            ("length", str(values.nbytes)),
        ):
            tensor.external_data.add(key=key, value=value)
        self.initialisers.append(tensor)
        return name

    def add_integers(self, name: str, *values: int) -> str:
        return self.add_constant(name, np.array(values, dtype=np.int64))

    def add_node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self.add_node_with_outputs(1, operator, *inputs, **attributes)[0]

    def add_node_with_outputs(
        self, outputs: int, operator: str, *inputs: str, **attributes: Any
    ) -> list[str]:
        names = [f"{operator}.{len(self.nodes)}.{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def close(self) -> None:
        """Write the weights to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class Encoder:
    """Add the layers of BERT to a graph; methods return the name of a node's output."""

    def __init__(
        self, weights: dict[str, np.ndarray], config: dict[str, Any], graph: GraphBuilder
    ) -> None:
        self._weights = weights
        self._graph = graph
        self._hidden = int(config["hidden_size"])
        self._heads = int(config["num_attention_heads"])
        self._width = self._hidden // self._heads
        self._epsilon = float(config["layer_norm_eps"])
        self._split_heads = graph.add_integers("split_heads", 0, 0, self._heads, self._width)
        self._join_heads = graph.add_integers("join_heads", 0, 0, self._hidden)

    def add_embeddings(self) -> str:
        graph, weights = self._graph, self._weights
        zero = graph.add_integers("zero", 0)
        # Every token is of type 0 (one sentence), so its row is added to the positions here.
        position_table = (
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        word_table = graph.add_constant("words", weights["embeddings.word_embeddings.weight"])
        words = graph.add_node("Gather", word_table, "input_ids")
        length = graph.add_node("Shape", "input_ids", start=1, end=2)
        position_constant = graph.add_constant("places", position_table)
        positions = graph.add_node("Slice", position_constant, zero, length, zero)
        return self._norm(graph.add_node("Add", words, positions), "embeddings.LayerNorm")

    def add_mask(self) -> str:
        """Add what makes attention ignore padding, from `attention_mask`."""
        graph = self._graph
        visible = graph.add_node("Cast", "attention_mask", to=TensorProto.FLOAT)
        one = graph.add_constant("one", np.array(1, dtype=np.float32))
        invisible = graph.add_node("Sub", visible, one)
        far = graph.add_constant("far", np.array(1e9, dtype=np.float32))
        penalty = graph.add_node("Mul", invisible, far)
        return graph.add_node("Unsqueeze", penalty, graph.add_integers("over_heads", 1, 2))

    def add_layer(self, number: int, state: str, mask: str) -> str:
        graph, layer = self._graph, f"encoder.layer.{number}"
        joined = self._attention(f"{layer}.attention.self", state, mask)
        attended = self._linear(joined, f"{layer}.attention.output.dense")
        state = self._norm(
            graph.add_node("Add", attended, state), f"{layer}.attention.output.LayerNorm"
        )
        wide = graph.add_node("Gelu", self._linear(state, f"{layer}.intermediate.dense"))
        narrow = self._linear(wide, f"{layer}.output.dense")
        return self._norm(graph.add_node("Add", narrow, state), f"{layer}.output.LayerNorm")

    def _attention(self, name: str, state: str, mask: str) -> str:
        graph, weights = self._graph, self._weights
        # Query, key and value are one product; the query has the scale of the attention in it.
        parts = (
            ("query", np.float32(self._width**-0.5)),
            ("key", np.float32(1)),
            ("value", np.float32(1)),
        )
        matrix = np.concatenate([weights[f"{name}.{part}.weight"] * scale for part, scale in parts])
        bias = np.concatenate([weights[f"{name}.{part}.bias"] * scale for part, scale in parts])
        product = self._dense(state, name, matrix, bias)
        thirds = graph.add_node_with_outputs(3, "Split", product, axis=-1, num_outputs=3)
        query, key, value = (graph.add_node("Reshape", x, self._split_heads) for x in thirds)
        query = graph.add_node("Transpose", query, perm=[0, 2, 1, 3])
        key = graph.add_node("Transpose", key, perm=[0, 2, 3, 1])
        value = graph.add_node("Transpose", value, perm=[0, 2, 1, 3])
        scores = graph.add_node("Add", graph.add_node("MatMul", query, key), mask)
        mixed = graph.add_node("MatMul", graph.add_node("Softmax", scores, axis=-1), value)
        ordered = graph.add_node("Transpose", mixed, perm=[0, 2, 1, 3])
        return graph.add_node("Reshape", ordered, self._join_heads)

    def _norm(self, values: str, name: str) -> str:
        scale = self._graph.add_constant(f"{name}.scale", self._weights[f"{name}.weight"])
        bias = self._graph.add_constant(f"{name}.bias", self._weights[f"{name}.bias"])
        return self._graph.add_node(
            "LayerNormalization", values, scale, bias, axis=-1, epsilon=self._epsilon
        )

    def _dense(self, values: str, name: str, matrix: np.ndarray, bias: np.ndarray) -> str:
        matrix_name = self._graph.add_constant(f"{name}.matrix", matrix.T)
        product = self._graph.add_node("MatMul", values, matrix_name)
        return self._graph.add_node("Add", product, self._graph.add_constant(f"{name}.bias", bias))

    def _linear(self, values: str, name: str) -> str:
        matrix, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self._dense(values, name, matrix, bias)


def build_graph(
    weights: dict[str, np.ndarray], config: dict[str, Any], graph: GraphBuilder
) -> onnx.ModelProto:
    """Return the encoder.

    Its inputs are int64 `input_ids` and `attention_mask` [batch, length], its output is
    `last_hidden_state` [batch, length, hidden].
    """
    encoder = Encoder(weights, config, graph)
    state = encoder.add_embeddings()
    mask = encoder.add_mask()
    for number in range(int(config["num_hidden_layers"])):
        state = encoder.add_layer(number, state, mask)
    graph.nodes.append(helper.make_node("Identity", [state], ["last_hidden_state"]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    hidden = int(config["hidden_size"])
    output = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, ["batch", "length", hidden]
    )
    body = helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", inputs, [output], graph.initialisers)
    # Opset 20 is the first with Gelu; ONNX 1.15, the release of opset 20, writes IR 9.
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def build(source: Path, target: Path) -> None:
    """Write graph, weights, tokenizer and the manifest into the empty folder `target`.

    `source` is the package's model folder. The manifest comes last, since a folder without one is
    not used. Raises OSError, ValueError or KeyError.
    """
    config = json.loads((source / "config.json").read_text("utf-8"))
    graph = GraphBuilder(target / WEIGHTS)
    model = build_graph(read_safetensors(source / "model.safetensors"), config, graph)
    graph.close()
    (target / GRAPH_FILE).write_bytes(model.SerializeToString())
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, target / name)
    write_manifest(target)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
