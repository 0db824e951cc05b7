"""Which files of a table its versions need: told from each version by itself, not by what cleanup asks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lance


def on_disk(uri: str) -> set[str]:
    """Every file below the table's folder."""
    return {path.relative_to(uri).as_posix() for path in Path(uri).rglob("*") if not path.is_dir()}


def needed(uri: str) -> set[str]:
    """Data, deletion and index files, transactions and manifests of every version, tag and branch."""
    dataset = lance.dataset(uri)
    found = {"_versions/latest_version_hint.json"}
    found |= {f"_refs/tags/{name}.json" for name in dataset.tags.list()}
    for number in (version["version"] for version in dataset.versions()):
        manifest = f"_versions/{2**64 - 1 - number}.manifest"
        named = re.findall(rb"\d+-[0-9a-f-]{36}\.txn", Path(uri, manifest).read_bytes())
        found |= {manifest, *(f"_transactions/{name.decode()}" for name in named)}
        found |= _of_version(uri, lance.dataset(uri, version=number))
    for name in dataset.branches.list():
        branch = dataset.checkout_version((name, None))
        found.add(f"_refs/branches/{name}.json")
        found |= {path for path in on_disk(uri) if path.startswith(f"tree/{name}/")}
        found |= {path for path in _of_version(uri, branch) if path.startswith("data/")}
    return found


def orphans(uri: str) -> set[str]:
    """Files that nothing needs."""
    return on_disk(uri) - needed(uri)


def _of_version(uri: str, dataset: Any) -> set[str]:
    found: set[str] = set()
    for fragment in dataset.get_fragments():
        found |= {f"data/{file.path}" for file in fragment.data_files()}
        deletion = fragment.deletion_file()
        found |= {deletion} if deletion else set()
    for index in dataset.describe_indices():
        for segment in index.segments:
            folder = Path(uri, "_indices", segment.uuid)
            found |= {path.relative_to(uri).as_posix() for path in folder.rglob("*")}
    return found
