"""Scale the loss up where gradients pass through fp16, whose smallest number is 6e-8.

Micikevicius et al. 2018, "Mixed Precision Training", arXiv:1710.03740. Gradients arrive at the
fp32 adapter multiplied by the scale and are divided by it there. One that overflowed on its way is
thrown away and the scale is halved; after 2000 updates without that it is doubled.
"""

import torch
from torch.amp import GradScaler

from engine.policy.policy import Policy

UNSCALED = GradScaler("cpu", enabled=False)
"""Leaves the loss as it is and keeps no state."""


def make_scaler(policy: Policy) -> GradScaler:
    """One that scales where the base computes in fp16, and leaves the loss alone elsewhere."""
    if policy.causal_model.dtype != torch.float16:
        return UNSCALED
    return GradScaler(policy.device.type)
