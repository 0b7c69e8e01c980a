"""What of some tables is to be read, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from vihier.screen.columns import ALIASES, KINDS, Kind
from vihier.screen.faults import fault, nearest, shown
from vihier.screen.validate import KEYS, Options
from vihier.store.covariates import ReadAgain
from vihier.store.tables import Tables


@dataclass(frozen=True)
class Request:
    """What is to be read.

    Attributes
    ----------
    tables, options
        Where from, and what the caller asked for.
    names
        Our names of the keys to read.
    covariates
        Our names of the covariates to read, in the tables' order.
    ignored
        The tables' name of columns that are not carried, and why.
    as_labels
        Covariates that an earlier attempt has shown to be labels.
    """

    tables: Tables
    options: Options
    names: tuple[str, ...]
    covariates: tuple[str, ...]
    ignored: Mapping[str, str]
    as_labels: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tables: Tables, options: Options, wanted: Iterable[str] | None) -> Request:
        """Choose the columns; `wanted` are covariates, None takes all.

        Raises
        ------
        VihierError
            An option that is none, a covariate that is not there, or a column that only some of the tables have.
        """
        if options.on_conflict not in ("error", "drop"):
            raise fault(f"on_conflict={options.on_conflict!r}", "unknown choice", cure="use 'error' or 'drop'")
        there = list(dict.fromkeys(name for plan in tables.plans for name in plan.position))
        carried = [name for name in there if name != "lfc" and KINDS.get(name) is not Kind.KEY]
        ignored = {header: why for plan in tables.plans for header, why in plan.ignored.items()}
        if wanted is not None:
            chosen = [ALIASES.get(name.strip(), name.strip()) for name in wanted]
            for name in chosen:
                if name not in there:
                    problem = f"covariate {shown(name)} is not in the table{nearest(name, carried)}"
                    raise fault(tables.name, problem, cure="name columns that are there")
            for name in (name for name in carried if name not in chosen):
                ignored |= {plan.header[name]: "not asked for" for plan in tables.plans if name in plan.header}
            carried = [name for name in carried if name in chosen]
        names = tuple(name for name in KEYS if name in there and not (name == "lineage" and options.single_lineage))
        tables.refuse_unlike([*names, *carried])
        if options.single_lineage and "lineage" in there:
            names = (*names, "lineage")
        return cls(tables, options, names, tuple(carried), ignored)

    def after(self, again: ReadAgain) -> Request:
        """Return what to read after an attempt that has shown how a covariate is to be read, or that it is not."""
        if again.nothing is None:
            return replace(self, as_labels=self.as_labels | {again.name})
        ignored = {plan.header[again.name]: again.nothing for plan in self.tables.plans}
        covariates = tuple(name for name in self.covariates if name != again.name)
        return replace(self, covariates=covariates, ignored={**self.ignored, **ignored})
