import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import evaluation, testing
from mlx_rsft.data.conversation import Conversation, Message
from mlx_rsft.data.render import render
from mlx_rsft.errors import ConfigError, DataError
from mlx_rsft.models.split import SplitModel

TEXTS = ("seal", "bearing", "a longer one")


def _rows(answers=TEXTS, choices=TEXTS):
    tokenizer = testing.byte_tokenizer()
    made = []
    for place, answer in enumerate(answers):
        turns = (Message("user", f"q{place}"), Message("assistant", answer))
        row = Conversation(turns, f"f.jsonl:{place + 1}", choices=tuple(choices))
        made += render(row, tokenizer)
    return made


def _marks(rows, name="choices"):
    split, tokenizer = SplitModel(testing.tiny_model()), testing.byte_tokenizer()
    metrics = evaluation.choose([name])
    return evaluation.measure(split, tokenizer, rows, metrics, 4).items[name]


def _likeliest(prompt, per_token):
    model, tokenizer = testing.tiny_model(), testing.byte_tokenizer()
    found = []
    for text in TEXTS:
        reply = [*tokenizer.encode(text, add_special_tokens=False)]
        reply.append(testing.VOCABULARY - 1)
        logits = np.array(model(mx.array([*prompt, *reply])[None])[0], np.float64)
        logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        at = range(len(prompt) - 1, len(prompt) + len(reply) - 1)
        total = sum(logp[n, token] for n, token in zip(at, reply, strict=True))
        found.append(total / len(reply) if per_token else total)
    return TEXTS[int(np.argmax(found))]


@pytest.mark.parametrize("per_token", [False, True])
def test_the_likeliest_choice_is_that_of_scoring_each_by_hand(per_token):
    rows = _rows()
    name = "choices:normalise=token" if per_token else "choices"
    wanted = [float(_likeliest(r.prompt, per_token) == r.answer) for r in rows]
    assert _marks(rows, name) == wanted
    assert sum(wanted) == 1  # the three rows ask for different answers


def test_choices_of_all_rows_come_from_the_spelling_or_a_file(tmp_path):
    bare, path = _rows(choices=()), tmp_path / "labels.txt"
    path.write_text("\n".join(TEXTS) + "\n\n")
    assert _marks(bare, f"choices:of={'|'.join(TEXTS)}") == _marks(_rows())
    assert _marks(bare, f"choices:file={path}") == _marks(_rows())


def test_a_row_without_choices_or_with_another_answer_is_named():
    with pytest.raises(DataError, match=r"f\.jsonl:1: The row has no choices"):
        _marks(_rows(choices=()))
    with pytest.raises(DataError, match=r"f\.jsonl:2: .*'pump' is none of"):
        _marks(_rows(answers=("seal", "pump")))


def test_bad_choices_are_refused(tmp_path):
    for spelled, said in [
        ("choices:of=a", "fewer than two"),
        (f"choices:file={tmp_path / 'none.txt'}", "none.txt"),
        (f"choices:of=a|b,file={tmp_path}", "Both of and file"),
    ]:
        with pytest.raises(ConfigError, match=said):
            evaluation.choose([spelled])
