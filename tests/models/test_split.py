import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_map

from mlx_rsft import testing
from mlx_rsft.errors import ModelError
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.settings import AdapterSettings

TOKENS = mx.arange(24).reshape(2, 12)


@pytest.mark.parametrize("tied", [True, False])
def test_the_parts_compute_what_the_whole_computes(tied):
    model = testing.tiny_model(tie_word_embeddings=tied)
    split = SplitModel(model)
    hidden = split.hidden(TOKENS)
    logits = split.head(hidden.reshape(-1, hidden.shape[-1]))
    assert mx.allclose(logits.reshape(2, 12, -1), model(TOKENS), atol=1e-5).item()


def test_chosen_rows_have_the_logits_of_those_positions():
    model = testing.tiny_model()
    split = SplitModel(model)
    rows = mx.array([3, 17, 5])
    hidden = split.hidden(TOKENS).reshape(24, -1)[rows]
    whole = model(TOKENS).reshape(24, -1)[rows]
    assert mx.allclose(split.head(hidden), whole, atol=1e-5).item()


def test_a_soft_cap_of_the_model_stays_in_the_head():
    from mlx_lm.models import gemma2

    args = gemma2.ModelArgs(
        model_type="gemma2",
        hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=24,
        num_attention_heads=2,
        head_dim=8,
        rms_norm_eps=1e-6,
        vocab_size=128,
        num_key_value_heads=1,
        final_logit_softcapping=0.5,
    )
    split = SplitModel(gemma2.Model(args))
    logits = split.head(split.hidden(TOKENS)[0] * 50)
    assert mx.abs(logits).max().item() <= 0.5


def test_the_model_is_unchanged_after_the_head_was_asked():
    model = testing.tiny_model()
    before = list(model.parameters())
    split = SplitModel(model)
    split.head(mx.zeros((1, 24)))
    assert isinstance(model.model, nn.Module)
    assert list(model.parameters()) == before


def test_a_model_whose_head_needs_more_than_hidden_states_is_refused():
    from mlx_lm.models import llama

    class Peeking(llama.Model):
        def __call__(self, inputs, cache=None, input_embeddings=None):
            return super().__call__(inputs, cache) + inputs[..., None]

    with pytest.raises(ModelError, match="not supported"):
        SplitModel(Peeking(llama.ModelArgs.from_dict(testing.tiny_config())))


def test_a_model_without_layers_is_refused():
    with pytest.raises(ModelError, match="no backbone"):
        SplitModel(nn.Sequential(nn.Linear(2, 2)))


def test_a_model_in_training_with_dropout_is_split_as_well():
    model = testing.tiny_model()
    model.model.norm = nn.Sequential(model.model.norm, nn.Dropout(0.5))
    model.train()
    SplitModel(model)
    assert model.training


def test_asking_for_the_form_of_states_draws_no_random_number_and_holds_nothing():
    model = testing.tiny_model()
    adapters.attach(model, AdapterSettings(layers="all", dropout=0.5))
    split = SplitModel(model)
    model.train()
    mx.random.seed(3)
    wanted = mx.random.uniform(shape=(3,))
    mx.random.seed(3)
    assert split.no_states.shape == (0, 24)
    assert mx.array_equal(mx.random.uniform(shape=(3,)), wanted)
    mx.eval(wanted, model.parameters(), split.no_states)
    before = mx.get_active_memory()
    model.update(tree_map(lambda value: value * 1, model.parameters()))
    mx.eval(model.parameters())
    assert mx.get_active_memory() == before
