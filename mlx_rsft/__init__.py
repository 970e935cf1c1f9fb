"""Reward-rectified supervised fine-tuning on MLX.

Importing the package prepares the machine (a fast BLAS on Linux) and nothing else;
every part is imported by its own name, so that a command pays only for what it uses.
"""

from importlib.metadata import version

from mlx_rsft import blas, machine

__all__ = ["__version__"]
__version__ = version("mlx-rsft")

blas.load()
machine.keep_freed_memory()
