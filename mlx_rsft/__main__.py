"""``python -m mlx_rsft`` is ``mlx-rsft``."""

from mlx_rsft.cli.main import main

if __name__ == "__main__":
    main()
