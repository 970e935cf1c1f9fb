"""The backbone's forward and backward pass, laid out as one graph and compiled.

What the loss sends back is an input of that graph, so that both passes can be laid out,
and compiled together, before any loss is known. Compiled, chains of small operations run
as one; mlx would not compile the parts that are differentiated by themselves.
Shapes: B rows, T positions, N chosen positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from mlx_rsft.models.seam import TrunkStates
from mlx_rsft.models.split import SplitModel

Found = tuple[mx.array, dict[str, mx.array]]


def laid_out(
    split: SplitModel,
    parameters: Mapping[str, mx.array],
    tokens_BT: mx.array,
    rows_N: mx.array,
    slope_ND: mx.array,
    trunk: TrunkStates | None,
) -> Found:
    """Hidden states at chosen positions, and what they send down; computes nothing.

    Args:
        split: The model; its own parameters stay as they are.
        parameters: What it has in their place, by name; all of them.
        tokens_BT: The batch.
        rows_N: Flat positions ``b * T + t``.
        slope_ND: The gradient of something with respect to the hidden states.
        trunk: What the frozen blocks made of the batch.

    Returns:
        The hidden states (N, D) in the slope's type, and the gradient with respect to
        each parameter that is trained, by its name.
    """
    model = split.model
    before: Any = model.parameters()
    names = [name for name, _ in _leaves(model.trainable_parameters())]

    def forward(*values: mx.array) -> list[mx.array]:
        now = {**parameters, **dict(zip(names, values, strict=True))}
        model.update(tree_unflatten(list(now.items())))
        return [split.supervised(tokens_BT, rows_N, trunk).astype(slope_ND.dtype)]

    try:
        (hidden_ND,), grads = mx.vjp(
            forward, [parameters[name] for name in names], [slope_ND]
        )
    finally:
        model.update(before)
    return hidden_ND, dict(zip(names, grads, strict=True))


class Passes:
    """Both passes of one model, compiled once for each shape of batch.

    They are not compiled where blocks are run again for the gradient.
    """

    def __init__(self, split: SplitModel) -> None:
        self.split = split
        state: Any = mx.random.state  # dropout draws from it
        self._run: Callable[..., Found] = mx.compile(self._traced, state, state)

    def __call__(
        self,
        tokens_BT: mx.array,
        rows_N: mx.array,
        slope_ND: mx.array,
        trunk: TrunkStates | None,
    ) -> Found:
        """What ``laid_out`` returns, of the parameters that the model has now."""
        split = self.split
        parameters = dict(_leaves(split.model.parameters()))
        if split.recomputed:  # must know numbers of the random state to draw them again
            return laid_out(split, parameters, tokens_BT, rows_N, slope_ND, trunk)
        # All that decides what is traced, beside shapes.
        trained = [name for name, _ in _leaves(split.model.trainable_parameters())]
        how = (
            split.model.training,
            split.trims,
            trained,
            trunk.depth if trunk else 0,
        )
        states = trunk.values_BTD if trunk else None
        return self._run(parameters, tokens_BT, rows_N, slope_ND, states, how)

    def _traced(
        self,
        parameters: dict[str, mx.array],
        tokens_BT: mx.array,
        rows_N: mx.array,
        slope_ND: mx.array,
        states_BTD: mx.array | None,
        how: tuple[Any, ...],
    ) -> Found:
        trunk = None if states_BTD is None else TrunkStates(how[-1], states_BTD)
        return laid_out(self.split, parameters, tokens_BT, rows_N, slope_ND, trunk)


def _leaves(tree: Any) -> list[tuple[str, mx.array]]:
    return tree_flatten(tree)  # pyright: ignore
