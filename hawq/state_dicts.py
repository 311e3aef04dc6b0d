"""Read state dicts of other programs: plain files of torch, without running what they hold."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hawq.errors import HawqError, UsageError, reason

__all__ = ["copy_state", "plain_name", "read_torch_file", "state_dict_of"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the state dict."""

_CONTAINERS = ("module", "_orig_mod")
"""Children that DataParallel, DistributedDataParallel and torch.compile put around a module."""

_FORBIDDEN = re.compile(r"GLOBAL (\S+)")


def plain_name(name: str) -> str:
    """Return a tensor's name without the containers around its modules: `module.features.conv` -> `features.conv`."""
    return ".".join(part for part in name.split(".") if part not in _CONTAINERS)


def read_torch_file(path: Path) -> object:
    """Read what `torch.save` wrote, onto the CPU: tensors, numbers, strings and containers of them.

    Raises:
        UsageError: no such file.
        HawqError: the file is torn, or holds objects that only code of its own could read.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist (expected weights, .safetensors or .pth)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torn bytes lead the unpickler into any error there is
        if found := _FORBIDDEN.search(str(error)):
            raise HawqError(
                f"{path} holds a {found[1]}, and reading that may run code of the file's author; if you trust the "
                f"file, keep its tensors alone and give plain.pth: python -c \"import torch; f = torch.load('{path}', "
                "map_location='cpu', weights_only=False); s = f.state_dict() if hasattr(f, 'state_dict') else "
                "f.get('state_dict', f); torch.save(s, 'plain.pth')\""
            ) from error
        raise HawqError(f"{path} cannot be read as plain tensors ({reason(error)}); it may be torn") from error


def state_dict_of(document: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict that a file holds, bare or under `state_dict`, by plain names.

    Args:
        document: what `read_torch_file` returned.
        path: the file, for messages.

    Raises:
        HawqError: there is none, or the file is one of hawq's own.
    """
    if isinstance(document, Mapping) and isinstance(document.get("format"), str):
        raise HawqError(
            f"{path} is a {document['format']} of hawq, not the weights of a float network; give it with --resume"
        )
    state = document
    if isinstance(document, Mapping):
        state = next((document[key] for key in _WRAPPERS if isinstance(document.get(key), Mapping)), document)
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    ):
        raise HawqError(f"{path} holds no state dict (name -> tensor), bare or under {', '.join(_WRAPPERS)}")
    return {plain_name(name): tensor for name, tensor in state.items()}


@torch.no_grad()
def copy_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors of a file into those of a network, in place: all of them, or none where one does not fit.

    Args:
        own: name -> tensor of the network; counters of batches may be absent in `state`.
        state: name -> tensor of the file.
        path: the file, for messages.

    Raises:
        HawqError: a tensor is missing, unexpected, of another shape, or holds NaN or infinity.
    """
    problems = {
        "missing": [name for name in own if name not in state and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in state if name not in own],
        "misshapen": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    found = [f"{len(names)} {kind} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
             for kind, names in problems.items() if names]  # fmt: skip
    if found:
        raise HawqError(
            f"{path} does not fit the network: {'; '.join(found)}; give the weights of this very network "
            "(the same -a and number of classes)"
        )
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise HawqError(f"{path} holds NaN or infinity in {', '.join(broken[:4])}; use a checkpoint from before that")
    for name, tensor in state.items():
        own[name].copy_(tensor)
