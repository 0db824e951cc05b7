"""Makes the embedding function ``align`` known to LanceDB, as soon as there is a LanceDB to know it.

LanceDB finds no plugins by itself, and takes two to three seconds to import. Every worker of a job imports this
package and few need LanceDB, so it is not imported here: when somebody does, the function is registered right after.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

LANCEDB, REGISTRY, FUNCTION = "lancedb", "lancedb.embeddings.registry", "lance_align.embedding_function"


def register_with_lancedb() -> None:
    """Register now if LanceDB is imported, else when it is; where it is not installed nothing happens."""
    if sys.modules.get(LANCEDB) is not None:
        importlib.import_module(FUNCTION)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds LanceDB and its registry as the other finders do, and hands them out with a loader that registers.

    The registry as well as LanceDB: another thread may take it while the import of LanceDB still goes on.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in (LANCEDB, REGISTRY):
            return None
        others = (finder for finder in tuple(sys.meta_path) if not isinstance(finder, _Finder))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module keeps its own loader: what reads its files later asks for that one.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        importlib.import_module(FUNCTION)
