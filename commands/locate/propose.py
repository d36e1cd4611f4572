"""From traced facts to average indirect effects, and from these to the blocks to edit, by two rules.

`rome.layer`: the block around which MLP outputs, put back at the subject's last token, have the greatest average
indirect effect (Meng et al. 2022 took the centre of that effect).  `memit.layers`: the five consecutive blocks with the
greatest sum of it.  The last block is never proposed: what is written there reaches no later token.  Of equals the
lowest counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afteredit.commands.locate.known_facts import ROLES

WRITTEN_AT = "last subject token"  # where ROME and MEMIT write
N_BLOCKS = 5  # that MEMIT edits: its authors took five or six
DRAWS = 4000  # of the bootstrap

Averages = dict[str, dict[str, dict[str, Any]]]  # by kind and role: facts, mean, low and high, a number for each block


def by_role(indirect: Mapping[str, Sequence[Sequence[float]]], roles: Sequence[str]) -> dict[str, dict[str, list]]:
    """Returns for each kind and role the effects by block, means over the tokens of that role in one fact."""
    return {
        kind: {role: np.mean([row for row, its in zip(effects, roles, strict=True) if its == role], axis=0).tolist()
               for role in ROLES if role in roles}
        for kind, effects in indirect.items()
    }  # fmt: skip


def averages(facts: Sequence[Mapping[str, Mapping[str, Sequence[float]]]]) -> Averages:
    """Returns the average indirect effects over facts (`by_role` of each), with 95 % bootstrap bands over facts.

    A fact without a token of a role counts in no average of that role; draws that hold no fact with one are left out.
    """
    n_facts = len(facts)
    draws_RN = np.random.default_rng(0).multinomial(n_facts, [1 / n_facts] * n_facts, size=DRAWS)
    found: Averages = {}
    for kind in facts[0]:
        for role in ROLES:
            having = [i for i, fact in enumerate(facts) if role in fact[kind]]
            if not having:
                continue
            effects_NL, times_RN = np.array([facts[i][kind][role] for i in having]), draws_RN[:, having]
            times_RN = times_RN[times_RN.sum(1) > 0]
            means_RL = times_RN @ effects_NL / times_RN.sum(1, keepdims=True)
            low_L, high_L = np.percentile(means_RL, [2.5, 97.5], axis=0)
            values = {"mean": effects_NL.mean(0), "low": low_L, "high": high_L}
            found.setdefault(kind, {})[role] = {"facts": len(having), **{k: v.tolist() for k, v in values.items()}}
    return found


def proposed(average: Averages) -> dict[str, Any]:
    """Returns `rome.layer` and `memit.layers` by the rules at the head of this file."""
    mean_L = average["mlp"][WRITTEN_AT]["mean"][:-1]
    n = min(N_BLOCKS, len(mean_L))
    start = int(np.argmax(np.convolve(mean_L, np.ones(n), mode="valid")))
    return {"rome.layer": int(np.argmax(mean_L)), "memit.layers": list(range(start, start + n))}
