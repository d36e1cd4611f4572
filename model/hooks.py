"""Hooks on a model's modules, removed again whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

Before = Callable[[nn.Module, tuple, dict], Any]  # (module, args, kwargs): sees, or replaces, what goes in
After = Callable[[nn.Module, tuple, Any], Any]  # (module, args, output): sees, or replaces, what comes out


@contextmanager
def hooked(
    after: Mapping[nn.Module, After] | None = None, *, before: Mapping[nn.Module, Before] | None = None
) -> Iterator[None]:
    """Runs torch's forward hooks on these modules inside the `with` block, and removes them at its end."""
    hooks = [module.register_forward_hook(hook) for module, hook in (after or {}).items()]
    hooks += [module.register_forward_pre_hook(hook, with_kwargs=True) for module, hook in (before or {}).items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def answering_by(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Inside, the module computes `function` in place of its own forward; its hooks still run."""
    earlier = module.__dict__.get("forward")  # set where something else has wrapped this one module
    module.forward = function
    try:
        yield
    finally:
        del module.forward
        if earlier is not None:
            module.forward = earlier


class EndOfPass(Exception):
    """Raised by a hook to end a forward pass after the last layer that is needed."""
