"""Safetensors for a hub repository that has a pickle alone: the copy that the hub's own converter offers beside it.

`openai/clip-vit-base-patch32` is such a repository: its safetensors stand in a pull request that nobody has merged.
Transformers takes them from there too (transformers.safetensors_conversion, 5.23).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONVERTER = "SFconvertbot"  # the hub's account; a request of anybody else is not looked at
TIMEOUT_S = 10.0  # as huggingface_hub's own for the files of a model


def has_safetensors(directory: Path) -> bool:
    """Whether there are weights, in one file or in shards."""
    return any(directory.glob("model*.safetensors")) or (directory / "model.safetensors.index.json").is_file()


def offered(repo_id: str, commit: str) -> str | None:
    """The converter's open pull request for the weights of a commit, as a revision (``refs/pr/15``); None for none.

    That it was made from these weights is seen in the pickles that it has beside its safetensors.

    Raises:
        Exception: of huggingface_hub and its HTTP client, where the hub cannot be asked.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    wanted = _pickles(api, repo_id, commit)
    if not wanted:
        return None
    requests = api.get_repo_discussions(
        repo_id, author=CONVERTER, discussion_type="pull_request", discussion_status="open"
    )
    for request in requests:
        reference = request.git_reference
        if request.author == CONVERTER and reference and _pickles(api, repo_id, reference) == wanted:
            return reference
    return None


def cached(repo_id: str) -> str | None:
    """The pull request whose safetensors are in the Hugging Face cache; None for none, or for several."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")
    requests = [f"refs/pr/{path.name}" for path in (folder / "refs" / "refs" / "pr").glob("*")]
    found = []
    for revision in requests:
        config = try_to_load_from_cache(repo_id, "config.json", revision=revision)
        if isinstance(config, str) and has_safetensors(Path(config).parent):
            found.append(revision)
    return found[0] if len(found) == 1 else None


def _pickles(api: HfApi, repo_id: str, revision: str) -> dict[str, str]:
    """Names of the files of weights that are pickles, and what git knows their content by."""
    # One request, asked once: lists of files are asked for again and again, half a minute where there is no network.
    info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    files = {file.rfilename: file.blob_id for file in info.siblings or ()}
    return {name: blob for name, blob in files.items() if blob is not None and name.endswith(".bin")}
