"""OpenVINO without its telemetry."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def openvino() -> Any:
    """The package, imported without its telemetry: ``import openvino`` tells Google Analytics of it, from a fork.

    Where the package ``openvino_telemetry`` is missing, OpenVINO uses a stub; so it is, for the length of the import.
    """
    name = "openvino_telemetry"
    hide = name not in sys.modules
    if hide:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say: not installed
    try:
        return importlib.import_module("openvino")
    finally:
        if hide:
            del sys.modules[name]
