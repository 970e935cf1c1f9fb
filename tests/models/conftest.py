"""Texts that tell tokenizers apart, and tiny GGUF files to read."""

import json
import re
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from mlx_rsft.errors import ModelError
from mlx_rsft.models.gguf import convert

TEXTS = [
    "",
    " ",
    "Hello, world!",
    " leading and trailing ",
    "   three before,  two inside,   three after   ",
    "one\ntwo\n\nthree\r\nfour\n\n\n  five",
    "tab\tand\t\ttabs \t mixed",
    "\n \n\t \n",
    "1234567890 3.14159 007 1,000,000 10^-3",
    "I'm you're we'll they'VE it'S d'accord 's",
    "def f(x):\n    return {'a': [1, 2], \"b\": x ** 2}  # ok?!\n",
    "emoji 🙂👩‍👩‍👧‍👦🏳️‍🌈 done",
    "日本語の文章です。東京タワー、３３３メートル。",
    "Straße café naïve — “quotes” … ½ ²",
    "Привет мир! مرحبا بالعالم नमस्ते",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "almost <|im_start> <|im_end |> <<|im_end|>>",
    "bell\x07 escape\x1b[0m null\x00 delete\x7f separator\x1c next\x85 line",
    "non-breaking\u00a0space zero\u200bwidth ideographic\u3000space bom\ufeff",
    "a" * 50 + "!" * 20 + "-" * 30,
    "camelCase PascalCase HTTPServer iPhone ÉTÉ été ÀLaCarte",
    "DON'T don't Don'T we'LL it's I'Mx 'S's",
    "path/to//file.py\n//\r\n a/b /\n",
    "12345 \uff11\uff12\uff13 ①② Ⅳ x1y22z333",
    "ПриветМир ΑβΓ ǅungla ʰa ªº",
    "中文English混合 한국어Test العربية ABC",
]


@pytest.fixture(scope="session")
def nasty_texts():
    return TEXTS


