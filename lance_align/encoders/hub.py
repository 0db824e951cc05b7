"""A model's name to its directory on this machine.

The only file of the encoders that may reach a network, for a name the user gave.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from lance_align.encoders import conversions
from lance_align.errors import ModelError
from lance_align.hints import did_you_mean
from lance_align.paths import expanded
from lance_align.spec import BUNDLED_MODEL

# Exact names: no code, no pickles, no other framework's weights.
CHECKPOINT_FILES = (
    "config.json",
    "merges.txt",
    "model.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
)

# What tells a repository of another form, so that the error can name it.
_MARKS = ("adapter_config.json", "modules.json", "open_clip_config.json")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/name`` of a hub repository."""
    return _HUB_ID.fullmatch(name) is not None


def find(
    model: str | Path,
    *,
    revision: str | None = None,
    files: Sequence[str] = CHECKPOINT_FILES,
    known: Sequence[str] = (),
) -> tuple[Path, str, str | None]:
    """The directory that a model's name means: itself, or a hub repository, which is brought here.

    Args:
        model: a directory or a hub id.
        revision: a branch, tag or commit of a hub model.
        files: see `download`.
        known: other names that would have been understood, for the error.

    Returns:
        the directory, the name that finds it again, and the commit of a hub model.

    Raises:
        ModelError: neither; a revision of a directory; or as `download`.
    """
    name = str(model)
    directory = None
    with contextlib.suppress(ModelError, OSError):  # no path at all, too long a one, or one that nobody may look at
        path = expanded(name, ModelError)
        directory = path.resolve() if name and path.is_dir() else None
    if directory is not None:
        refuse_revision(name, revision)
        return directory, str(directory), None
    if not is_hub_id(name):
        seen = f"not a known name ({', '.join(known)}), not" if known else "not"
        raise ModelError(
            f"unknown model {name!r:.200}: {did_you_mean(name, known)}it is {seen} a hub id (owner/name), and there is "
            "no such directory"
        )
    directory, commit = download(name, revision=revision, files=files, known=known)
    return directory, name, commit


def refuse_revision(name: str, revision: str | None) -> None:
    """For models that have none.

    Raises:
        ModelError: one is given.
    """
    if revision is not None:
        raise ModelError(f"revision {revision!r} given for {name!r}, which is not a hub model; leave it out")


def download(
    repo_id: str, *, revision: str | None, files: Sequence[str] = CHECKPOINT_FILES, known: Sequence[str] = ()
) -> tuple[Path, str]:
    """Bring a checkpoint into the Hugging Face cache, or find it there.

    A hub that cannot be reached, and ``HF_HUB_OFFLINE=1``, are answered from the cache. Where the main branch has no
    safetensors, those are taken that the hub's converter has made of it; see `lance_align.encoders.conversions`.

    Args:
        repo_id: ``owner/name``.
        revision: a branch, tag or commit, which is taken as it is; None for the main branch.
        files: names or patterns of what is brought.
        known: names that would do as well, for the error; one of them is bundled.

    Returns:
        the directory and the commit hash it holds.

    Raises:
        ModelError: not in the cache and the hub cannot be reached, does not know it, or keeps it private.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = repr(repo_id) if revision is None else f"{repo_id!r} at revision {revision!r}"

    near = "" if repo_id in known else did_you_mean(repo_id, known)
    others = "name a directory (--model DIRECTORY)"
    others += f", or take --model {BUNDLED_MODEL}, which knows drawings and emoji only" if known else ""

    def snapshot(of: str | None) -> Path:
        return Path(snapshot_download(repo_id, revision=of, allow_patterns=[*files, *_MARKS]))

    try:
        directory = snapshot(revision)
        if revision is None and not conversions.has_safetensors(directory):
            converted = _converted(repo_id, directory.name)
            directory = directory if converted is None else snapshot(converted)
    except GatedRepoError as error:
        raise ModelError(f"model {what} is gated on the hub; accept its terms there and run: hf auth login") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"model {what}: the hub has no such revision; leave it out for the newest") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"model {what} is not on the hub, or is private; {near}check the spelling, or run: hf auth login"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"model {what} is not here and the hub cannot be reached; {near}bring it where there is a network "
            f"(hf download {repo_id}), or {others}"
        ) from error
    except Exception as error:  # httpx, proxy and file system errors: a closed list would miss the next release's
        reason = str(error).splitlines()[0] if str(error) else ""
        raise ModelError(
            f"model {what} could not be fetched from the hub ({type(error).__name__}: {reason}); {near}{others}"
        ) from error
    return directory, directory.name


def cached_weights(repo_id: str) -> Path | None:
    """The weights in the Hugging Face cache that `download` would give; None where they are not there."""
    from huggingface_hub import try_to_load_from_cache

    for revision in (None, conversions.cached(repo_id)):
        found = try_to_load_from_cache(repo_id, "model.safetensors", revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _converted(repo_id: str, commit: str) -> str | None:
    """The revision that has a commit's weights as safetensors; None where there is none, or nobody can say."""
    try:
        return conversions.offered(repo_id, commit)
    except Exception:  # noqa: BLE001  # no network, discussions switched off; what is here may do
        return conversions.cached(repo_id)
