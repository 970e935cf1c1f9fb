"""Bytes of a training step, item by item: arithmetic on sizes, without a model.

A step holds its state (weights, adapter, optimizer) throughout, and above that the most
in one of three moments: when the loss of its largest micro-batch is computed, when its
backward pass begins, or when the parameters are updated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

GIB = 1 << 30
MACHINES = (8, 16, 24, 32, 64, 128)
"""Memory of machines that one may ask about, in GiB."""
SMALL_SHARE, LARGE_SHARE, LARGE = 2 / 3, 3 / 4, 32
"""What Metal lets a process hold: of machines up to ``LARGE`` GiB, and of larger ones."""

CHUNK_COPIES = 6
"""Arrays of a chunk's logits alive at once, most in the head's backward pass: logits,
what is raised to e, its two halves, slope, slope with the targets marked. Measured."""
PULL_COPIES, REFERENCE_COPIES = 1, 2
"""More of them where a loss is drawn to another distribution; to the base model's."""
TRAINED_HEAD_COPIES = 9
"""The same for a trained head, whose loss is differentiated by mlx."""
AT_ONCE, UPDATE_COPIES = 8, 2
"""Parameters that mlx updates at once, and arrays of each beside gradients. Measured."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What of a model its memory hangs on; bytes.

    Attributes:
        weights: All that is not trained, or that is trained in place.
        adapter: What is trained beside the weights.
        trained: All that is trained.
        largest: The ``AT_ONCE`` largest parameters that are trained.
        moments: What the optimizer keeps.
        token_logits: Float32 logits of one token.
        chunk_rows: Tokens whose logits are computed at once; a number.
        head: Those of the head's parameters that are trained.
    """

    weights: int
    adapter: int
    trained: int
    largest: int
    moments: int
    token_logits: int
    chunk_rows: int
    head: int = 0


@dataclass(frozen=True, slots=True)
class Portion:
    """The micro-batch that holds the most.

    Attributes:
        scores: Bytes of attention scores that it keeps.
        activations: Bytes of everything else that it keeps.
        supervised: Tokens that reach the head.
        before: Micro-batches of the same step that came before it.
        pulled: Arrays of logits more, where the loss is drawn to something.
        again: Bytes that a block keeps of it while it is computed again.
    """

    scores: int
    activations: int
    supervised: int
    before: int = 0
    pulled: int = 0
    again: int = 0


@dataclass(frozen=True, slots=True)
class Items:
    """Bytes by what they are for, at the moment of the peak.

    Attributes:
        attention: Scores of attention, kept for the backward pass.
        activations: Other results of the blocks, kept for it.
        loss: A chunk of logits with what is made of it.
        update: Parameters and moments that are being renewed.
        trunk: What frozen blocks made of the rows, where that is kept in memory.
    """

    weights: int
    adapter: int
    optimizer: int
    gradients: int = 0
    activations: int = 0
    attention: int = 0
    loss: int = 0
    update: int = 0
    trunk: int = 0

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    @property
    def state(self) -> int:
        """What is held between two steps."""
        return self.weights + self.adapter + self.optimizer + self.trunk

    def as_record(self) -> dict[str, int]:
        return asdict(self)

    def corrected(self, peak_bytes: int) -> Items:
        """The same with all above the state in proportion, so that they sum to a peak.

        Args:
            peak_bytes: Of a real step, without a trunk.
        """
        above = self.total - self.state
        share = max(0, peak_bytes + self.trunk - self.state) / above if above else 1.0
        fixed = ("weights", "adapter", "optimizer", "trunk")
        scaled = {
            name: size if name in fixed else round(size * share)
            for name, size in asdict(self).items()
        }
        return Items(**scaled)


def items(sizes: Sizes, portion: Portion) -> Items:
    """The step's items when it holds the most."""
    state = Items(sizes.weights, sizes.adapter, sizes.moments)
    moments = (
        replace(
            state,
            # The sum so far.
            gradients=min(portion.before, 1) * sizes.trained,
            activations=portion.activations,
            attention=portion.scores,
            loss=_loss(sizes, portion),
        ),
        replace(
            state,
            gradients=min(portion.before, 1) * sizes.trained,
            activations=portion.activations + portion.again,
            attention=portion.scores,
        ),
        replace(
            state,
            # As they come from the backward pass, and divided.
            gradients=2 * sizes.trained,
            update=UPDATE_COPIES * sizes.largest,
        ),
    )
    return max(moments, key=lambda found: found.total)


def _loss(sizes: Sizes, portion: Portion) -> int:
    copies = TRAINED_HEAD_COPIES if sizes.head else CHUNK_COPIES + portion.pulled
    rows = min(portion.supervised, sizes.chunk_rows)
    # A trained head's gradient so far, and that of the chunk.
    return copies * rows * sizes.token_logits + 2 * sizes.head


def may_hold(memory_gib: int) -> int:
    """Bytes that mlx may hold on a Mac of so much memory."""
    share = SMALL_SHARE if memory_gib <= LARGE else LARGE_SHARE
    return int(memory_gib * GIB * share)