@pytest.fixture(scope="session")
def demo_folder(demo_gguf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "model"
    convert(demo_gguf, folder, float_type="float32")
    return folder


@pytest.fixture(scope="session")
def vocabulary():
    """Tokens, and merges that cross every boundary in the texts.

    Trained on whole texts, so that each rule for cutting text into words, and none,
    gives other ids.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    pieces = [text[i : i + 5] for text in TEXTS for i in range(len(text))]
    tokenizer.train_from_iterator(pieces, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|user defined|>"]
    tokens += sorted(model["vocab"], key=model["vocab"].__getitem__)
    tokens += ["zqj"]  # no merge leads there
    return tokens, [" ".join(merge) for merge in model["merges"]]


@pytest.fixture(scope="session")
def scored_vocabulary():
    """Metadata of a tokenizer with scores, bytes and user-defined runs of spaces.

    NUL, Arabic and emoji have no tokens but those of their bytes.
    """
    known = [
        re.sub("[\0\u0600-\u06ff\u2000-\u2fff\U0001f000-\U0010ffff]", "", text)
        for text in TEXTS
    ]
    known = [text.replace(" ", "\u2581") for text in known]
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=700, min_frequency=1, show_progress=False)
    pieces = [text[i : i + 6] for text in known for i in range(len(text))]
    tokenizer.train_from_iterator(pieces, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    joined = ["".join(merge) for merge in model["merges"]]
    letters = sorted(token for token in model["vocab"] if len(token) == 1)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<|im_end|>"]
    defined = ["  ", "   ", "    ", "\n\n", "\t\t", "<table>"]
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    plain = [*dict.fromkeys(joined), *letters, "zqj"]  # nothing joins into the last
    plain = [token for token in plain if token not in defined]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": special + defined + octets + plain,
        "tokenizer.ggml.scores": [
            *[-1000.0] * len(special + defined),
            *[0.0] * 256,
            *map(float, range(0, -len(plain), -1)),
        ],
        "tokenizer.ggml.token_type": [
            *[3] * len(special),
            *[4] * len(defined),
            *[6] * 256,
            *[1] * len(plain),
        ],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
    }


class Tiny:
    """A small random model: change ``metadata`` or ``tensors``, then ``write``.

    The weights are large enough to make attention sharp: a wrong rotation shows.

    Args:
        architecture: Its name in llama.cpp.
        tokenizer: The metadata of its tokenizer.
        norms: Sizes of the norms that each block has besides the shared ones.
        head_dim: The width of a head.
        layers: How many blocks.
        wide: The width of the feed-forward part.
        tied: Whether the embedding is the head.
    """

    def __init__(
        self,
        architecture,
        tokenizer,
        norms,
        *,
        head_dim=64,
        layers=2,
        wide=512,
        tied=True,
    ) -> None:
        heads, kv_heads, width = 4, 2, 256
        self.architecture = architecture
        sizes = {
            "block_count": layers,
            "context_length": 512,
            "embedding_length": width,
            "feed_forward_length": wide,
            "attention.head_count": heads,
            "attention.head_count_kv": kv_heads,
            "attention.key_length": head_dim,
            "attention.value_length": head_dim,
            "rope.dimension_count": head_dim,
            "rope.freq_base": 10000.0,
            "attention.layer_norm_rms_epsilon": 1e-5,
        }
        self.metadata = {
            **{f"{architecture}.{key}": value for key, value in sizes.items()},
            **tokenizer,
        }
        size = len(tokenizer["tokenizer.ggml.tokens"])
        shapes = {
            "token_embd": (size, width),
            "output_norm": (width,),
            **({} if tied else {"output": (size, width)}),
        }
        for layer in range(layers):
            block = {
                "attn_norm": (width,),
                "attn_q": (heads * head_dim, width),
                "attn_k": (kv_heads * head_dim, width),
                "attn_v": (kv_heads * head_dim, width),
                "attn_output": (width, heads * head_dim),
                "ffn_norm": (width,),
                "ffn_gate": (wide, width),
                "ffn_up": (wide, width),
                "ffn_down": (width, wide),
                **{
                    name: (head_dim if per_head else width,) for name, per_head in norms
                },
            }
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
        rng = np.random.default_rng(0)
        self.types = {}
        self.tensors = {
            f"{name}.weight": np.asarray(
                rng.normal(len(shape) == 1, 2 * shape[-1] ** -0.5, shape), np.float32
            )
            for name, shape in shapes.items()
        }

    def store(self, name: str, kind: str) -> None:
        """Store a tensor as finite random blocks of a type; kept in ``tensors``."""
        kind = gguf.GGMLQuantizationType[kind]
        rows, width = self.tensors[name].shape
        per_block, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (rows, width // per_block * size)
        rng = np.random.default_rng(1)
        # High bits off: every pair of bytes is a finite float16 below 2.
        self.tensors[name] = rng.integers(0, 64, shape, dtype=np.uint8)
        if kind.name == "MXFP4":
            exponents = rng.integers(118, 124, (rows, width // 32))
            self.tensors[name][:, ::size] = exponents
        self.types[name] = kind

    def write(self, path: Path, *, architecture=None, **options) -> Path:
        writer = gguf.GGUFWriter(path, architecture or self.architecture, **options)
        kinds = {
            bool: gguf.GGUFValueType.BOOL,
            int: gguf.GGUFValueType.UINT32,
            float: gguf.GGUFValueType.FLOAT32,
            str: gguf.GGUFValueType.STRING,
        }
        for key, value in self.metadata.items():
            if isinstance(value, list):
                writer.add_array(key, value)
            else:
                writer.add_key_value(key, value, kinds[type(value)])
        for name, array in self.tensors.items():
            writer.add_tensor(name, array, raw_dtype=self.types.get(name))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


@pytest.fixture(scope="session")
def vocabulary_of_bytes(vocabulary):
    """Metadata of a byte-level tokenizer."""
    tokens, merges = vocabulary
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, 4] + [1] * (len(tokens) - 4),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


@pytest.fixture
def tiny(vocabulary_of_bytes):
    """Makes a small random llama, to be changed and written."""

    def make(**shape) -> Tiny:
        return Tiny("llama", vocabulary_of_bytes, (), **shape)

    return make


@pytest.fixture
def tiny_scored(scored_vocabulary):
    """Makes a small random llama whose tokenizer has scores."""

    def make(**shape) -> Tiny:
        return Tiny("llama", scored_vocabulary, (), **shape)

    return make


@pytest.fixture
def tiny_gemma(scored_vocabulary):
    """Makes a small random Gemma 3 with a short window.

    Its width has a root that bfloat16 holds exactly: MLX's model scales the embedding
    by the root in that type.
    """
    norms = [("attn_q_norm", True), ("attn_k_norm", True)]
    norms += [("post_attention_norm", False), ("post_ffw_norm", False)]

    def make(*, layers=6, **shape) -> Tiny:
        model = Tiny("gemma3", scored_vocabulary, norms, layers=layers, **shape)
        model.metadata["gemma3.rope.freq_base"] = 1e6
        model.metadata["gemma3.attention.sliding_window"] = 32
        model.metadata["tokenizer.ggml.add_space_prefix"] = False
        return model

    return make


SANDWICH = [("post_attention_norm", False), ("post_ffw_norm", False)]
HEADS = [("attn_q_norm", True), ("attn_k_norm", True)]
NORMS = {"gemma2": SANDWICH, "gemma3": SANDWICH + HEADS, "qwen3": HEADS}


def add_biases(model: Tiny) -> None:
    """What qwen2 has besides."""
    rng = np.random.default_rng(2)
    for name in [
        name
        for name in model.tensors
        if any(f".attn_{x}.weight" in name for x in "qkv")
    ]:
        rows = len(model.tensors[name])
        bias = rng.normal(0, 1, rows).astype(np.float32)
        model.tensors[name.replace("weight", "bias")] = bias


def fuse(model: Tiny) -> None:
    """What phi3 has in one matrix."""
    for old, new in (
        (("attn_q", "attn_k", "attn_v"), "attn_qkv"),
        (("ffn_gate", "ffn_up"), "ffn_up"),
    ):
        for layer in range(model.metadata["phi3.block_count"]):
            names = [f"blk.{layer}.{name}.weight" for name in old]
            whole = np.concatenate([model.tensors.pop(name) for name in names])
            model.tensors[f"blk.{layer}.{new}.weight"] = whole


@pytest.fixture
def tiny_of(vocabulary_of_bytes, scored_vocabulary):
    """Makes a small random model of any architecture."""
    more = {"qwen2": add_biases, "phi3": fuse}

    def make(architecture, **shape) -> Tiny:
        scored = architecture in ("gemma2", "gemma3", "phi3")
        tokenizer = scored_vocabulary if scored else vocabulary_of_bytes
        norms = NORMS.get(architecture, [])
        if architecture == "gemma3":
            shape = {"layers": 6, **shape}
        model = Tiny(architecture, tokenizer, norms, **shape)
        if architecture in more:
            more[architecture](model)
        # Others than those that any reader would take for granted.
        model.metadata[f"{architecture}.rope.freq_base"] = 50000.0
        model.metadata[f"{architecture}.attention.layer_norm_rms_epsilon"] = 0.01
        if scored:
            model.metadata[f"{architecture}.attention.sliding_window"] = 256
        if architecture in ("qwen2", "qwen3"):
            model.metadata["tokenizer.ggml.pre"] = "qwen2"
        if architecture == "gemma2":
            model.metadata["gemma2.attn_logit_softcapping"] = 3.0
            model.metadata["gemma2.final_logit_softcapping"] = 5.0
        return model

    return make


@pytest.fixture
def refusal(tmp_path):
    """The message with which a file is refused; nothing may be left behind."""

    def refused(path: Path, *, float_type: str = "float32") -> str:
        folder = tmp_path / "refused" / "model"
        folder.parent.mkdir(exist_ok=True)
        with pytest.raises(ModelError) as caught:
            convert(path, folder, float_type=float_type)
        assert list(folder.parent.iterdir()) == []
        assert caught.value.where == str(path)
        return caught.value.message

    return refused


@pytest.fixture
def held_by_mlx():
    return _held


def _held(split, rows, width, supervised):
    """What mlx holds when the forward pass is done and the backward pass is not."""
    chosen = mx.arange(supervised)
    tokens = mx.arange(rows * width).reshape(rows, width) % 200
    trained = tree_flatten(split.model.trainable_parameters())
    before = split.model.parameters()

    def forward(*values):
        names = (name for name, _ in trained)
        split.model.update(tree_unflatten(list(zip(names, values, strict=True))))
        return [split.supervised(tokens, chosen)]

    slope = mx.zeros(split.supervised(tokens, chosen).shape)
    mx.eval(tokens, chosen, slope, before)
    mx.synchronize()
    bare = mx.get_active_memory()
    hidden, grads = mx.vjp(forward, [value for _, value in trained], [slope])
    split.model.update(before)
    mx.eval(hidden)
    mx.synchronize()
    held = mx.get_active_memory() - bare
    del grads
    return held
