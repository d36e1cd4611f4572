"""Tests that hooks and replaced forward passes are removed after their block, however it ends."""

import pytest
import torch

from afteredit.model.hooks import answering_by, hooked


@pytest.fixture
def module() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


def test_hooks_see_what_goes_in_and_replace_what_comes_out(module):
    x, plain, inputs = torch.ones(1, 2), module(torch.ones(1, 2)), []

    def before(_module, args, kwargs) -> None:
        inputs.append((args, kwargs))

    with hooked({module: lambda _m, _a, output: output + 1}, before={module: before}):
        assert torch.equal(module(input=x), plain + 1)
    assert inputs == [((), {"input": x})]
    assert torch.equal(module(x), plain)


def test_no_hook_stays_after_a_failure(module):
    with pytest.raises(KeyboardInterrupt), hooked({module: print}, before={module: print}):
        assert module._forward_hooks and module._forward_pre_hooks
        raise KeyboardInterrupt
    assert not module._forward_hooks and not module._forward_pre_hooks


def test_a_module_answers_by_the_innermost_function_and_then_by_itself_again(module):
    x, outputs = torch.ones(1, 2), []
    plain = module(x)
    with hooked({module: lambda _m, _a, output: outputs.append(output)}), answering_by(module, lambda x: 2 * x):
        with pytest.raises(KeyboardInterrupt), answering_by(module, lambda x: 3 * x):
            module(x)
            raise KeyboardInterrupt
        module(x)
    assert [output.tolist() for output in outputs] == [[[3, 3]], [[2, 2]]]
    assert torch.equal(module(x), plain) and "forward" not in module.__dict__
