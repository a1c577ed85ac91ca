"""The device to compute on, by its name."""

from __future__ import annotations

from unival.errors import ConfigError


def device_named(name: str | None) -> str:
    """Return the name of a device that is there; None takes the GPU when there is one, else the CPU.

    Raises ConfigError for a name that torch does not know or a device that is not visible.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        raise ConfigError(f"device '{name}' is not known; give cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device '{name}': {torch.cuda.device_count()} GPUs are visible; give another or cpu"
        )
    if device.type not in ("cpu", "cuda"):
        try:
            torch.empty(1, device=device).cpu()
        except (RuntimeError, NotImplementedError, AssertionError):
            raise ConfigError(f"device '{name}' cannot be used here; give cpu, cuda or cuda:1") from None
    return name
