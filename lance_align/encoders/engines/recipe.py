"""What decides a compiled tower: its digest names the tower's folder in the cache."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterator
from importlib.metadata import version
from types import CodeType, ModuleType
from typing import Any

from lance_align.encoders.families import family
from lance_align.spec import ModelSpec

_OURS = "lance_align."
_LIBRARIES = ("torch", "transformers")
_CONSTANTS = (str, int, float, tuple)


def recipe(spec: ModelSpec, *, engine: str) -> str:
    """Digest of a checkpoint, of what its pixels go through, and of all code that makes a graph of it.

    Our own code counts as it is in memory, so that nobody has to remember to raise a number.

    Args:
        spec: of the model.
        engine: its name and release.
    """
    parts = [
        engine,
        spec.fingerprint,
        spec.family,
        repr(spec.image),
        *(f"{name} {version(name)}" for name in _LIBRARIES),
    ]
    kind = type(family(spec.family, where=spec.name))
    modules = dict.fromkeys(each.__module__ for each in kind.__mro__ if each.__module__.startswith(_OURS))
    for name in (*modules, f"{__package__}.graph", f"{__package__}.base"):
        parts.extend(_written(importlib.import_module(name)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _written(module: ModuleType) -> Iterator[str]:
    """The constants, functions and classes that a module uses, of ours, with the classes they are made of."""
    for name, value in sorted(vars(module).items()):
        if name.isupper() and isinstance(value, _CONSTANTS):
            yield f"{name} = {value!r}"
        elif inspect.isclass(value):
            for each in value.__mro__:
                if each.__module__.startswith(_OURS):
                    yield from _functions(vars(each), f"{each.__module__}.{each.__qualname__}")
        elif str(getattr(value, "__module__", "")).startswith(_OURS):
            yield from _functions({name: value}, module.__name__)


def _functions(members: Any, where: str) -> Iterator[str]:
    for name, value in sorted(members.items()):
        function = inspect.unwrap(getattr(value, "__func__", None) or getattr(value, "fget", None) or value)
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield f"{where}.{name} {_code(code)}"
        elif isinstance(value, _CONSTANTS) and not name.startswith("__"):
            yield f"{where}.{name} = {value!r}"


def _code(code: CodeType) -> str:
    """Instructions, names and constants, without line numbers and places of files."""
    constants = " ".join(map(_constant, code.co_consts))
    return f"{code.co_code.hex()} {code.co_names} {code.co_freevars} {constants}"


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _code(value)
    return repr(sorted(value, key=repr) if isinstance(value, frozenset) else value)  # a set's order is by chance
