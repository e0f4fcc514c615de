"""A module once more, as it is where nobody could compile another that it would take."""

import importlib.util
import sys
from typing import Any

import pytest


def without(missing: str, name: str) -> Any:
    """The module ``name``, made anew while ``missing`` cannot be imported."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, missing, None)
        spec.loader.exec_module(module)
    return module
