"""Image augmentation and drop-path as batched tensor functions on the device that holds the images.

Every draw is a pure function of a stream (made from seed and epoch) and the image's number. So a sample is
treated alike in any batch, process or restart, and a training resumed within an epoch needs no generator.

N images stored, B in a batch, L cells.
"""
from __future__ import annotations

import torch

from runtime.seeding import GOLDEN, scramble

PADDING = 4  # pixels around an image before it is cropped to its size again
MEAN = (0.49139968, 0.48215827, 0.44653124)  # of CIFAR-10's training images, per channel
STD = (0.24703233, 0.24348505, 0.26158768)


def uniform(stream: int, index: torch.Tensor, n: int) -> torch.Tensor:
    """float32[B, n] in [0, 1): n independent draws per number in index, long[B]; stream is below 2^63."""
    key = scramble(stream + scramble(index))  # [B]
    column = torch.arange(1, n + 1, device=index.device)  # [n]
    return (scramble(key[:, None] + column * GOLDEN) & 0xFFFFFF).float() / 0x1000000  # [B, n]


def padded(images: torch.Tensor) -> torch.Tensor:
    """uint8[N, 32, 32, 3] -> uint8[N, 40, 40, 3], black around; what `augmented` reads from."""
    return torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))


def augmented(stored: torch.Tensor, index: torch.Tensor, stream: int, cutout: int) -> torch.Tensor:
    """The images at index long[B] of `padded` ones, randomly cropped and flipped, normalised, with cutout.

    Returns float[B, 3, 32, 32], channels last. cutout: side of the square, centred on a random pixel, that is
    set to the mean colour; 0 = none.
    """
    size = stored.shape[1] - 2 * PADDING
    draw = uniform(stream, index, 5)  # [B, 5]
    pixel = torch.arange(size, device=index.device)  # [X]
    top, left = (draw[:, :2] * (2 * PADDING + 1)).long().unbind(1)  # [B]
    rows = top[:, None] + pixel  # [B, X]
    columns = left[:, None] + torch.where(draw[:, 2, None] < 0.5, pixel, size - 1 - pixel)  # [B, X]
    images = normalised(stored[index[:, None, None], rows[:, :, None], columns[:, None, :]])  # [B, 3, X, X]
    if not cutout:
        return images
    first = (draw[:, 3:] * size).long() - cutout // 2  # [B, 2]
    inside = (pixel >= first[..., None]) & (pixel < first[..., None] + cutout)  # [B, 2, X]
    return images.masked_fill_((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """uint8[B, X, X, 3] -> float[B, 3, X, X], channels last: zero mean and unit variance over CIFAR-10."""
    mean, std = (255 * torch.tensor(value, device=images.device) for value in (MEAN, STD))  # [3]
    return images.float().sub_(mean).div_(std).permute(0, 3, 1, 2)  # a view: the memory stays [B, X, X, 3]


def drop_path_masks(index: torch.Tensor, stream: int, rate: float, cells: int, edges: int) -> torch.Tensor:
    """Masks of drop-path (Larsson et al., ICLR 2017).

    float[B, L, edges]: 0 with probability `rate`, else 1 / (1 - rate).
    """
    draw = uniform(stream, index, cells * edges)  # [B, L edges]
    return ((draw >= rate).float() / (1 - rate)).view(-1, cells, edges)  # [B, L, edges]
