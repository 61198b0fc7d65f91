"""Which arithmetic is fast on this machine.

Authors
 * The iusp_plugin authors 2026
"""

import torch


def fast_precision() -> str:
    """SpeechBrain's name of the fastest safe training precision here.

    Returns
    -------
    str
        "bf16" where the hardware multiplies bfloat16 matrices (GPUs that
        support it; CPUs with AVX512-BF16 or AMX), "fp32" elsewhere, where
        bfloat16 is emulated and slower.

    Example
    -------
    >>> fast_precision() in ("bf16", "fp32")
    True
    """
    if torch.cuda.is_available():
        # By default the answer is also yes where bfloat16 is emulated.
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if fast else "fp32"
    # torch < 2.10 cannot be asked about the CPU.
    ask = getattr(torch.cpu, "get_capabilities", None)
    capabilities = ask() if ask is not None else {}
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return "bf16" if fast else "fp32"
