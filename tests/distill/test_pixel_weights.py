"""Pixels at a lesion's outline get a higher weight: which pixels, and what the weight means."""

from __future__ import annotations

import pytest
import torch

from kdsearch.distill import losses


def test_outline_weights_average_one_and_peak_at_outlines():
    target = torch.zeros(2, 32, 32, dtype=torch.long)
    target[0, 8:24, 8:24] = 1
    weights = losses.outline_weights(target, 3.0)
    assert weights.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1])
    assert (weights[1] == 1).all(), "no lesion, no outline"
    ring = weights[0, 0] == weights[0].max()
    assert ring.sum() == 18**2 - 14**2
    assert weights[0].max() / weights[0].min() == pytest.approx(4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["mse", "kld", "dml"])
def test_weight_of_two_counts_a_pixel_twice(name, channels):
    """A pixel of weight two counts as two pixels."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        maps[..., :1, :2] for maps in torch.randn(2, 3, channels, 4, 6, generator=generator, dtype=torch.float64)
    )
    doubled = [torch.cat([maps, maps[..., 1:]], dim=3) for maps in (student, teacher)]
    weights = torch.tensor([[[[2.0, 4.0]]]], dtype=torch.float64).expand(3, 1, 1, 2) / 3
    compare = {
        "mse": lambda s, t, w=None: losses.logits_mse(s, t, w),
        "kld": lambda s, t, w=None: losses.logits_kld(s, t, 2.0, w),
        "dml": lambda s, t, w=None: losses.logits_dml(s, t, "dice_cross_entropy", w),
    }[name]
    torch.testing.assert_close(compare(student, teacher, weights), compare(*doubled))
