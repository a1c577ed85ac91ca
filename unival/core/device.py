"""The device to compute on, by its name."""

from __future__ import annotations

import os

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


def gains_from_bfloat16(device: str | None = None) -> bool:
    """Whether a device computes faster in bfloat16 than in float32: a GPU since Ampere, a CPU with AMX, one with
    AVX-512 for it that is not Intel's.

    Intel's AVX-512 makes half as many products a second in bfloat16 as in float32; its processors have AMX as well,
    but a virtual machine may hide it (docs/performance.md).
    ``device``: "cpu" or "cuda"; None takes the GPU when there is one.
    """
    import torch

    if device_named(device).startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return has_amx() or ("avx512_bf16" in _said_of_cpu("flags").split() and cpu_vendor() != "GenuineIntel")


def has_amx() -> bool:
    """Whether the processor has matrix units for bfloat16, and oneDNN is allowed to use them."""
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # the first that is set counts
    allowed = next((os.environ[name].upper() for name in names if name in os.environ), "DEFAULT")
    return "amx_bf16" in _said_of_cpu("flags").split() and (allowed == "DEFAULT" or "AMX" in allowed)


def cpu_vendor() -> str:
    """Return the vendor as the processor names it ("AuthenticAMD", "GenuineIntel"); "" where the system is silent."""
    return _said_of_cpu("vendor_id")


def _said_of_cpu(name: str) -> str:
    """What Linux says of the first processor under ``name``; "" where there is no such line."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = (line.partition(":") for line in file)
            return next((value.strip() for key, _, value in lines if key.strip() == name), "")
    except OSError:
        return ""
