"""The product's exceptions: one base, one class for each kind of reader.

``WireError`` is for engines, which drop the packet and count it; it never crosses an engine.
Everything else is for a person: the text says what is wrong, where, and what to do, and the
command line prints it as one line and exits with ``exit_code``.
"""

from typing import ClassVar


class NetbootError(Exception):
    """Base of all errors that netboot raises on purpose."""

    exit_code: ClassVar[int] = 2


class WireError(NetbootError):
    """Bytes from the network do not follow their format."""


class ConfigError(NetbootError):
    """A setting, or the machine the settings describe, is not usable as it is."""


class ImageError(NetbootError):
    """A golden image, a version or an overlay is missing, in use, or not what it was."""


class LabError(NetbootError):
    """The lab (namespace, virtual machines) could not be started."""
