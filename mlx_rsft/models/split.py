"""A model in two parts: the backbone that makes hidden states, the head that reads them.

Both parts are the model's own ``__call__``: a stand-in takes the backbone's place and
hands over, or takes in, hidden states. So soft caps and logit scaling stay as the model
has them. Shapes: B rows, T positions, D width, N chosen positions, V vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Sequence

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_rsft.errors import ModelError
from mlx_rsft.models import cpu_kernels, seam, trimmed
from mlx_rsft.models.recompute import recomputing
from mlx_rsft.models.seam import Answer, StandIn, TrunkStates

PROBE_LENGTH = 16


class SplitModel:
    """The two parts of a model, checked against the whole on a probe.

    Args:
        model: mlx-lm's model.

    Attributes:
        recomputed: Blocks that keep their inputs alone and are run again for the gradient.
        trims: Whether the last block can be run at chosen positions alone.

    Raises:
        ModelError: If the model has no backbone with layers, or its parts do not
            compute what the whole computes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.recomputed: Sequence[int] = ()
        self._parent, self._name = _find_backbone(model)
        self._check()
        self.trims = self._can_trim()

    @property
    def backbone(self) -> nn.Module:
        return self._parent[self._name]

    @property
    def num_blocks(self) -> int:
        return len(self.backbone["layers"])

    @functools.cached_property
    def no_states(self) -> mx.array:
        """Hidden states of no position, (0, D): their width and type."""
        with without_dropout(self.model):  # random numbers are for training alone
            sample_BTD = self.hidden(mx.zeros((1, 1), mx.int32))
        # The sample is never computed, and must not stay: it and even its type, as an
        # object, would hold the parameters that it was to be computed from.
        return mx.zeros((0, sample_BTD.shape[-1]), sample_BTD.dtype)

    def hidden(self, tokens_BT: mx.array, trunk: TrunkStates | None = None) -> mx.array:
        """Hidden states after the last norm, (B, T, D).

        Args:
            tokens_BT: The batch.
            trunk: What the frozen blocks made of it; they are then not run again.
        """
        return self._run(tokens_BT, trunk, {})

    def supervised(
        self,
        tokens_BT: mx.array,
        rows_N: mx.array,
        trunk: TrunkStates | None = None,
    ) -> mx.array:
        """Hidden states (N, D) at flat positions ``b * T + t``: all the head needs.

        Where these are few, the last block is run for them alone.
        """
        if self.trims and trimmed.pays(rows_N, tokens_BT):
            return self._trimmed(tokens_BT, rows_N, trunk)
        hidden_BTD = self.hidden(tokens_BT, trunk)
        return hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[rows_N]

    def _trimmed(
        self, tokens_BT: mx.array, rows_N: mx.array, trunk: TrunkStates | None
    ) -> mx.array:
        last = self.num_blocks - 1
        run = trimmed.trimming(self.backbone["layers"][last], rows_N)
        return self._run(tokens_BT, trunk, {last: run})[0]

    def _run(
        self,
        tokens_BT: mx.array,
        trunk: TrunkStates | None,
        answers: dict[int, Answer],
    ) -> mx.array:
        """The backbone with other ways to run some of its blocks."""
        answers = answers | self._recomputing(answers)
        if trunk is not None:
            assert trunk.values_BTD.shape[:2] == tokens_BT.shape
            answers |= seam.above(trunk)
        with (
            cpu_kernels.exchanged(self.model),
            seam.standing_in(self.backbone, answers),
        ):
            return self.backbone(tokens_BT)

    def _recomputing(self, answers: dict[int, Answer]) -> dict[int, Answer]:
        layers: list[nn.Module] = self.backbone["layers"]
        return {
            place: self._again(layers[place], answers.get(place, layers[place]))
            for place in self.recomputed
        }

    def _again(self, block: nn.Module, forward: Answer) -> Answer:
        return recomputing(block, forward)

    def trunk(self, tokens_BT: mx.array, depth: int) -> TrunkStates:
        """What the first ``depth`` blocks make of a batch; the others are not run."""
        with cpu_kernels.exchanged(self.model):
            return TrunkStates(depth, seam.run_below(self.backbone, tokens_BT, depth))

    def head(self, hidden_ND: mx.array) -> mx.array:
        """Logits (N, V) of any hidden states (N, D)."""
        with self._standing_in(lambda *_, **__: hidden_ND[None]):
            return self.model(mx.zeros((1, 1), mx.int32))[0]

    def head_parameters(self) -> dict[str, mx.array]:
        """Trainable parameters outside the layers, by name: those of a trained head."""
        leaves: list[tuple[str, mx.array]] = tree_flatten(  # pyright: ignore
            self.model.trainable_parameters()
        )
        return {name: value for name, value in leaves if ".layers." not in f".{name}"}

    def head_with(
        self, parameters: dict[str, mx.array], hidden_ND: mx.array
    ) -> mx.array:
        """Logits under other values of the head's parameters."""
        before = self.head_parameters()
        self.model.load_weights(list(parameters.items()), strict=False)
        try:
            return self.head(hidden_ND)
        finally:
            self.model.load_weights(list(before.items()), strict=False)

    @contextlib.contextmanager
    def _standing_in(self, answer: Callable[..., mx.array]) -> Generator[None]:
        backbone = self.backbone
        # Through the dict, so that the place among the parameters stays.
        self._parent[self._name] = StandIn(backbone, answer)
        try:
            yield
        finally:
            self._parent[self._name] = backbone

    def _check(self) -> None:
        tokens = mx.arange(PROBE_LENGTH)[None] % 100
        with without_dropout(self.model), cpu_kernels.exchanged(self.model):
            whole = self.model(tokens)[0]
            parts = self.head(self.hidden(tokens)[0])
        if not mx.array_equal(whole, parts).item():
            raise ModelError(
                "The model's logits cannot be computed from its last hidden states "
                f"(they differ by {mx.abs(whole - parts).max().item():g}).",
                hint="This architecture is not supported yet.",
            )

    def _can_trim(self) -> bool:
        """Try it on a probe; a block that is made otherwise is simply run in whole."""
        tokens = mx.arange(PROBE_LENGTH).reshape(2, -1) % 100
        rows = mx.array([2, 7, 9])
        with without_dropout(self.model):
            whole_BTD = self.hidden(tokens)
            whole = whole_BTD.reshape(-1, whole_BTD.shape[-1])[rows]
            try:
                part = self._trimmed(tokens, rows, None)
            except (KeyError, TypeError, ValueError, AttributeError):
                return False
            return part.shape == whole.shape and self._agree(part, whole)

    def _agree(self, part: mx.array, whole: mx.array) -> bool:
        """But for rounding: the shape of a product decides the order of its sums."""
        apart = mx.abs(part - whole).max() / mx.abs(whole).max()
        return bool(apart.item() < mx.finfo(whole.dtype).eps ** 0.5)


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Generator[None]:
    """Run the block with the model as it is outside of training."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _find_backbone(model: nn.Module) -> tuple[nn.Module, str]:
    """The outermost module that holds the list of layers: its parent and its name."""
    queue: list[nn.Module] = [model]
    while queue:
        parent = queue.pop(0)
        for name, child in parent.items():
            if isinstance(child, nn.Module):
                if isinstance(child.get("layers"), list):
                    return parent, name
                queue.append(child)
    raise ModelError(
        "The model has no backbone with a list of layers.",
        hint="This architecture is not supported yet.",
    )
