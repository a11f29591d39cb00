"""hf:owner/name[@revision][/file]: weights from the Hugging Face hub, and only when asked for by that name.

The package huggingface_hub (an extra) does the download, so its cache, HF_HOME, HF_HUB_OFFLINE and tokens
hold. Without a file, the folder's JSON and safetensors are fetched, and no other file: no pickle, no code.
What was fetched is then read like any file or folder on disk.
"""

import re
from pathlib import Path
from types import ModuleType

from invsolve.errors import DownloadError, InputError
from invsolve.priors.checkpoints.diffusers_folder import is_diffusers
from invsolve.priors.checkpoints.hints import BESIDE

__all__ = ["PREFIX", "fetch"]

PREFIX = "hf:"
FORM = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>.+))?")
WANTED = ["*.json", "*.safetensors", "unet/*.json", "unet/*.safetensors", "scheduler/*.json", BESIDE]


def fetch(name: str) -> Path:
    """Download what the name means; returns the file or folder of weights in the cache."""
    found = FORM.fullmatch(name)
    if not found:
        raise InputError(f"{name!r} is no name on the hub: write hf:owner/name, hf:owner/name@revision/FILE.")
    hub, repo, revision = _package(name), found["repo"], found["revision"]
    try:
        if found["file"]:
            return Path(hub.hf_hub_download(repo, found["file"], revision=revision))
        return _weights(name, Path(hub.snapshot_download(repo, revision=revision, allow_patterns=WANTED)))
    except InputError:
        raise
    except Exception as error:  # the package has many kinds: offline, no such repository, no permission
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise DownloadError(f"{name} could not be downloaded: {said}") from None


def _package(name: str) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(f"{name} needs a package: pip install 'invsolve[hub]'.") from None
    return huggingface_hub


def _weights(name: str, folder: Path) -> Path:
    """The folder itself where it is of diffusers, else its only weight file."""
    if is_diffusers(folder):
        return folder
    files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*.safetensors"))
    if len(files) != 1:
        there = ", ".join(files) or "no safetensors"
        raise InputError(f"{name} holds {there}. Name the file: {name}/FILE.")
    return folder / files[0]
