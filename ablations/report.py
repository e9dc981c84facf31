"""The report of an ablation: the record, the table, and whether the paper's order holds.

A row is {"setting", "n_labels", "tau": one per seed, "mean", "std", "paper": tau or None, ...}.
"""
from __future__ import annotations

from itertools import pairwise

import numpy as np
from rich.table import Table

from ablations.grid import Grid, Setting
from ablations.jobs import Job
from models.metrics import paired_interval


def row(setting: Setting, n: int, job: Job) -> dict:
    """The row of a finished fine-tuning run."""
    result = job.result()
    return {
        "setting": setting.name,
        "n_labels": n,
        "tau": result["tau"],
        "mean": result["tau_mean"],
        "std": result["tau_std"],
        "paper": setting.paper.get(n),
        "n_ranked": result["n_eval"],
        "protocol": result["protocol"],
        "oracle": result["oracle"],
        "pretrained": result["pretrained"] is not None,
    }


def ordering(rows: list[dict]) -> dict | None:
    """Whether our means have the order of the paper's, for rows of one size; None if it gives fewer than two.

    Neighbours in the paper's order are joined by > or < if the 95 % bootstrap interval of their difference,
    paired over the seeds, excludes 0; else by ≈, or by = if the results of both are identical. verdict: yes
    (no mean is out of order), no (at least one pair is reversed beyond noise), undecided.
    """
    known = sorted((r for r in rows if r["paper"] is not None), key=lambda r: -r["paper"])
    if len(known) < 2:
        return None
    signs, gains = [], []
    for better, worse in pairwise(known):
        gain = np.subtract(better["tau"], worse["tau"])  # [S]
        low, high = paired_interval(gain)
        within = low is None or low <= 0 <= high
        signs.append("=" if not gain.any() else "≈" if within else ">" if low > 0 else "<")
        gains.append(gain.mean())
    verdict = "no" if "<" in signs else "yes" if min(gains) >= 0 else "undecided"
    return {"n_labels": known[0]["n_labels"], "seeds": len(known[0]["tau"]), "verdict": verdict,
            "paper": joined(known, [">"] * len(signs), "paper"), "ours": joined(known, signs, "mean")}


def joined(rows: list[dict], signs: list[str], value: str) -> str:
    words = [f"{r['setting']} {r[value]:.3f}" for r in rows]
    return words[0] + "".join(f" {sign} {word}" for sign, word in zip(signs, words[1:]))


def table(grid: Grid, rows: list[dict]) -> Table:
    """The rows, one section per size; `minus` is the difference from the first setting, paired over seeds."""
    first = grid.settings[0].name
    title = (f"{grid.title}; protocol {rows[0]['protocol']}, {rows[0]['n_ranked']} cells ranked; "
             f"minus: tau minus that of {first}")
    shown = Table("labels", "setting", "tau", "std", "n", "paper", "minus", "95 % interval", title=title)
    for n in grid.sizes:
        here = [r for r in rows if r["n_labels"] == n]
        for r in here:
            gain = np.subtract(r["tau"], here[0]["tau"])  # [S]
            low, high = paired_interval(gain)
            other = r is not here[0]
            shown.add_row(
                str(n), r["setting"], f"{r['mean']:.4f}", "-" if r["std"] is None else f"{r['std']:.4f}",
                str(len(r["tau"])), "" if r["paper"] is None else f"{r['paper']:.3f}",
                f"{gain.mean():+.4f}" if other else "",
                f"{low:+.3f} to {high:+.3f}" if other and low is not None else "")
        shown.add_section()
    return shown


def sentences(orderings: list[dict]) -> str:
    """One line `paper / ours / same ordering?` per size."""
    return "\n".join(f"{o['n_labels']} labels: paper {o['paper']} / ours {o['ours']} / same ordering? "
                     f"{o['verdict']} (n = {o['seeds']}; ≈ is within noise)" for o in orderings)
