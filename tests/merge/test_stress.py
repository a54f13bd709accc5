"""The stress of benchmarks/ in small: generated modules of many kinds, all of which merge."""

import pytest
import torch

from benchmarks import merge_stress as stress

# Adapters that cancel: what is left is rounding, and not symmetric.
CANCELLING = (1660, 1737)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 150, 50))
def test_generated_modules_merge(first):
    for number in range(first, first + 50):
        assert stress.fault(stress.drawn(number, tall=False), number) == ""


@pytest.mark.parametrize("number", CANCELLING)
def test_what_is_left_of_adapters_that_cancel_is_merged(number):
    assert stress.fault(stress.drawn(number, tall=False), number) == ""


def test_a_fault_would_be_seen(monkeypatch):
    case = stress.drawn(0, tall=False)

    def spoilt(*given, **options):
        merged = stress_merge(*given, **options)
        merged.factors.B[0, 0] = torch.nan
        return merged

    stress_merge = stress.merge_module
    monkeypatch.setattr(stress, "merge_module", spoilt)
    assert stress.fault(case, 0) == "not finite"
