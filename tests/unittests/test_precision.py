"""The choice of precision follows what the hardware multiplies itself.

Authors
 * The iusp_plugin authors 2026
"""

import inspect

import pytest
import torch

from iusp_plugin.precision import fast_precision


def test_name_is_one_that_the_host_knows():
    assert fast_precision() in ("bf16", "fp32")


@pytest.mark.parametrize(
    "capabilities, expected",
    [
        ({}, "fp32"),
        ({"avx512_f": True, "avx2": True}, "fp32"),
        ({"amx_bf16": False, "avx512_bf16": False}, "fp32"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_bf16": True}, "bf16"),
    ],
)
def test_processor(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: capabilities, raising=False
    )
    assert fast_precision() == expected


def test_torch_that_cannot_be_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fast_precision() == "fp32"


@pytest.mark.parametrize("native, expected", [(True, "bf16"), (False, "fp32")])
def test_gpu_that_only_emulates_is_not_fast(monkeypatch, native, expected):
    """As torch answers: with emulation, nearly every GPU says yes."""
    signature = inspect.signature(torch.cuda.is_bf16_supported)
    assert "including_emulation" in signature.parameters

    def supported(including_emulation=True):
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert fast_precision() == expected
