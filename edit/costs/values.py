"""What it costs to find optimised values and to prepare the least squares, counted on a batch's own token rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from afteredit.edit.ingredients.layer_by_layer import BlockSettings
from afteredit.edit.ingredients.sampled_text import GROUP, PIECE, is_shipped, row_length
from afteredit.edit.ingredients.second_moment import BATCH
from afteredit.edit.ingredients.value_prompts import value_rows
from afteredit.edit.ingredients.value_search import groups_of_like_length
from afteredit.edit.ingredients.value_settings import ValueSettings
from afteredit.edit.request import EditRequest
from afteredit.model.costs.work import Cost, Pass, Work, activations, element_bytes, key_value_width, total
from afteredit.model.lm import LM

OPENING = 3  # tokens of the word that a context prefix begins with, and of the start token


def stand_ins(counts: Mapping[int, int]) -> tuple[str, ...]:
    """Returns the bare prompt and, for each n, `counts[n]` different prefixes of some n tokens beside their opening."""
    return ("", *(" ".join(["The", *[f"{i}"], *["the"] * (n - 1)]) for n in counts for i in range(counts[n])))


def search_work(
    lm: LM, batch: Sequence[EditRequest], contexts: Sequence[str], layer: int, settings: ValueSettings, together: int
) -> tuple[Work, float]:
    """Returns the work of one batch's searches, each to its last step, and the most bytes that one holds meanwhile.

    Measured on thirteen kept runs (docs/results), searches take 23.3 to 24 of 24 steps, and 18.7 to 19 of 19.
    """
    works, most = [], 0.0
    for group in groups_of_like_length(lm, batch, together):
        rows = [value_rows(lm, request, contexts, settings.kl_at) for request in group]
        cut = [(tuple(ids[:last]), len(ids) - last) for r in rows
               for ids, last in zip(r.ids, r.subject_lasts, strict=True)]  # fmt: skip
        before, width = {prefix for prefix, _ in cut}, max(n for _, n in cut)
        n_before = max(map(len, before))
        tokens, columns = len(cut) * width, n_before + width
        logits = sum(len(r.target) * (len(r.ids) - 1) + 1 for r in rows)
        above = lm.n_blocks - layer
        works.append(Work((
            Pass(len(before) * n_before, n_before, lm.n_blocks), Pass(tokens, columns, lm.n_blocks),
            Pass(tokens, columns, above, logits, backward=above - 1, times=settings.value_steps - 1),
            Pass(tokens, columns, above, logits),
        )))  # fmt: skip
        cached = len(cut) * n_before * key_value_width(lm) * above * element_bytes(lm)
        most = max(most, activations(lm, tokens, above - 1) + cached + 5 * logits_bytes(lm, logits))
    return total(works), most


def keys_work(lm: LM, batch: Sequence[EditRequest], contexts: Sequence[str], layers: Sequence[int]) -> Work:
    """Returns the work of reading the batch's keys at each block, and what its streams lack after the last."""
    from afteredit.edit.ingredients.context_prefixes import locate_subject

    lasts = {context: [locate_subject(lm, request, context)[1] + 1 for request in batch] for context in contexts}
    width, bare = max(n for each in lasts.values() for n in each), max(lasts[""])
    keys = [Pass(len(batch) * len(contexts) * width, width, layer + 1) for layer in layers]
    return Work((*keys, Pass(len(batch) * bare, bare, max(layers) + 1, times=len(layers) + 1)))


def moments_work(lm: LM, layers: Sequence[int], text: str, tokens_per_key_dim: int) -> Work:
    """Returns the work of the text that the model writes, unless it is shipped, and of the second moments; both are
    kept in the user's cache."""
    F, length = max(lm.widths(layer)[1] for layer in layers), row_length(lm)
    n_tokens = tokens_per_key_dim * F
    n_rows = -(-n_tokens // length)
    size = min(n_rows, PIECE.get(lm.device.type, GROUP))
    writing = [Pass(size, length // 2, lm.n_blocks, size, times=(length - 1) * n_rows / size, decoding=True)] * (
        text == "sampled" and not is_shipped(lm, n_rows, length)
    )
    rows = min(BATCH, n_rows)
    reading = Pass(rows * length, length, max(layers) + 1, times=n_rows / rows)
    return Work((*writing, reading), solving=n_tokens * F**2 * len(layers))  # float32, at twice the rate of float64


def contexts_work(lm: LM, counts: Mapping[int, int]) -> Work:
    """Returns the work of writing the context prefixes, at every start."""
    return Work(tuple(Pass(count, OPENING + n // 2, lm.n_blocks, count, times=n + 1, decoding=True)
                      for n, count in counts.items() if count))  # fmt: skip


def square(lm: LM, layers: Sequence[int]) -> float:
    """Returns the entries of one (F, F) matrix for each block, as a sum."""
    return float(sum(lm.widths(layer)[1] ** 2 for layer in layers))


def cube(lm: LM, layers: Sequence[int]) -> float:
    """Returns F³, summed over the blocks: three times the operations of their Cholesky factors."""
    return float(sum(lm.widths(layer)[1] ** 3 for layer in layers))


def logits_bytes(lm: LM, n_rows: int) -> float:
    """Returns the bytes of so many rows of logits, float32."""
    return 4.0 * n_rows * lm.model.get_output_embeddings().weight.shape[0]


def factors_bytes(lm: LM, layers: Sequence[int], rank: int) -> float:
    """Returns the bytes of an update's factors of this rank in each block, float32."""
    return 4.0 * rank * sum(sum(lm.widths(layer)) for layer in layers)


def written_in_turn(
    lm: LM, batch: Sequence[EditRequest], layers: Sequence[int], settings: BlockSettings, together: int
) -> Cost:
    """Returns what MEMIT and its heirs share: search, keys, second moments and context prefixes, without solving."""
    contexts, counts = stand_ins({10: settings.contexts}), {10: settings.contexts}
    search, updating = search_work(lm, batch, contexts, max(layers), settings, together)
    moved = 20.0 * sum(lm.widths(layer)[0] * lm.widths(layer)[1] for layer in layers)  # each is changed, and put back
    return Cost(
        once=moments_work(lm, layers, settings.second_moment_text, settings.tokens_per_key_dim),
        start=contexts_work(lm, counts), updating=updating, disk=factors_bytes(lm, layers, len(batch)),
        update=search + keys_work(lm, batch, contexts, layers) + Work(moved=moved),
    )  # fmt: skip
