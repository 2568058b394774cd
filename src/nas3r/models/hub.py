"""Weights from the Hugging Face hub."""

import re
from pathlib import Path

from nas3r.models.official.catalog import REPOSITORY, REVISION, Card

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(/[\w./-]+)?")
_SUFFIXES = (".safetensors", ".ckpt")


def looks_like_repository(name: str) -> bool:
    """Whether a name has the form "owner/repository" or "owner/repository/file"."""
    return _REPOSITORY.fullmatch(name) is not None and not name.startswith(".")


def download(name: str) -> Path:
    """Path of a downloaded (or cached) weights file.

    Args:
        name: "owner/repository", where the repository holds one weights file, or "owner/repository/file".

    Raises:
        ModuleNotFoundError: If huggingface_hub is not installed.
        ConnectionError: If the hub cannot be reached, or has no such repository or file.
        ValueError: If the repository holds no weights file, or several.
    """
    huggingface_hub = _package(f"{name!r} is no local file; hub repositories need")
    owner, repository, *rest = name.split("/", 2)
    repo_id = f"{owner}/{repository}"
    try:
        file = rest[0] if rest else _only_weights_file(repo_id, huggingface_hub.list_repo_files(repo_id))
        return Path(huggingface_hub.hf_hub_download(repo_id, file))
    except ValueError:
        raise
    except Exception as error:  # network stacks raise many kinds
        raise ConnectionError(
            f"{name!r} is no local file, and cannot be fetched from the hub ({type(error).__name__})"
        ) from None


def download_official(card: Card) -> Path:
    """Path of published weights, downloaded or cached.

    Raises:
        ModuleNotFoundError: If huggingface_hub is not installed.
        ConnectionError: If the file is not cached, and the hub cannot be reached or does not have it.
    """
    huggingface_hub = _package(f"{card.name}: official weights need")
    try:
        return Path(huggingface_hub.hf_hub_download(REPOSITORY, card.file, revision=REVISION))
    except Exception as error:  # network stacks raise many kinds
        raise ConnectionError(
            f"{card.name}: {card.file} is not in the hub's cache, and {REPOSITORY} cannot be reached for it "
            f"({type(error).__name__}); fetch the file where there is a network, and give its path"
        ) from None


def cached_official(card: Card) -> Path | None:
    """Path of published weights that were downloaded before; None otherwise."""
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        return None
    found = huggingface_hub.try_to_load_from_cache(REPOSITORY, card.file, revision=REVISION)
    return Path(found) if isinstance(found, str) else None


def _package(need: str):
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{need} huggingface_hub: pip install 'nas3r[hub]'") from None
    return huggingface_hub


def _only_weights_file(repo_id: str, files: list[str]) -> str:
    for suffix in _SUFFIXES:
        found = [f for f in files if f.endswith(suffix)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{repo_id}: several weights files; name one: {', '.join(sorted(found))}")
    raise ValueError(f"{repo_id}: no {' or '.join(_SUFFIXES)} file among its {len(files)} files")
