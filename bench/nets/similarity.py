"""Similarity of features: linear CKA (centred kernel alignment)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def linear_cka(features: Sequence[Tensor]) -> Tensor:
    """Return the linear centred kernel alignment of each pair of feature sets: (N, N) float64.

    1 where two are the same up to rotation and scale, about 0 where they are unrelated, whatever
    their widths: HSIC is estimated without bias, so that wide features of few images do not look
    alike. Features that are the same for all images are unrelated to any (0), also to themselves.

    Args:
        features: N tensors (n, d_i), of the same n images in the same order; n at least 4.

    Source: Kornblith et al. (ICML 2019); HSIC's unbiased estimator of Song et al. (JMLR 2012),
    eq. 5, which for linear kernels is the inner product of the U-centred Gram matrices of Székely
    and Rizzo (2014).
    """
    grams = torch.stack([_u_centred(one) for one in features]).flatten(1)
    products = grams @ grams.T
    norms = products.diagonal().clamp_min(0).sqrt()
    scale = norms[:, None] * norms
    return torch.where(scale > 0, products / scale.clamp_min(1e-300), 0.0)


def _u_centred(features: Tensor) -> Tensor:
    """Return the U-centred Gram matrix (n, n) of features (n, d), of Frobenius norm about 1."""
    x = features.double().flatten(1)
    x = x - x.mean(0)
    if float(x.abs().max()) <= 1e-12 * max(1.0, float(features.abs().max())):
        return x.new_zeros(len(x), len(x))
    gram = x @ x.T
    gram = gram / gram.norm()
    gram.fill_diagonal_(0)
    n = len(gram)
    rows = gram.sum(0) / (n - 2)
    centred = gram - rows[:, None] - rows + gram.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0)
