r"""How rows scatter around their mean: Normal, Student-t or counts, with one noise scale or one a screen, line, ...

The noise scales of several elements are log-normal around a common one,

$$ \log \sigma_r \sim N(\log \sigma,\ \sigma_\sigma), \quad \sigma \sim HN(3), \ \sigma_\sigma \sim HN(1) $$

and that of a replicate is around one of its line in its screen, which is around the common one: replicates of a line
are alike. So an element with few rows, or one that is new, borrows from the others. Student-t rows have degrees of
freedom $\nu \sim \mathrm{Gamma}(2, 0.1)$ (Juarez & Steel 2010, J. Bus. Econ. Stat. 28, 52), or known ones.

Rows that are read counts are negative-binomial, and the noise scale is their coefficient of variation beyond that of
Poisson counts. It can also have a factor for each gene or sgRNA, fall with the reads that are expected of the row, and
be larger for one row in ten, nobody knows which:

$$ s = \sigma_r\, f_s\, (E / 300)^{-p}\, e^{u x}, \quad \log f_s \sim N(0,\ \sigma_f), \ \sigma_f, p, x \sim HN(1) $$

with $u \sim \mathrm{Bernoulli}(0.1)$.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import torch

from vihier.errors import VihierError
from vihier.models.batch import Batch
from vihier.models.counts import COUNTS, EXPECTED, ReadCounts

FAMILIES = ("normal", "student_t", "negative_binomial")
NOISES = ("global", "screen", "line", "replicate")
NUS = ("global", "screen")
# What the noise of counts can have beside its scale, joined by "_".
DISPERSION_PARTS = (("", "gene", "sgrna"), ("", "abundance"), ("", "row"))
DISPERSIONS = ("global", *("_".join(filter(None, parts)) for parts in product(*DISPERSION_PARTS) if any(parts)))


@dataclass(frozen=True)
class Likelihood:
    """The distribution of a row around its mean.

    Attributes
    ----------
    family : str
        `normal`, `student_t` or `negative_binomial`: of the column `counts_final`, relative to `counts_expected`.
    noise : str
        What has a noise scale of its own: `global`, `screen`, `line` or `replicate`.
    nu : str or float
        Degrees of freedom of Student-t rows: learned, one for all (`global`) or for each `screen`; or a number.
    dispersion : str
        What the noise of counts has beside that: nothing (`global`), or, joined by "_", a factor for each `gene` or
        `sgrna`, a power of the `abundance`, and some rows that are noisier (`row`).

    Examples
    --------
    >>> Likelihood("student_t", "replicate").label
    'student_t, noise by replicate'
    """

    family: str = "normal"
    noise: str = "global"
    nu: str | float = "global"
    dispersion: str = "global"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("likelihood", self.family, FAMILIES),
            ("noise", self.noise, NOISES),
            ("dispersion", self.dispersion, DISPERSIONS),
        ):
            if value not in known:
                raise VihierError(f"{name} {value!r}: not known; choose one of {', '.join(known)}")
        if isinstance(self.nu, str):
            if self.nu not in NUS:
                raise VihierError(f"nu {self.nu!r}: not known; give {' or '.join(NUS)}, or a positive number")
        elif not (math.isfinite(self.nu) and self.nu > 0):
            raise VihierError(f"nu {self.nu!r}: degrees of freedom are a positive number")

    @property
    def is_plain(self) -> bool:
        """Whether rows are Normal with one noise scale."""
        return self.family == "normal" and self.noise == "global"

    @property
    def is_of_counts(self) -> bool:
        """Whether rows are read counts."""
        return self.family == "negative_binomial"

    @property
    def label(self) -> str:
        """In words."""
        dispersion = "" if self.dispersion == "global" else f", dispersion by {self.dispersion.replace('_', ', ')}"
        return self.family + ("" if self.noise == "global" else f", noise by {self.noise}") + dispersion

    @property
    def settings(self) -> dict[str, str | float]:
        """What a fit's configuration says of it; `of_settings` reads it."""
        said: dict[str, str | float] = {"likelihood": self.family, "noise": self.noise}
        if self.is_of_counts:
            return said | {"dispersion": self.dispersion}
        return said | ({"nu": self.nu} if self.family == "student_t" else {})

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the unindexed sites that fold changes have for it."""
        noise = () if self.noise == "global" else ("sigma_sigma",)
        levels = ("sigma_sigma_line_screen",) if self.noise == "replicate" else ()
        return ("sigma", *noise, *levels, *(("nu",) if self.family == "student_t" and self.nu == "global" else ()))

    @staticmethod
    def of_settings(settings: Mapping[str, Any]) -> Likelihood:
        """Read a fit's configuration; one that says nothing of it is that of Normal rows with one noise scale."""
        return Likelihood(
            settings.get("likelihood", "normal"),
            settings.get("noise", "global"),
            settings.get("nu", "global"),
            settings.get("dispersion", "global"),
        )

    def sample_scales(
        self,
        batch: Batch,
        lines: pyro.plate,
        screens: pyro.plate | None = None,
        line_screens: pyro.plate | None = None,
    ) -> Mapping[str, torch.Tensor]:
        """Sample the noise scale, `sigma`, and the degrees of freedom, `nu`, that rows refer to.

        `lines`, `screens` and `line_screens` are the program's plates of these where it has them: Pyro has one of each
        name.
        """
        if screens is None and "screen" in (self.noise, self.nu):
            screens = pyro.plate("screen", batch.size_of("screen"), dim=-1)
        drawn = {"sigma": pyro.sample("sigma", dist.HalfNormal(3.0))}
        if self.noise == "replicate":
            spread = pyro.sample("sigma_sigma_line_screen", dist.HalfNormal(1.0))
            with line_screens or pyro.plate("line_screen", batch.size_of("line_screen"), dim=-1):
                of_line = pyro.sample("sigma_line_screen", dist.LogNormal(drawn["sigma"].log(), spread))
            drawn["sigma"] = of_line[..., batch.line_screen_of_replicate]
        if self.noise != "global":
            spread = pyro.sample("sigma_sigma", dist.HalfNormal(1.0))
            plates = {"line": lines, "screen": screens}
            with plates.get(self.noise) or pyro.plate(self.noise, batch.size_of(self.noise), dim=-1):
                drawn["sigma"] = pyro.sample(f"sigma_{self.noise}", dist.LogNormal(drawn["sigma"].log(), spread))
        if self.family == "student_t":
            if screens is not None and self.nu == "screen":
                with screens:
                    drawn["nu"] = pyro.sample("nu", dist.Gamma(2.0, 0.1))
            else:
                drawn["nu"] = pyro.sample("nu", dist.Gamma(2.0, 0.1)) if self.nu == "global" else torch.tensor(self.nu)
        for part in ("gene", "sgrna"):
            if part in self.dispersion:
                drawn["spread"] = pyro.sample(f"sigma_dispersion_{part}", dist.HalfNormal(1.0))
        if "abundance" in self.dispersion:
            drawn["power"] = pyro.sample("abundance_power", dist.HalfNormal(1.0))
        if "row" in self.dispersion:
            drawn["excess"] = pyro.sample("noisy_rows", dist.HalfNormal(1.0))
        return drawn

    def sample_of_genes(self, scales: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Sample what of the noise is of genes, inside their plate, dim -2; return all scales."""
        return self._with_factor("gene", scales)

    def sample_of_sgrnas(self, scales: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Sample what of the noise is of sgRNAs, inside their plate, dim -1; return all scales."""
        return self._with_factor("sgrna", scales)

    def _with_factor(self, part: str, scales: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        if part not in self.dispersion:
            return scales
        return {**scales, "factor": pyro.sample(f"dispersion_{part}", dist.LogNormal(0.0, scales["spread"]))}

    def observe(self, batch: Batch, mean: torch.Tensor, scales: Mapping[str, torch.Tensor]) -> None:
        """Observe the rows, site `lfc` or `counts`, around their mean; call it inside the plate `row`."""
        sigma = scales["sigma"] if self.noise == "global" else scales["sigma"][..., batch.rows_in(self.noise)]
        if self.is_of_counts:
            factor = torch.ones_like(sigma)
            if "factor" in scales:
                factor = scales["factor"][batch.sgrna if "sgrna" in self.dispersion else (batch.gene, 0)]
            power, excess = (scales.get(name, torch.zeros_like(sigma)) for name in ("power", "excess"))
            rows = ReadCounts(mean, sigma, factor, power, batch.covariates[EXPECTED], excess)
            counts = batch.covariates[COUNTS] if COUNTS in batch.covariates else torch.zeros_like(rows.expected)
            pyro.sample("counts", rows, obs=None if batch.lfc is None else counts)
            return
        if self.family == "normal":
            pyro.sample("lfc", dist.Normal(mean, sigma), obs=batch.lfc)
            return
        nu = scales["nu"][..., batch.rows_in("screen")] if self.nu == "screen" else scales["nu"]
        pyro.sample("lfc", dist.StudentT(nu, mean, sigma), obs=batch.lfc)


NORMAL = Likelihood()
