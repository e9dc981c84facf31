"""Where the time of each stage goes, and how far that is from the machine's limits: one thread, one table.

    python -m benchmarks.speed_profile --cells 20000 --json results/speed_profile.json
    python -m benchmarks.speed_profile --only score,finetune

The stages are those of benchmarks.speed, ours alone. Three limits are measured first: the speed of a product
of two matrices, of 2,048 x 2,048, and of thousands of 7 x 7 at once; and the rate at which a copy reads and
writes memory. Of a stage the table says

    seconds   of a call, without the profiler
    outside   the share in which no operation of torch runs: Python, numpy, and waiting
    products  the share in products of matrices, their speed, and that as a share of the fastest product
    other     the share in other operations of torch; the memory that they read and write, each tensor once,
              as a share of the copy's rate
    most      the operations that take the most time, each with its share

Mutation computes with Python and numpy: there all is outside.
"""
from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import torch
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks import speed
from runtime.errors import InputError, main_guard
from runtime.files import path_of, write_json
from runtime.log import command_line, console, output, progress_bar, provenance
from runtime.seeding import choose_device, device_name
from runtime.settings import parse, setting

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
TURNS = 4  # under the profiler, of which the fastest counts
NAMED = 8  # operations that are named
# search reads and writes files; the products in the convolutions of train are not counted
NAMES = [name for name in speed.STAGES if name not in ("search", "train")]


@dataclass
class Config(speed.Config):
    threads: int = setting(1, "CPU threads; operations of further ones are not seen", within=(1, 1))
    json: str = setting("", "file of the JSON record", role="output")


def main(argv: list[str] | None = None) -> dict:
    config = parse(Config, argv, __doc__)
    chosen = config.only.split(",") if config.only else NAMES
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        raise InputError(f"--only {config.only}: no stage {unknown[0]}: choose of {', '.join(NAMES)}")
    device = choose_device(config.device, config.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells stderr that there is no GPU
    if device.type != "cpu":
        raise InputError(f"--device {config.device}: this counts the seconds of a CPU: give --device cpu")
    with progress_bar() as bar:
        line = bar.add_task("limits", total=1 + len(chosen))
        report = {"limits": limits(), "stages": {}}
        bar.advance(line)
        for name in chosen:
            bar.update(line, description=name)
            stage = speed.STAGES[name](config, device)
            report["stages"][name] = profiled(stage.ours, report["limits"])
            bar.advance(line)
    show(report)
    if config.json:
        write_json(path_of(config.json), report | {
            "device": device_name(device), "torch": torch.__version__,
            "command": command_line("benchmarks.speed_profile", argv)} | provenance())
        console.print(f"written: {config.json}", soft_wrap=True)
    return report


def limits() -> dict[str, float]:
    """The machine's speed on one thread: 10^9 operations a second, 10^9 bytes a second."""
    large, small, long = torch.randn(2048, 2048), torch.randn(8192, 7, 7), torch.randn(2**25)
    other = torch.empty_like(long)
    return {
        "product": 2 * 2048**3 / fastest(lambda: large @ large) / 1e9,
        "small_product": 2 * 8192 * 7**3 / fastest(lambda: small @ small) / 1e9,
        "memory": 2 * long.nbytes / fastest(lambda: other.copy_(long)) / 1e9,
    }


def fastest(work: Callable[[], object], turns: int = 5) -> float:
    """The fewest seconds of a call."""
    return min(timed(work) for _ in range(turns))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def profiled(work: Callable[[], object], limit: dict[str, float]) -> dict:
    """The shares of a call's seconds, as the table has them."""
    work()
    plain = timed(work)
    # the first calls take fresh memory, as the profiler takes some, too, and zeroing that looks like copies
    traced, profiler = min((traced_call(work) for _ in range(TURNS)), key=itemgetter(0))
    seconds, flops, moved = Counter(), 0, 0
    for event in profiler.key_averages(group_by_input_shape=True):
        seconds[event.key] += event.self_cpu_time_total / 1e6
        if event.key in PRODUCTS:
            flops += product_flops(event)
        else:
            moved += traffic(event)
    inside, in_products = sum(seconds.values()), sum(seconds[name] for name in PRODUCTS)
    # the profiler slows short operations down, and Python less: shares are those of its own run
    shares = {"outside": 1 - inside / traced, "products": in_products / traced,
              "other": (inside - in_products) / traced}
    speed_of = flops / in_products / 1e9 if in_products else 0.0
    rate = moved / (inside - in_products) / 1e9
    return {"seconds": plain, "seconds_profiled": traced, **shares,
            "product_speed": speed_of, "of_fastest_product": speed_of / limit["product"],
            "memory_rate": rate, "of_copy": rate / limit["memory"],
            "most": {name: spent / traced for name, spent in seconds.most_common(NAMED)}}


def traced_call(work: Callable[[], object]) -> tuple[float, profile]:
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        seconds = timed(work)
    return seconds, profiler


def product_flops(event) -> int:
    """Multiplications and additions of all calls of an operation in PRODUCTS."""
    first = 1 if "add" in event.key else 0  # what is added comes before the factors
    left, right = event.input_shapes[first:first + 2]
    return 2 * math.prod(left) * right[-1] * event.count


def traffic(event) -> int:
    """Bytes that all calls read and write, if a number takes 4, and the result is as large as the largest
    input."""
    sizes = [math.prod(shape) for shape in event.input_shapes
             if shape and all(isinstance(size, int) for size in shape)]
    return 4 * (sum(sizes) + max(sizes, default=0)) * event.count if event.self_cpu_time_total else 0


def show(report: dict) -> None:
    limit = report["limits"]
    table = Table(
        "stage", "seconds", "outside", "products", "GFLOP/s", "of fastest", "other", "of copy", "most",
        title=f"products {limit['product']:.0f} GFLOP/s (7 x 7: {limit['small_product']:.1f}), copy "
              f"{limit['memory']:.1f} GB/s, one thread")
    for name, row in report["stages"].items():
        most = ", ".join(f"{op.removeprefix('aten::')} {share:.0%}" for op, share in row["most"].items())
        table.add_row(name, f"{row['seconds']:.2f}", f"{row['outside']:.0%}", f"{row['products']:.0%}",
                      f"{row['product_speed']:.0f}", f"{row['of_fastest_product']:.0%}",
                      f"{row['other']:.0%}", f"{row['of_copy']:.0%}", most)
    output.print(table)


if __name__ == "__main__":
    main_guard(main)
