"""KN makes the neurons that say the true answer say the new one (Dai et al., ACL 2022, "Updating Facts").

    W[:, i] ← W[:, i] + |W[:, i]| (λ₂ e(new) / |e(new)| − λ₁ e(true) / |e(true)|)   for every knowledge neuron i

W is a block's MLP output matrix, e the input embedding of an answer's first token (BERT's answers have one; two answers
that begin alike are not told apart).  Neurons are found in all blocks by ingredients/neuron_attribution.py.  A neuron
is coarse for a prompt where its attribution is above `threshold` times the prompt's largest; the neurons that are
coarse for at least `share` of the prompts are edited.
The paper's text writes λ₂ e(new) − λ₁ e(true); the lengths are those of its code (Hunter-DDM/knowledge-neurons), whose
λ₁ = 1 and λ₂ = 8 these are.
Departures from that code, which edits one fact of BERT at a time:
- the prompts are the question under context prefixes; there, other wordings of it.  An edit set's paraphrases measure
  the edit, so they are never read here;
- `share` stays as given; there it moves until a relation's facts have 2 to 5 neurons each on average, and neurons that
  more than a tenth of these facts have are dropped.  One request knows no relation;
- a fact is edited whether or not the model knows it; there, only where it gives the true answer;
- |W[:, i]| is the unedited column's length: a neuron that many facts have grows by a term each, not by a factor.
EasyEdit's KN, which Gu et al. (EMNLP 2024) run, differs from both: it edits the coarse neurons of one prompt, and adds
embeddings at their own length, of all tokens of an answer once (twice where it has one) that the model gives, true or
not.
A neuron whose key is negative is made to say less of the new answer, not more.  That is as published, for BERT, whose
keys (GELU) stay above −0.17; in gated MLPs either sign is common.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from afteredit.edit.method import Given, Method, Prepared, check_numbers
from afteredit.edit.request import EditRequest
from afteredit.edit.update import LowRank, State, Update
from afteredit.model.costs.work import Cost, Pass, Work, activations
from afteredit.store.errors import BadInput, NoEdit

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.edit.ingredients.neuron_attribution import Attribution
    from afteredit.model.lm import LM

log = logging.getLogger(__name__)

Neuron = tuple[int, int]  # block, entry of the key


@dataclass(frozen=True)
class Kn(Method):
    steps: int = 20  # points of the integral (Dai et al.)
    threshold: float = 0.2  # of a prompt's largest attribution (Dai et al.)
    share: float = 0.5  # of the prompts in which a neuron must be coarse (EleutherAI's; Dai et al. start from 0.7)
    contexts: int = 5  # sampled prefixes of 10 tokens, beside the bare prompt
    lambda_true: float = 1.0  # λ₁ (Dai et al.), in lengths of the edited column
    lambda_new: float = 8.0  # λ₂ (Dai et al.)

    needs_true_answer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_numbers(self, steps="at least 1", contexts="at least 0")
        for field in ("threshold", "share"):
            if not 0 <= getattr(self, field) <= 1:
                raise BadInput(f"method.{field}={getattr(self, field)}; it must lie between 0 and 1")

    def edited(self, lm: LM) -> list[str]:
        return [lm.mlp_out_name(layer) for layer in range(lm.n_blocks)]

    def prepare(self, lm: LM, given: Given) -> Prepared:
        from afteredit.edit.ingredients.context_prefixes import sample_contexts

        return Prepared(sample_contexts(lm, {10: self.contexts}, given.seed))

    def cost(self, lm: LM, batch: Sequence[EditRequest], together: int) -> Cost:
        """Each block's neurons are attributed in a pass of its own, from that block up, for every prompt."""
        from afteredit.edit.costs.values import contexts_work, factors_bytes, stand_ins
        from afteredit.edit.ingredients.context_prefixes import prefix_text

        passes, most = [], 0.0
        for request in batch:
            n_answer = len(lm.tokens.answer_ids(_true_answer(request), request.question))
            rows = n_answer * (self.steps + 2)
            for context in stand_ins({10: self.contexts}):
                width = len(lm.tokens.question_ids(prefix_text(context) + request.question)) + n_answer - 1
                blocks = lm.n_blocks / 2  # in the mean over the blocks that are attributed
                passes += [Pass(n_answer * width, width, lm.n_blocks), Pass(rows, width, lm.n_blocks),
                           Pass(rows, width, blocks, rows, backward=blocks, times=lm.n_blocks)]  # fmt: skip
                most = max(most, activations(lm, rows, lm.n_blocks))
        layers, rank = list(range(lm.n_blocks)), len(batch)
        return Cost(start=contexts_work(lm, {10: self.contexts}), update=Work(tuple(passes)), updating=most,
                    disk=factors_bytes(lm, layers, rank) / 2,
                    notes=("of KN's blocks half are taken to hold a neuron that is edited",))  # fmt: skip

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the sum of every request's change, each computed on the weights as they are.  Mutates nothing.

        Diagnostics: neurons edited, of all requests; mean coarse neurons of a prompt; the bare
        prompts' largest completeness error.  Raises BadInput for a request without a true answer, NoEdit where
        attributions are not finite.
        """
        terms: dict[int, list[tuple[Tensor, Tensor]]] = {}
        n_neurons, n_coarse, errors = 0, [], []
        for request in requests:
            attributions = self._attributions(lm, request, prepared.contexts)
            if not all(attribution.is_finite() for attribution in attributions):
                raise NoEdit(f"edit {request.named}: the attributions of neurons are not finite")
            coarse = [coarse_neurons(attribution, self.threshold) for attribution in attributions]
            refined = refine(coarse, self.share)
            if not refined:
                log.info("edit %s: no neuron is coarse in enough prompts, so nothing is written (a lower "
                         "method.threshold or method.share may find some)", request.named)  # fmt: skip
            for layer, term in self._terms(lm, request, refined).items():
                terms.setdefault(layer, []).append(term)
            n_neurons += len(refined)
            n_coarse += [len(neurons) for neurons in coarse]
            errors.append(attributions[list(prepared.contexts).index("")].completeness_error())
        diagnostics = {
            "n_neurons": float(n_neurons),
            "n_coarse": sum(n_coarse) / len(n_coarse),
            "completeness_error": max(errors),
        }
        changes = {lm.mlp_out_name(layer): _joined(terms[layer]) for layer in sorted(terms)}
        return Update(changes, diagnostics=diagnostics)

    def _attributions(self, lm: LM, request: EditRequest, contexts: Sequence[str]) -> list[Attribution]:
        from afteredit.edit.ingredients.context_prefixes import prefix_text
        from afteredit.edit.ingredients.neuron_attribution import attribute

        answer = lm.tokens.answer_ids(_true_answer(request), request.question)
        return [attribute(lm, prefix_text(context) + request.question, answer, self.steps) for context in contexts]

    def _terms(self, lm: LM, request: EditRequest, neurons: Iterable[Neuron]) -> dict[int, tuple[Tensor, Tensor]]:
        """Returns by block the vector written (D,) and the lengths of the columns it goes to (F,), float32 on CPU."""
        import torch

        new_D, true_D = (_direction(lm, lm.tokens.answer_ids(answer, request.question))
                         for answer in (request.target_new, _true_answer(request)))  # fmt: skip
        written_D = self.lambda_new * new_D - self.lambda_true * true_D
        columns: dict[int, list[int]] = {}
        for layer, column in neurons:
            columns.setdefault(layer, []).append(column)
        terms = {}
        for layer, at in columns.items():
            base_DF = lm.weights.W_base(lm.mlp_out_name(layer))
            lengths_F = torch.zeros(base_DF.shape[1])
            lengths_F[at] = base_DF[:, at].norm(dim=0).float().cpu()
            terms[layer] = (written_D, lengths_F)
        return terms


def coarse_neurons(attribution: Attribution, threshold: float) -> set[Neuron]:
    """Returns the neurons whose attribution is above `threshold` times the largest of all blocks."""
    least = threshold * max(float(scores_F.max()) for scores_F in attribution.scores_F)
    return {
        (layer, neuron)
        for layer, scores_F in enumerate(attribution.scores_F)
        for neuron in (scores_F > least).nonzero()[:, 0].tolist()
    }


def refine(coarse: Sequence[set[Neuron]], share: float) -> list[Neuron]:
    """Returns the neurons that are coarse in at least `share` of the prompts, in order."""
    counts = Counter(neuron for neurons in coarse for neuron in neurons)
    return sorted(neuron for neuron, count in counts.items() if count / len(coarse) >= share)


def _true_answer(request: EditRequest) -> str:
    if request.target_true is None:
        raise BadInput(f"edit {request.named} has no target_true, but KN looks for the neurons that say the true "
                       "answer; give target_true in its row, or choose another method")  # fmt: skip
    return request.target_true


def _direction(lm: LM, answer: Sequence[int]) -> Tensor:
    """Returns the input embedding of the answer's first token at length 1, (D,) float32 on the CPU."""
    embedding_D = lm.model.get_input_embeddings().weight[answer[0]].float().cpu()
    return embedding_D / embedding_D.norm()


def _joined(terms: Sequence[tuple[Tensor, Tensor]]) -> LowRank:
    import torch

    lefts, rights = zip(*terms, strict=True)
    return LowRank(torch.stack(lefts, 1), torch.stack(rights, 1))
