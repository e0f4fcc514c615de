"""``python -m netboot``: the same as the ``netboot`` command."""

from netboot.cli import main

if __name__ == "__main__":
    main()
