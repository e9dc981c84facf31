"""The device, seeds, the state of torch's own generators, and random numbers that need none."""
from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import torch

from runtime.errors import InputError
from runtime.settings import setting


@dataclass
class DeviceSettings:
    """The machine."""

    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps", role="machine")
    threads: int = setting(
        0, "CPU threads of torch (0 = torch's choice, or a share of it if there are several processes)",
        role="machine")


def choose_device(name: str, threads: int) -> torch.device:
    """The device of that name; 'auto' is CUDA, else MPS, else the CPU.

    threads: CPU threads of torch; 0 leaves torch's choice.
    """
    if threads > 0:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None


def device_name(device: torch.device) -> str:
    """The name of the GPU, or the kind of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def synchronise(device: torch.device) -> None:
    """Waits until a GPU has finished its work, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def seeded(*numbers: int):
    """Seeds torch's own generators (initial weights, dropout) with the numbers, for the length of a block.

    After it they are as if nothing had been drawn.
    """
    before = rng_state()
    torch.manual_seed(mix(*numbers))
    try:
        yield
    finally:
        set_rng_state(before)


def rng_state() -> dict:
    """The state of torch's own generators on the devices in use, for a checkpoint."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def mix(*numbers: int) -> int:
    """Mixes several numbers into one seed of 63 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


# Random numbers as pure functions ---------------------------------------------------------------------------

GOLDEN = -0x61C8864680B583EB  # 2^64 / golden ratio, the increment of splitmix64


def scramble(x: torch.Tensor) -> torch.Tensor:
    """The mixing of splitmix64 (Steele et al., 2014) on int64, whose products wrap around."""
    x = (x ^ logical_shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ logical_shift(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ logical_shift(x, 31)


def logical_shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)
