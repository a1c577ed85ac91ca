"""What a processor is taken to have."""

import pytest

from unival.core import device


@pytest.mark.parametrize(
    "flags, settings, has",
    [
        ("avx512_bf16 amx_bf16", {}, True),
        ("avx512_bf16", {}, False),
        ("amx_bf16", {"ONEDNN_MAX_CPU_ISA": "avx512_core_bf16"}, False),
        ("amx_bf16", {"DNNL_MAX_CPU_ISA": "AVX512_CORE_BF16"}, False),
        ("amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX", "DNNL_MAX_CPU_ISA": "AVX2"}, True),
        ("amx_bf16", {"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, True),
    ],
)
def test_matrix_units_that_onednn_may_use(flags, settings, has, monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(device, "_said_of_cpu", {"flags": flags, "vendor_id": "GenuineIntel"}.get)
    assert device.has_amx() == has
    assert device.gains_from_bfloat16("cpu") == has
