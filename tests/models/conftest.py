"""llama.cpp as the independent reader of GGUF files, and tiny files to read."""

import contextlib
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import gguf
import numpy as np
import pytest
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
]


SERVER = """
import os, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = 512
params.n_parallel = 1
params.cpuparams.n_threads = 2
params.warmup = False
params.verbosity = 0
# Float16 is its default for the cache and inside flash attention.
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
flash = xllamacpp.llama_flash_attn_type
params.flash_attn_type = flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)
print("address", server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


class LlamaCpp:
    """A llama.cpp server with one model.

    In a process of its own, because ending one inside ours sometimes never returns.
    """

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", SERVER, str(path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        lines = (line.split() for line in self._process.stdout)
        found = next((line[1] for line in lines if line[:1] == ["address"]), None)
        assert found, "llama.cpp (package xllamacpp) did not start; see stderr"
        self._address = found
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def close(self) -> None:
        self._process.communicate()

    def _post(self, path, **body):
        request = urllib.request.Request(
            self._address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with self._opener.open(request) as answer:
            return json.load(answer)

    def ids(self, text: str, *, add_special: bool = False) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": True}
        return self._post("/tokenize", **body)["tokens"]

    def render(self, messages: list[dict[str, str]]) -> str:
        return self._post("/apply-template", messages=messages)["prompt"]

    def log_probs(self, ids: list[int], most_likely: int) -> dict[int, float]:
        """The next token's log-probabilities in nats, of the most likely ones."""
        # A token that is half a character would be held back with its probabilities,
        # so a plain letter is forced; those reported are of the untouched logits.
        answer = self._post(
            "/completion",
            prompt=ids,
            n_predict=1,
            n_probs=most_likely,
            logit_bias=[[self.ids("a")[0], 1e4]],
            temperature=0,
        )
        top = answer["completion_probabilities"][0]["top_logprobs"]
        return {entry["id"]: entry["logprob"] for entry in top}


@pytest.fixture(scope="session")
def nasty_texts():
    return TEXTS


@pytest.fixture
def llama_cpp():
    """Starts llama.cpp on a file, for the length of a test."""
    with contextlib.ExitStack() as started:

        def start(path: Path) -> LlamaCpp:
            return started.enter_context(contextlib.closing(LlamaCpp(path)))

        yield start


@pytest.fixture(scope="session")
def demo_llama_cpp(demo_gguf):
    with contextlib.closing(LlamaCpp(demo_gguf)) as server:
        yield server


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


class Tiny:
    """A small random llama: change ``metadata`` or ``tensors``, then ``write``.

    The weights are large enough to make attention sharp: a wrong rotation shows.
    """

    def __init__(self, tokens, merges, *, head_dim=64, tied=True) -> None:
        heads, kv_heads, width, wide = 4, 2, 256, 512
        self.metadata = {
            "llama.block_count": 2,
            "llama.context_length": 512,
            "llama.embedding_length": width,
            "llama.feed_forward_length": wide,
            "llama.attention.head_count": heads,
            "llama.attention.head_count_kv": kv_heads,
            "llama.attention.key_length": head_dim,
            "llama.attention.value_length": head_dim,
            "llama.rope.dimension_count": head_dim,
            "llama.rope.freq_base": 10000.0,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3, 3, 3, 4] + [1] * (len(tokens) - 4),
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        }
        shapes = {
            "token_embd": (len(tokens), width),
            "output_norm": (width,),
            **({} if tied else {"output": (len(tokens), width)}),
        }
        for layer in range(2):
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
        self.types[name] = kind

    def write(self, path: Path, *, architecture="llama", **options) -> Path:
        writer = gguf.GGUFWriter(path, architecture, **options)
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


@pytest.fixture
def tiny(vocabulary):
    """Makes a small random model, to be changed and written."""

    def make(**shape) -> Tiny:
        return Tiny(*vocabulary, **shape)

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
