"""Runs model-written functions without trusting them."""

from autoif_blocks.sandbox.policy import Outcome, SandboxConfig
from autoif_blocks.sandbox.pool import Sandbox

__all__ = ["Outcome", "Sandbox", "SandboxConfig"]
