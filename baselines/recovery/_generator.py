"""The generator of pseudo images: from a latent vector to pixels in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.nets.base import placed

SLOPE = 0.2
INITIAL_DEVIATION = 0.02


class Generator(nn.Module):
    """Generator: a linear layer to a quarter of the side, then twice upsampling and convolution.

    Batch norm always uses the batch's own statistics. The shape, the slope and the initial weights
    are those of the released code of BiDf-MKD and FREE.

    Args:
        latent_size: L, length of a latent vector.
        width: channels of the last hidden layer; those before have twice as many.
        image_size: side of the images, pixels.
    """

    def __init__(self, latent_size: int, width: int, image_size: int) -> None:
        super().__init__()
        self.image_size, self.width = image_size, width
        self.side = -(-image_size // 4)
        self.project = nn.Linear(latent_size, 2 * width * self.side**2)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(channels, track_running_stats=False)
            for channels in (2 * width, 2 * width, width)
        )
        self.convs = nn.ModuleList(
            nn.Conv2d(2 * width, channels, 3, padding=1, bias=False)
            for channels in (2 * width, width)
        )
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights in place: N(0, 0.02²), norms' scales N(1, 0.02²), biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
                draw = torch.randn(module.weight.shape, generator=generator)
                mean = 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0
                module.weight.copy_(mean + INITIAL_DEVIATION * draw)
                if module.bias is not None:
                    module.bias.zero_()

    def forward(self, latent: Tensor) -> Tensor:
        """Return pixels (B, 3, image_size, image_size) in [0, 1] from latents (B, L)."""
        x = self.project(latent).view(len(latent), 2 * self.width, self.side, self.side)
        x = self.norms[0](x.contiguous(memory_format=torch.channels_last))
        for conv, norm in zip(self.convs, list(self.norms)[1:], strict=True):
            x = F.leaky_relu(norm(conv(F.interpolate(x, scale_factor=2.0))), SLOPE)
        return self.last(x)[..., : self.image_size, : self.image_size].sigmoid()


def fresh_generator(
    latent_size: int,
    width: int,
    image_size: int,
    generator: torch.Generator,
    device: torch.device | str,
) -> Generator:
    """Return a generator with weights drawn from a CPU generator."""
    with torch.device("meta"):  # so that no layer draws weights of its own
        net = Generator(latent_size, width, image_size)
    net = net.to_empty(device="cpu")
    net.initialise(generator)
    return placed(net, device)


class PixelScale:
    """Conversion between pixels in [0, 1] and the normalised units of the teachers.

    Args:
        mean: 3 numbers.
        std: 3 numbers.
        device: where the images are.
    """

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device | str
    ) -> None:
        self.mean = torch.tensor(mean, device=device)[:, None, None]
        self.std = torch.tensor(std, device=device)[:, None, None]

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return images (…, 3, H, W) in normalised units."""
        return (pixels - self.mean) / self.std
