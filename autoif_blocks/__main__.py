"""`python -m autoif_blocks` is the `autoif` command."""

from .cli import main

if __name__ == "__main__":
    main()
