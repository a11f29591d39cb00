"""Which format a path holds, by its content: file names say little (.pt, .pth and .pkl mean all of these).

folder with model_index.json, or a config.json of a UNet     diffusers
PK, or the magic number of old torch.save                    torch: score_sde or ADM, by the names inside
0x80 (a pickle)                                              EDM
a header of safetensors                                      ours, or bare weights of those
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load as load_tensors

from invsolve.errors import InputError
from invsolve.files import sha256_of
from invsolve.priors.checkpoints.adm import is_adm, load_adm
from invsolve.priors.checkpoints.diffusers_folder import is_diffusers, load_diffusers
from invsolve.priors.checkpoints.edm import load_edm
from invsolve.priors.checkpoints.fit import bare, guess, one_line
from invsolve.priors.checkpoints.foreign_prior import CheckpointPrior
from invsolve.priors.checkpoints.hints import Hints, gather
from invsolve.priors.checkpoints.score_sde import is_score_sde, load_score_sde
from invsolve.priors.checkpoints.unpickle import read_records, read_torch, tensors_of
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.priors.formats import load_safetensors_prior
from invsolve.priors.weight_file import contents, header

__all__ = ["load_checkpoint"]

OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickled number, the first of the file


def load_checkpoint(path: Path, given: Mapping[str, object]) -> DenoiserPrior:
    """Load weights of any known format; given: hints of the caller. A refusal is one line, printable."""
    try:
        return _loaded(path, given)
    except InputError as error:
        said = one_line(str(error))
        if said == str(error):
            raise
        raise InputError(said) from None


def _loaded(path: Path, given: Mapping[str, object]) -> DenoiserPrior:
    start = _start(path) if path.is_file() else b""
    if start[8:9] == b"{":  # after a length, whose bytes may look like anything
        return _from_safetensors(path, given)
    hints = gather(path, given)
    if path.is_dir():
        return _from_folder(path, hints)
    if start.startswith(b"PK") or start == OLD_TORCH:
        return _from_torch(path, hints).identified(sha256_of(path), hints)
    if start.startswith(b"\x80"):
        return load_edm(path, read_records(path), hints).identified(sha256_of(path), hints)
    return load_safetensors_prior(path)  # which says what the file is instead


def _from_folder(path: Path, hints: Hints) -> CheckpointPrior:
    if is_diffusers(path):
        return load_diffusers(path, hints)
    raise InputError(f"{path} is a folder that cannot be read as weights: no unet/config.json (diffusers).")


def _start(path: Path) -> bytes:
    """First bytes of a file; none where it cannot be read, which the readers complain of."""
    try:
        with path.open("rb") as file:
            return file.read(len(OLD_TORCH))
    except OSError:
        return b""


def _from_torch(path: Path, hints: Hints) -> CheckpointPrior:
    content = read_torch(path)
    if is_score_sde(content):
        return load_score_sde(path, content, hints)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    state = bare(tensors_of(path, content))
    if is_adm(state):
        return load_adm(path, state, hints)
    raise InputError(
        f"{path} is a torch pickle of {len(state)} weights in no known format. It looks like {guess(state)}."
    )


def _from_safetensors(path: Path, given: Mapping[str, object]) -> DenoiserPrior:
    content = contents(path)
    names = header(path, content)
    if is_adm(names) or is_score_sde(names):
        load, hints = load_adm if is_adm(names) else load_score_sde, gather(path, given)
        return load(path, load_tensors(content), hints).identified(sha256_of(path), hints)
    prior = load_safetensors_prior(path)
    gather(None, given).only(path, "a prior file of invsolve", ())
    return prior
