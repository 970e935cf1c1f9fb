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
from mlx_rsft.models import cpu_kernels, seam
from mlx_rsft.models.recompute import recomputing
from mlx_rsft.models.seam import Answer, StandIn, TrunkStates

PROBE_LENGTH = 16


class SplitModel:
    """The two parts of a model, checked against the whole on a probe.

    Args:
        model: mlx-lm's model.

    Attributes:
        recomputed: Blocks that keep their inputs alone and are run again for the gradient.

    Raises:
        ModelError: If the model has no backbone with layers, or its parts do not
            compute what the whole computes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.recomputed: Sequence[int] = ()
        self._parent, self._name = _find_backbone(model)
        self._check()

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
        answers = self._recomputing()
        if trunk is not None:
            assert trunk.values_BTD.shape[:2] == tokens_BT.shape
            answers |= seam.above(trunk)
        with (
            cpu_kernels.exchanged(self.model),
            seam.standing_in(self.backbone, answers),
        ):
            return self.backbone(tokens_BT)

    def _recomputing(self) -> dict[int, Answer]:
        layers: list[nn.Module] = self.backbone["layers"]
        return {place: recomputing(layers[place]) for place in self.recomputed}

    def trunk(self, tokens_BT: mx.array, depth: int) -> TrunkStates:
        """What the first ``depth`` blocks make of a batch; the others are not run."""
        with cpu_kernels.exchanged(self.model):
            return TrunkStates(depth, seam.run_below(self.backbone, tokens_BT, depth))

    def head(self, hidden_ND: mx.array) -> mx.array:
        """Logits (N, V) of any hidden states (N, D)."""
        with self._standing_in(lambda *_, **__: hidden_ND[None]):
            return self.model(mx.zeros((1, 1), mx.int32))[0]

    def supervised(
        self,
        tokens_BT: mx.array,
        rows_N: mx.array,
        trunk: TrunkStates | None = None,
    ) -> mx.array:
        """Hidden states (N, D) at flat positions ``b * T + t``: all the head needs."""
        hidden_BTD = self.hidden(tokens_BT, trunk)
        return hidden_BTD.reshape(-1, hidden_BTD.shape[-1])[rows_N]

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
