"""How draws that are not stored are made again: what a file says about it, and the arithmetic.

The file holds draws of everything per gene, sgRNA, line and of what genes share, and the cells (how many rows each
sgRNA and line has, and the sum of their lfc). The gene x line table given all that is Normal in closed form, and only
its noise is made anew, from a counter. Every other variable over genes and lines is a sum of this table and of stored
ones.

Where rows have weights, the table does not follow from all that: its draws are in the file then, as deviations from its
prior mean, of 16 bits each in steps of the gene's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vihier.posterior.counter_noise import key_of
from vihier.posterior.leaf import leaf_noise, leaf_posterior, leaf_variances, level_counts, noise_of_sum
from vihier.posterior.linear_forms import GENE, LINE, LINEAGE, SGRNA, Known, LinearForm, Places, Term, aligned, value_of

GENE_LINE = (GENE, LINE)


@dataclass(frozen=True)
class Cells:
    """Cells of some genes: their sum of lfc, [genes, lines]; rows by sgRNA, [sgRNAs, lines]; and rows of all lines.

    `line_count` is [genes, all lines of the screen]; the others are of the lines asked for. Where the leaf's draws are
    kept, these are its `deviation`, float32 [genes, lines, draws], and the rest is empty.
    """

    total: np.ndarray
    count: np.ndarray
    line_count: np.ndarray
    deviation: np.ndarray | None = None

    @classmethod
    def of_kept(cls, deviation: np.ndarray) -> Cells:
        """Return those of kept draws."""
        none = np.zeros((len(deviation), 0), dtype=np.float32)
        return cls(none, none, none, deviation)

    def of_genes(self, genes: np.ndarray, sgrnas: np.ndarray) -> Cells:
        """Return those of some genes and their sgRNAs, by place."""
        if self.deviation is not None:
            return Cells.of_kept(self.deviation[genes])
        return Cells(self.total[genes], self.count[sgrnas], self.line_count[genes])


STEPS = 32_767
"""Steps of a kept deviation on either side of zero."""


def in_steps(deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round deviations of genes, [genes, lines, draws], to whole steps, int16, and each gene's step, float32 [genes].

    Examples
    --------
    >>> steps, step = in_steps(np.array([[[0.5, -1.0]]], dtype=np.float32))
    >>> steps.tolist(), bool(abs(steps[0, 0, 0] * step[0] - 0.5) < 1e-4)
    ([[[16384, -32767]]], True)
    """
    step = np.abs(deviation).max((1, 2), initial=0.0) / np.float32(STEPS)
    step[step == 0] = 1.0
    return np.rint(deviation / step[:, None, None]).astype(np.int16), step.astype(np.float32)


