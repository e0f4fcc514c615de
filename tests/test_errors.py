"""Every error a person sees ends the command with 2."""

import pytest

from netboot import errors


@pytest.mark.parametrize(
    "kind", [errors.WireError, errors.ConfigError, errors.ImageError, errors.LabError]
)
def test_one_base_and_one_exit_code(kind: type[errors.NetbootError]) -> None:
    assert issubclass(kind, errors.NetbootError)
    assert kind("what is wrong").exit_code == 2
