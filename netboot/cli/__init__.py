"""The command line: ``entry`` is the door, and each noun has a module of its own."""

from netboot.cli.entry import main

__all__ = ["main"]
