"""Which column of a table is which: the schema, its aliases, the historic layouts, a caller's mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from vihier.screen.faults import fault, nearest, shown


class Kind(Enum):
    """How a column is read."""

    KEY = "key"
    NUMBER = "number"
    FLAG = "flag"
    CATEGORY = "category"
    CARRIED = "carried"


REQUIRED = ("sgrna", "hugo_symbol", "depmap_id", "lfc")
KINDS = {
    "sgrna": Kind.KEY,
    "hugo_symbol": Kind.KEY,
    "depmap_id": Kind.KEY,
    "lfc": Kind.NUMBER,
    "lineage": Kind.KEY,
    "replicate_id": Kind.KEY,
    "screen": Kind.KEY,
    "p_dna_batch": Kind.CATEGORY,
    "copy_number": Kind.NUMBER,
    "rna_expr": Kind.NUMBER,
    "counts_final": Kind.NUMBER,
    "counts_initial": Kind.NUMBER,
    "counts_expected": Kind.NUMBER,
    "is_mutated": Kind.FLAG,
    # Of the historic layouts, where the values alone could mislead: a chromosome is not a number, and what is listed
    # per mutation (joined by ";") must not turn into a flag in the tables where every sgRNA has one mutation.
    "chromosome": Kind.CATEGORY,
    "sgrna_target_chr": Kind.CATEGORY,
    "genome_alignment": Kind.CATEGORY,
    "variant_classification": Kind.CATEGORY,
    "is_deleterious": Kind.CATEGORY,
    "is_tcga_hotspot": Kind.CATEGORY,
    "is_cosmic_hotspot": Kind.CATEGORY,
}
ALIASES = {"pdna_batch": "p_dna_batch"}
# What other tools call the required columns: never taken by itself, only suggested.
SUGGESTIONS = {
    "sgrna": ("sgrna", "sgrna_id", "sgrna_sequence", "sequence", "barcode", "barcode_sequence", "guide", "construct"),
    "hugo_symbol": ("hugo_symbol", "gene", "gene_symbol", "symbol", "gene_name", "hgnc_symbol"),
    "depmap_id": ("depmap_id", "depmapid", "modelid", "model_id", "cell_line", "cellline", "line", "ccle_name"),
    "lfc": ("lfc", "logfc", "log2fc", "log_fold_change", "log2_fold_change", "fold_change", "logfoldchange"),
}
# fmt: off
LAYOUTS = {
    "historic, 27 columns": frozenset(
        {"sgrna", "replicate_id", "lfc", "pdna_batch", "passes_qc", "depmap_id", "primary_or_metastasis", "lineage",
        "lineage_subtype", "kras_mutation", "genome_alignment", "n_alignments", "hugo_symbol", "chromosome",
        "chrom_pos", "segment_mean", "segment_cn", "log2_gene_cn_p1", "gene_cn", "n_muts", "any_deleterious",
        "variant_classification", "is_deleterious", "is_tcga_hotspot", "is_cosmic_hotspot",
        "mutated_at_guide_location", "rna_expr"}
    ),
    "historic, 24 columns": frozenset(
        {"sgrna", "replicate_id", "lfc", "p_dna_batch", "genome_alignment", "hugo_symbol", "screen",
        "multiple_hits_on_gene", "sgrna_target_chr", "sgrna_target_pos", "depmap_id", "counts_final",
        "counts_initial", "rna_expr", "num_mutations", "any_deleterious", "any_tcga_hotspot",
        "any_cosmic_hotspot", "is_mutated", "copy_number", "lineage", "primary_or_metastasis", "is_male",
        "age"}
    ),
}
# fmt: on
# Row numbers that pandas, R and readr write beside a table. They would be a covariate that changes with the row order.
STRAY = re.compile(r"|Unnamed: \d+(_level_\d+)?|\.\.\.\d+|__index_level_\d+__|rownames?|row\.names")
MAYBE_STRAY = frozenset({"index", "level_0", "X", "V1", "row"})


@dataclass(frozen=True)
class ColumnPlan:
    """Which columns are read, as what.

    Attributes
    ----------
    position
        Our name to the place (from 0) among the table's columns.
    header
        Our name to the table's name.
    ignored
        The table's name to the reason why it is not read.
    layout
        The historic layout this is, or None.
    """

    position: dict[str, int]
    header: dict[str, str]
    ignored: dict[str, str] = field(default_factory=dict)
    layout: str | None = None

    def kind(self, name: str) -> Kind:
        """Return how the column of this name is read."""
        return KINDS.get(name, Kind.CARRIED)


def plan_columns(source: str, names: Sequence[str], mapping: Mapping[str, str] | None = None) -> ColumnPlan:
    """Decide which of a table's columns is which.

    Parameters
    ----------
    source
        The file or frame, for messages.
    names
        The table's column names, in order; white space around them does not count.
    mapping
        Our name to the table's, for columns that are called otherwise: ``{"lfc": "LFC"}``.

    Raises
    ------
    VihierError
        A duplicate name, a required column that is missing, or a mapping to a column that is not there.
    """
    names = [name.strip().lstrip("\ufeff") for name in names]
    _refuse_duplicates(source, names)
    mapping = _checked_mapping(source, names, mapping or {})
    ours = {theirs: name for name, theirs in mapping.items()}
    position: dict[str, int] = {}
    header: dict[str, str] = {}
    ignored: dict[str, str] = {}
    for place, theirs in enumerate(names):
        name = ours.get(theirs) or ALIASES.get(theirs, theirs)
        if theirs not in ours and STRAY.fullmatch(theirs):
            ignored[theirs or f"(unnamed, column {place + 1})"] = "row numbers, not data"
        elif theirs not in ours and name in mapping:
            ignored[theirs] = f"{name!r} is mapped to {mapping[name]!r}"
        elif name in position:
            both = f"columns {shown(header[name])} and {shown(theirs)} are both {name!r}"
            raise fault(source, both, cure=f"keep one, or choose by columns={{{name!r}: ...}} (--column {name}=...)")
        else:
            position[name], header[name] = place, theirs
    _refuse_missing(source, names, position)
    layout = next((layout for layout, known in LAYOUTS.items() if known <= set(names)), None)
    return ColumnPlan(position, header, ignored, layout)


def _refuse_duplicates(source: str, names: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        if name in seen and not STRAY.fullmatch(name):
            where = f"column {shown(name)} is there twice, as columns {seen[name]} and {place}"
            raise fault(source, where, cure="rename or remove one of them")
        seen[name] = place


def _checked_mapping(source: str, names: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    checked: dict[str, str] = {}
    for name, theirs in mapping.items():
        if not isinstance(name, str) or not isinstance(theirs, str):
            raise fault(
                source, f"columns={{{name!r}: {theirs!r}}} does not map a name to a name", cure="give two names"
            )
        name, theirs = ALIASES.get(name.strip(), name.strip()), theirs.strip()
        if theirs not in names:
            cure = f"{name!r} was to be read from it; map {name!r} to a column that is there"
            if name in names and theirs in KINDS:
                cure = f"the mapping reads ours=theirs, so perhaps columns={{{theirs!r}: {name!r}}} was meant"
            raise fault(source, f"column {shown(theirs)} is not in the table{nearest(theirs, names)}", cure=cure)
        if name not in KINDS and theirs in REQUIRED:
            cure = f"the mapping reads ours=theirs, and the table has {theirs!r} already; leave it out"
            raise fault(source, f"column {shown(theirs)} is needed and was mapped away to {name!r}", cure=cure)
        if theirs in checked.values():
            raise fault(source, f"column {shown(theirs)} is mapped to more than one name", cure="map it once")
        checked[name] = theirs
    return checked


def _refuse_missing(source: str, names: Sequence[str], position: Mapping[str, int]) -> None:
    missing = [name for name in REQUIRED if name not in position]
    if not missing:
        return
    spare = [name for name in names if name and name not in KINDS]
    by_case = {name.casefold().replace(" ", "_"): name for name in spare}
    pairs: list[tuple[str, str]] = []
    for name in missing:
        theirs = next((by_case[word] for word in SUGGESTIONS[name] if word in by_case), None)
        if theirs is not None:
            pairs.append((name, theirs))
    listed = " and ".join(repr(name) for name in missing)
    problem = f"column {listed} is missing" if len(missing) == 1 else f"columns {listed} are missing"
    there = ", ".join(shown(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
    if pairs:
        mapping = ", ".join(f"{name!r}: {theirs!r}" for name, theirs in pairs)
        flags = " ".join(f"--column {name}={theirs}" for name, theirs in pairs)
        cure = f"perhaps columns={{{mapping}}} ({flags})"
    else:
        example = missing[0]
        cure = f"add it, or map it with columns={{{example!r}: ...}} (--column {example}=...)"
    raise fault(source, f"{problem}; the table has {there}", cure=cure)
