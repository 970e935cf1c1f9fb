import mlx.core as mx
import numpy as np

from mlx_rsft import testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import likelihood
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.models.trunk_store import MemoryStore


def _examples(seed=0, count=9):
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        length = int(rng.integers(6, 60))
        tokens = tuple(rng.integers(1, 250, length).tolist())
        examples.append(Example(tokens, ((2, 4), (5, length)), "f:1"))
    return examples


def _one_by_one(model, example):
    logits = np.array(model(mx.array(example.tokens)[None])[0], np.float64)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    places = [n for a, b in example.spans for n in range(a, b)]
    nll = -sum(logp[n - 1, example.tokens[n]] for n in places)
    hits = [logits[n - 1].argmax() == example.tokens[n] for n in places]
    return nll, sum(hits), len(places)


def test_batched_scores_are_those_of_each_row_alone_in_order():
    model, examples = testing.tiny_model(), _examples()
    scores = likelihood.score(SplitModel(model), examples)
    for example, score in zip(examples, scores, strict=True):
        nll, hits, tokens = _one_by_one(model, example)
        np.testing.assert_allclose(score.nll, nll, rtol=1e-5)
        assert (score.correct, score.tokens) == (hits, tokens)


def test_entropy_is_that_of_each_rows_whole_distributions():
    model, examples = testing.tiny_model(), _examples()
    scores = likelihood.score(SplitModel(model), examples, entropy=True)
    for example, score in zip(examples, scores, strict=True):
        logits = np.array(model(mx.array(example.tokens)[None])[0], np.float64)
        logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        places = [n for a, b in example.spans for n in range(a, b)]
        wanted = -sum((np.exp(logp) * logp)[n - 1].sum() for n in places)
        np.testing.assert_allclose(score.entropy, wanted, rtol=1e-4)
    (plain, *_) = likelihood.score(SplitModel(model), examples)
    assert np.isnan(plain.entropy)


def test_the_order_of_rows_does_not_matter():
    split, examples = SplitModel(testing.tiny_model()), _examples()
    forward = likelihood.score(split, examples)
    backward = likelihood.score(split, examples[::-1])[::-1]
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_allclose(a.nll, b.nll, rtol=1e-6)


def test_scores_are_the_same_on_the_kept_states_of_frozen_blocks(monkeypatch):
    split, examples = SplitModel(testing.tiny_model()), _examples()
    trunk = Trunk(split, 1, MemoryStore(10**6))
    plain = likelihood.score(split, examples)
    likelihood.score(split, examples, trunk=trunk)
    monkeypatch.setattr(split, "trunk", None)  # nothing is left to compute
    kept = likelihood.score(split, examples, trunk=trunk)
    assert trunk.stats.hits == trunk.stats.misses == len(examples)
    for a, b in zip(plain, kept, strict=True):
        np.testing.assert_allclose(a.nll, b.nll, rtol=1e-6)
        assert (a.correct, a.exact) == (b.correct, b.exact)


def test_progress_counts_every_row_once():
    seen = []
    likelihood.score(SplitModel(testing.tiny_model()), _examples(), seen.append)
    assert sum(seen) == 9


def test_exact_means_that_greedy_decoding_writes_this_last_turn():
    model = testing.tiny_model()
    prompt = [5, 9, 33, 7]
    greedy = list(prompt)
    for _ in range(6):
        logits = model(mx.array(greedy)[None])[0, -1]
        greedy.append(int(mx.argmax(logits).item()))
    right = Example(tuple(greedy), ((1, 3), (4, 10)), "f:1")
    wrong = Example((*greedy[:-1], (greedy[-1] + 1) % 250), ((4, 10),), "f:2")
    scores = likelihood.score(SplitModel(model), [right, wrong])
    assert [score.exact for score in scores] == [True, False]