@dataclass(frozen=True)
class Regeneration:
    """What is regenerated, and from what.

    Attributes
    ----------
    leaf : str
        The gene x line table.
    coefficient : float
        Of it in a row's mean.
    mean : LinearForm
        Of its prior.
    sd, noise : tuple of (str or None, float)
        A scale, or None, and its multiple: the prior's sd, and that of the rows.
    rest : LinearForm
        All else in a row's mean.
    variables : mapping
        Variable over genes and lines -> what it is the sum of.
    seed : int
        Of the noise.
    kept : bool
        Whether the leaf's draws are kept.
    """

    leaf: str
    coefficient: float
    mean: LinearForm
    sd: tuple[str | None, float]
    noise: tuple[str | None, float]
    rest: LinearForm
    variables: Mapping[str, LinearForm]
    seed: int
    kept: bool = False

    def to_json(self) -> str:
        """Return the root attribute that says it."""
        content: dict[str, Any] = {
            "leaf": self.leaf,
            "coefficient": self.coefficient,
            "mean": self.mean.to_json(),
            "sd": list(self.sd),
            "noise": list(self.noise),
            "rest": self.rest.to_json(),
            "variables": {name: form.to_json() for name, form in self.variables.items()},
            "seed": self.seed,
        } | ({"kept": True} if self.kept else {})
        return json.dumps(content)

    @classmethod
    def of_json(cls, text: str) -> Regeneration:
        """Read what `to_json` wrote."""
        content = json.loads(text)
        forms = {name: LinearForm.of_json(form) for name, form in content["variables"].items()}
        return cls(
            content["leaf"],
            float(content["coefficient"]),
            LinearForm.of_json(content["mean"]),
            (content["sd"][0], float(content["sd"][1])),
            (content["noise"][0], float(content["noise"][1])),
            LinearForm.of_json(content["rest"]),
            forms,
            int(content["seed"]),
            bool(content.get("kept", False)),
        )

    @property
    def key(self) -> tuple[int, int]:
        """The noise's."""
        return key_of(self.seed, self.leaf)

    def needs(self, variable: str) -> list[str]:
        """Return the stored variables that draws of a variable are made from."""
        forms = [self.variables[variable]]
        if any(term.variable == self.leaf for term in forms[0].terms):
            forms += [self.mean] if self.kept else [self.mean, self.rest]
        names = [term.variable for form in forms for term in form.terms]
        names += [name for name, _ in (self.sd, self.noise) if name is not None and not self.kept]
        return [name for name in dict.fromkeys(names) if name not in self.variables]

    def posterior(self, cells: Cells, known: Known, places: Places) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd of the leaf given all else, [genes, lines, draws]."""
        prior = value_of(self.mean, known, GENE_LINE, places), self._scale(self.sd, known, places)
        count = np.ascontiguousarray(cells.line_count[:, places.lines]).astype(np.float32)[..., None]
        return leaf_posterior(
            cells.total[..., None],
            count,
            self._rest(cells, count, known, places),
            prior,
            self._scale(self.noise, known, places),
            self.coefficient,
        )

    def _rest(self, cells: Cells, count: np.ndarray, known: Known, places: Places) -> np.ndarray:
        """Sum over each cell's rows of all else in their mean; sgRNA by sgRNA, for the same rounding in any company."""
        n_draws = next(iter(known.values()))[1].shape[-1]
        shape = (len(places.genes), len(places.lines), n_draws)
        total = np.empty(shape, dtype=np.float32)
        np.multiply(count, value_of(self._of_lines(known), known, GENE_LINE, places), out=total)
        for term in self._sgrna_terms(known):
            values = np.float32(term.coefficient) * known[term.variable][1]
            for genes, sgrnas in places.slots():
                part = cells.count[sgrnas].astype(np.float32)[..., None] * values[sgrnas][:, None]
                if len(genes) == len(total):
                    total += part
                else:
                    total[genes] += part
        return total

    def _scale(self, link: tuple[str | None, float], known: Known, places: Places) -> np.ndarray:
        name, factor = link
        if name is None:
            return np.full((1, 1, 1), factor, dtype=np.float32)
        return aligned(Term(name, factor), known, GENE_LINE, places) * np.float32(factor)

    def _variances(self, cells: Cells, known: Known, places: Places) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the kinds of elements, by number of rows and prior sd: how many up to a line, and their variances."""
        noise = self._scale(self.noise, known, places)
        counts, variances = [], []
        for lines, sd in self._kinds_of_lines(known, places, cells.line_count.shape[1]):
            levels = np.unique(cells.line_count[:, lines]).tolist()
            counts += level_counts(cells.line_count, levels, lines)
            variances += leaf_variances(levels, sd, noise, self.coefficient)
        return counts, variances

    def _kinds_of_lines(self, known: Known, places: Places, n_lines: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return which lines have one prior sd, and that, [genes or 1, 1, draws]."""
        name, factor = self.sd
        dims, values = ((), np.ones(1, dtype=np.float32)) if name is None else known[name]
        values = values * np.float32(factor)
        if LINEAGE not in dims:
            return [(np.ones(n_lines, dtype=bool), values.reshape(-1, 1, values.shape[-1]))]
        assert dims == (LINEAGE,) and places.lineage_of_all is not None
        kinds = [(places.lineage_of_all == lineage, values[lineage][None, None]) for lineage in range(len(values))]
        return [(lines, sd) for lines, sd in kinds if lines.any()]

    def draws_of_leaf(self, cells: Cells, known: Known, places: Places) -> np.ndarray:
        """Draws of the leaf, float32 [genes, lines, draws]."""
        if cells.deviation is not None:
            return cells.deviation + value_of(self.mean, known, GENE_LINE, places)
        mean, _ = self.posterior(cells, known, places)
        mean += leaf_noise(self.key, places.genes, places.lines, *self._variances(cells, known, places))
        return mean

    def mean_over_lines(self, cells: Cells, known: Known, places: Places) -> np.ndarray:
        """Mean of the leaf's draws over all lines, [genes, draws], without making them; `places` has all lines.

        Lines of a kind shrink by one factor, so that their posterior means are summed by sums over the lines.
        """
        if cells.deviation is not None:
            return self.draws_of_leaf(cells, known, places).mean(1)
        mean, others = (value_of(form, known, GENE_LINE, places) for form in (self.mean, self._of_lines(known)))
        noise = self._scale(self.noise, known, places)[:, 0]
        total = np.zeros((len(places.genes), noise.shape[-1]), dtype=np.float32)
        for lines, sd in self._kinds_of_lines(known, places, len(places.lines)):
            gain = np.float32(self.coefficient) * (sd * sd)[:, 0] / (noise * noise)
            for level in np.unique(cells.line_count[:, lines]).tolist():
                mask = ((cells.line_count == level) & lines).astype(np.float32)
                prior = _summed(mask, mean)
                left = (mask * cells.total).sum(1, keepdims=True) - np.float32(level) * _summed(mask, others)
                left = left - np.float32(self.coefficient * level) * prior
                left -= self._of_sgrnas(mask, cells, known, places)
                total += prior + gain / (1 + np.float32(self.coefficient * level) * gain) * left
        total += noise_of_sum(self.key, places.genes, *self._variances(cells, known, places))
        return total / np.float32(len(places.lines))

    def _of_sgrnas(self, mask: np.ndarray, cells: Cells, known: Known, places: Places) -> np.ndarray:
        """Sum over some lines' rows of what sgRNAs add to their mean, [genes, draws]."""
        n_draws = next(iter(known.values()))[1].shape[-1]
        total = np.zeros((len(places.genes), n_draws), dtype=np.float32)
        for term in self._sgrna_terms(known):
            values = np.float32(term.coefficient) * known[term.variable][1]
            for genes, sgrnas in places.slots():
                total[genes] += (mask[genes] * cells.count[sgrnas]).sum(1, keepdims=True) * values[sgrnas]
        return total

    def _sgrna_terms(self, known: Known) -> list[Term]:
        return [term for term in self.rest.terms if known[term.variable][0] == (SGRNA,)]

    def _of_lines(self, known: Known) -> LinearForm:
        """Return what is in a row's mean beside the leaf and what is of its sgRNA."""
        of_sgrnas = self._sgrna_terms(known)
        return LinearForm(self.rest.offset, tuple(term for term in self.rest.terms if term not in of_sgrnas))

    def draws(self, variables: Iterable[str], cells: Cells, known: Known, places: Places) -> dict[str, np.ndarray]:
        """Draws of some variables over genes and lines, float32 [genes, lines, draws] each."""
        forms = {name: self.variables[name] for name in variables}
        if any(term.variable == self.leaf for form in forms.values() for term in form.terms):
            known = {**known, self.leaf: (GENE_LINE, self.draws_of_leaf(cells, known, places))}
        found = {}
        for name, form in forms.items():
            values = value_of(form, known, GENE_LINE, places)
            shape = (len(places.genes), len(places.lines), values.shape[-1])
            found[name] = np.ascontiguousarray(np.broadcast_to(values, shape), dtype=np.float32)
        return found


def _summed(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum values [genes or 1, lines or 1, draws] over each gene's lines in a mask, [genes, draws]."""
    if values.shape[1] == 1:
        return mask.sum(1, keepdims=True) * values[:, 0]
    if values.shape[0] == 1:
        return mask @ values[0]
    return np.einsum("gc,gcr->gr", mask, values)
