import mlx.core as mx

from mlx_rsft import testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation import generate, likelihood
from mlx_rsft.models.split import SplitModel


def _greedy(model, prompt, count, end):
    tokens = list(prompt)
    for _ in range(count):
        token = int(mx.argmax(model(mx.array(tokens)[None])[0, -1]).item())
        if token == end:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def test_batched_greedy_answers_are_those_of_plain_greedy_decoding():
    model, tokenizer = testing.tiny_model(), testing.byte_tokenizer()
    prompts = [(5, 6, 7), (1, 2, 3, 4, 5, 6, 7, 8), (9,)]
    examples = [Example((*p, 1), ((len(p), len(p) + 1),), "f") for p in prompts]
    end = testing.VOCABULARY - 1
    wanted = [tokenizer.decode(_greedy(model, p, 9, end)) for p in prompts]
    written = generate.answers(model, tokenizer, examples, max_tokens=9)
    assert [answer.text for answer in written] == wanted


def test_streaming_joins_to_the_greedy_answer_and_sampling_follows_the_seed():
    model, tokenizer = testing.tiny_model(), testing.byte_tokenizer()
    options = {"max_tokens": 12, "temperature": 0.0, "seed": 0}

    def text(**changes):
        pieces = generate.stream(model, tokenizer, [5, 6, 7], **{**options, **changes})
        return "".join(pieces)

    greedy = _greedy(model, (5, 6, 7), 12, testing.VOCABULARY - 1)
    assert text() == tokenizer.decode(greedy)
    hot = {"temperature": 2.0}
    assert text(**hot) == text(**hot)
    assert text(**hot) != text(**hot, seed=1)


def test_an_answer_says_whether_it_ended_and_how_long_it_is():
    model, tokenizer = testing.tiny_model(), testing.byte_tokenizer()
    end = _greedy(model, (3,), 6, None)[-1]  # a token that it does write
    tokenizer.eos_token_ids = {end}
    examples = [Example((n, 1), ((1, 2),), "f") for n in range(1, 30)]
    written = generate.answers(model, tokenizer, examples, max_tokens=10)
    assert {answer.ended for answer in written} == {False, True}
    for example, answer in zip(examples, written, strict=True):
        tokens = _greedy(model, example.prompt, 10, end)
        assert (answer.tokens, answer.ended) == (len(tokens), len(tokens) < 10)
        if answer.ended:  # also where the very last token allowed is the end
            (same,) = generate.answers(model, tokenizer, [example], len(tokens) + 1)
            assert same == answer


def test_samples_follow_the_seed_and_come_near_greedy_when_cold():
    model, tokenizer = testing.tiny_model(), testing.byte_tokenizer()
    examples = [Example((n, 1), ((1, 2),), "f") for n in range(1, 12)]

    def drawn(**changes):
        sampling = generate.Sampling(**{"samples": 4, "temperature": 1.0, **changes})
        rows = generate.samples(model, tokenizer, examples, 6, sampling)
        assert [len(row) for row in rows] == [4] * 11
        return rows

    assert drawn() == drawn()
    assert drawn() != drawn(seed=1)
    greedy = generate.answers(model, tokenizer, examples, 6)
    assert drawn(temperature=1e-4) == [[answer] * 4 for answer in greedy]


def test_answers_that_begin_behind_what_is_known_are_those_decoded_from_the_start():
    model, tokenizer = testing.tiny_model(), testing.byte_tokenizer()
    end = _greedy(model, (3,), 6, None)[-1]  # a token that it does write
    tokenizer.eos_token_ids = {end}
    prompts = [Example((n, 1), ((1, 2),), "f") for n in range(1, 30)]
    plain = generate.answers(model, tokenizer, prompts, max_tokens=10)
    shown, agreed = [], []
    for prompt in prompts:
        tokens = [*_greedy(model, prompt.prompt, 12, end), end]
        right = prompt.tokens[0] % len(tokens)  # then a token that it would not choose
        tokens[right:] = [token ^ 1 for token in tokens[right:]]
        row = (*prompt.prompt, *tokens)
        shown.append(Example(row, ((1, len(row)),), "f"))
        agreed.append(right)
    scores = likelihood.score(SplitModel(model), shown)
    assert [score.agreed for score in scores] == agreed
    told = []
    written = generate.answers(model, tokenizer, shown, 10, told.append, agreed)
    assert written == plain
    assert sum(told) == len(shown)


def test_a_row_that_is_right_throughout_is_not_decoded(monkeypatch):
    model, tokenizer = testing.tiny_model(), testing.byte_tokenizer()
    end = testing.VOCABULARY - 1
    tokens = [5, *_greedy(model, (5,), 4, None), end]
    rows = [Example(tuple(tokens), ((1, len(tokens)),), "f")]
    monkeypatch.setattr(generate, "_written", None)  # calling it would raise
    (whole,) = generate.answers(model, tokenizer, rows, 9, agreed=[5])
    assert (whole.tokens, whole.ended) == (4, True)
    (cut,) = generate.answers(model, tokenizer, rows, 3, agreed=[5])
    assert (cut.tokens, cut.ended) == (3, False)
