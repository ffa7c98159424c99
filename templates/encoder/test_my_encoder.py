"""What mmbench asks of every encoder, and what this one promises besides."""

import torch

from mmbench.encoders import ENCODERS
from mmbench.testing import check_encoder


def test_it_holds_mmbenchs_contract() -> None:
    torch.manual_seed(0)
    check_encoder(ENCODERS["my_encoder"](in_dim=6), torch.randn(4, 6))


def test_the_size_of_a_vector_does_not_matter() -> None:
    torch.manual_seed(0)
    encoder, vectors = ENCODERS["my_encoder"](in_dim=6, width=5), torch.randn(4, 6)
    assert encoder(vectors).shape == (4, 5)
    torch.testing.assert_close(encoder(vectors), encoder(100 * vectors), rtol=1e-3, atol=1e-4)
