"""Builds the ONNX graph of all-MiniLM-L6-v2 from its packaged weights.

A program of its own, `python -m llamora.search.minilm SOURCE TARGET`, because `onnx` and the weights would
otherwise stay in the server's memory (134 MB here). The graph is BERT as published (Devlin et al., 2019, figure 1
and appendix A.2) with the sizes of the model's config.json; the weights lie beside it as external data, each on a
page of its own, so that ONNX Runtime maps the file instead of reading it: of the 47 MB of word embeddings only the
rows that are used ever come into memory.
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
INLINE_BYTES = 4096  # bytes; smaller tensors stay in the graph


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The float32 tensors of a safetensors file, mapped, not read.

    Format: u64 length of a JSON header (little-endian), the header, the tensors
    (https://huggingface.co/docs/safetensors, "Format"). Raises ValueError or KeyError when it is something else.
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
    """Nodes and initialisers, the large ones written to a file as they come."""

    def __init__(self, weights: Path) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self._file = weights.open("wb")

    def add_constant(self, name: str, values: np.ndarray) -> str:
        """Add an initialiser and return its name."""
        values = np.ascontiguousarray(values)
        if values.nbytes < INLINE_BYTES:
            self.initialisers.append(numpy_helper.from_array(values, name))
            return name
        # ONNX Runtime maps external data by page; a page is the allocation unit of Windows (64 KiB) or less.
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
        """Add a one-dimensional int64 constant."""
        return self.add_constant(name, np.array(values, dtype=np.int64))

    def add_node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        return self.add_node_with_outputs(1, operator, *inputs, **attributes)[0]

    def add_node_with_outputs(
        self, outputs: int, operator: str, *inputs: str, **attributes: Any
    ) -> list[str]:
        """Add a node of several outputs and return their names."""
        names = [f"{operator}.{len(self.nodes)}.{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def close(self) -> None:
        """Bring the weights to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def build_graph(
    weights: dict[str, np.ndarray], config: dict[str, Any], graph: GraphBuilder
) -> onnx.ModelProto:
    """The encoder: int64 `input_ids` and `attention_mask` [batch, length] in, `last_hidden_state` [.., hidden] out."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    width = hidden // heads
    epsilon = float(config["layer_norm_eps"])

    def norm(values: str, name: str) -> str:
        scale = graph.add_constant(f"{name}.scale", weights[f"{name}.weight"])
        bias = graph.add_constant(f"{name}.bias", weights[f"{name}.bias"])
        return graph.add_node("LayerNormalization", values, scale, bias, axis=-1, epsilon=epsilon)

    def dense(values: str, name: str, matrix: np.ndarray, bias: np.ndarray) -> str:
        product = graph.add_node("MatMul", values, graph.add_constant(f"{name}.matrix", matrix.T))
        return graph.add_node("Add", product, graph.add_constant(f"{name}.bias", bias))

    def linear(values: str, name: str) -> str:
        return dense(values, name, weights[f"{name}.weight"], weights[f"{name}.bias"])

    split_heads = graph.add_integers("split_heads", 0, 0, heads, width)
    join_heads = graph.add_integers("join_heads", 0, 0, hidden)
    zero = graph.add_integers("zero", 0)

    # Every token is of type 0 (one sentence), so that row is added to the positions once and for all.
    position_table = (
        weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    words = graph.add_node(
        "Gather",
        graph.add_constant("words", weights["embeddings.word_embeddings.weight"]),
        "input_ids",
    )
    length = graph.add_node("Shape", "input_ids", start=1, end=2)
    positions = graph.add_node(
        "Slice", graph.add_constant("places", position_table), zero, length, zero
    )
    state = norm(graph.add_node("Add", words, positions), "embeddings.LayerNorm")

    visible = graph.add_node("Cast", "attention_mask", to=TensorProto.FLOAT)
    invisible = graph.add_node(
        "Sub", visible, graph.add_constant("one", np.array(1, dtype=np.float32))
    )
    penalty = graph.add_node(
        "Mul", invisible, graph.add_constant("far", np.array(1e9, dtype=np.float32))
    )
    mask = graph.add_node("Unsqueeze", penalty, graph.add_integers("over_heads", 1, 2))

    for layer_number in range(int(config["num_hidden_layers"])):
        layer = f"encoder.layer.{layer_number}"
        attention = f"{layer}.attention.self"
        # Query, key and value in one product; the scale of dot-product attention is folded into the query.
        parts = (
            ("query", np.float32(width**-0.5)),
            ("key", np.float32(1)),
            ("value", np.float32(1)),
        )
        matrix = np.concatenate(
            [weights[f"{attention}.{part}.weight"] * scale for part, scale in parts]
        )
        bias = np.concatenate(
            [weights[f"{attention}.{part}.bias"] * scale for part, scale in parts]
        )
        thirds = graph.add_node_with_outputs(
            3, "Split", dense(state, attention, matrix, bias), axis=-1, num_outputs=3
        )
        query, key, value = (graph.add_node("Reshape", third, split_heads) for third in thirds)
        query = graph.add_node("Transpose", query, perm=[0, 2, 1, 3])
        key = graph.add_node("Transpose", key, perm=[0, 2, 3, 1])
        value = graph.add_node("Transpose", value, perm=[0, 2, 1, 3])
        scores = graph.add_node("Add", graph.add_node("MatMul", query, key), mask)
        mixed = graph.add_node("MatMul", graph.add_node("Softmax", scores, axis=-1), value)
        joined = graph.add_node(
            "Reshape", graph.add_node("Transpose", mixed, perm=[0, 2, 1, 3]), join_heads
        )
        attended = linear(joined, f"{layer}.attention.output.dense")
        state = norm(graph.add_node("Add", attended, state), f"{layer}.attention.output.LayerNorm")
        wide = graph.add_node("Gelu", linear(state, f"{layer}.intermediate.dense"))
        narrow = linear(wide, f"{layer}.output.dense")
        state = norm(graph.add_node("Add", narrow, state), f"{layer}.output.LayerNorm")

    graph.nodes.append(helper.make_node("Identity", [state], ["last_hidden_state"]))
    tokens = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, ["batch", "length", hidden]
    )
    body = helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", tokens, [output], graph.initialisers)
    # Opset 20 is the first with Gelu; IR 9 is what ONNX 1.15, the release of opset 20, writes.
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def build(source: Path, target: Path) -> None:
    """Write graph, weights, tokenizer and a manifest of their digests into the empty folder `target`.

    `source` is the package's model folder. The manifest is written last: a folder without one is not used.
    Raises OSError, ValueError or KeyError.
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
