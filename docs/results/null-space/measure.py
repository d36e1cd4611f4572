"""How many tokens does AlphaEdit's null space need?

    python docs/results/null-space/measure.py TEXT.txt       (real text, 16,000 tokens; two minutes on two cores)

The second moment of keys at SmolLM2's blocks 4 to 8 from 1 to 90 sampled tokens per key dimension, nested; for each
threshold the rank of the null space and the share of keys' energy in it: of the sample itself, of held-out sampled text
(10 tokens per dimension) and of TEXT.  A direction that no sampled token has looks like null space: the sample's own
share is then far below the held-out ones.
"""

import json
import sys
from itertools import islice

import torch

from afteredit.edit.ingredients.sampled_text import LENGTH, sequences
from afteredit.edit.ingredients.second_moment import estimate
from afteredit.edit.methods.alphaedit import Threshold, null_space
from afteredit.launch.command_line import compose

LAYERS = [4, 5, 6, 7, 8]
PER_DIM = (1, 3, 10, 30, 90)
THRESHOLDS = ((Threshold.absolute, 0.02), (Threshold.relative, 0.02), (Threshold.relative, 0.1),
              (Threshold.relative, 0.3))  # fmt: skip


def main() -> None:
    lm = compose(["task=none", "tracker=none"]).model.load("cpu", "float32")
    width = lm.widths(LAYERS[0])[1]
    rows = list(sequences(lm, "sampled", 100 * width))
    n_rows = {per_dim: per_dim * width // LENGTH for per_dim in PER_DIM}
    held_out = {
        "sampled": estimate(lm, LAYERS, iter(rows[n_rows[90] :])),
        "text": estimate(lm, LAYERS, islice(sequences(lm, sys.argv[1], 10 * width), 10 * width // LENGTH)),
    }
    sums, done = dict.fromkeys(LAYERS, 0), 0
    for per_dim, upto in n_rows.items():
        part = estimate(lm, LAYERS, iter(rows[done:upto]))
        sums = {layer: sums[layer] + part[layer] * (upto - done) for layer in LAYERS}
        done = upto
        for layer in LAYERS:
            C_FF = sums[layer] / upto
            for kind, threshold in THRESHOLDS:
                basis_Fr, own = null_space(C_FF, threshold, kind)
                result = {
                    "layer": layer, "tokens_per_dim": per_dim, "threshold": f"{kind.value} {threshold}",
                    "rank": basis_Fr.shape[1], "mean_eigenvalue": float(C_FF.trace() / width), "energy": own,
                    **{f"energy_{name}": share(C[layer], basis_Fr) for name, C in held_out.items()},
                }  # fmt: skip
                rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in result.items()}
                print(json.dumps(rounded), flush=True)


def share(C_FF: torch.Tensor, basis_Fr: torch.Tensor) -> float:
    """Of tr C, what falls into the basis: E|Uᵀk|² / E|k|²."""
    return float((basis_Fr.T @ C_FF @ basis_Fr).trace() / C_FF.trace())


if __name__ == "__main__":
    main()
