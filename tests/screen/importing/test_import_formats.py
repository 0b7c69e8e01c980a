"""Every format to the long table: sizes, labels and values that can be read off the small files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import vihier
from vihier.errors import ScreenWarning, VihierError
from vihier.screen.importing import (
    Centring,
    Choices,
    MappedFiles,
    Normalisation,
    import_bagel,
    import_chronos,
    import_depmap,
    import_mageck,
)
from vihier.screen.importing.spool import Spool

KEYS = ["sgrna", "replicate_id"]


def by_key(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    return frame.set_index(KEYS).sort_index()


def expected_lfc(folder: Path) -> pd.Series:
    """The fold changes of the Chronos files by pandas: log2(rpm + 1) minus the mean over the batch's pools."""
    counts = pd.read_csv(folder / "chronos/TinyReadcounts.csv", index_col=0)
    log = np.log2(counts.div(counts.sum(axis=1), axis=0) * 1e6 + 1)
    pools = {"HEL_A": ["pool_1a", "pool_1b"], "KU_A": ["pool_2"]}
    pools |= {"HEL_B": pools["HEL_A"], "KU_B": pools["KU_A"]}
    lfc = pd.DataFrame({name: log.loc[name] - log.loc[of].mean() for name, of in pools.items()})
    return (
        lfc.rename_axis("sgrna")
        .melt(ignore_index=False, var_name="replicate_id")
        .dropna()
        .set_index("replicate_id", append=True)["value"]
        .sort_index()
    )


@pytest.mark.parametrize("matrix", ["TinyReadcounts.csv", "TinyReadcounts.hdf5", "turned.csv", "turned.csv.gz"])
def test_chronos_layout_in_text_and_hdf5_and_turned(folder: Path, matrix: str) -> None:
    path = folder / "chronos" / matrix
    if matrix.startswith("turned"):
        text = pd.read_csv(folder / "chronos/TinyReadcounts.csv", index_col=0).T.to_csv()
        path.write_bytes(gzip.compress(text.encode()) if matrix.endswith(".gz") else text.encode())
    maps = (folder / "chronos/TinySequenceMap.csv",), (folder / "chronos/TinyGuideMap.csv",)
    out = folder / "screen.parquet"
    report = import_chronos(MappedFiles((path,), *maps), out, line_map=folder / "chronos/lines.csv")
    # 24 values of 4 replicates, one of them NA; HEL_B fails QC and is kept.
    assert (report.n_rows, report.n_genes, report.n_sgrnas, report.n_lines, report.n_replicates) == (23, 3, 6, 2, 4)
    assert report.left_out["missing values"] == 1
    assert "1 of 4 replicates have PassesQC false and are kept" in report.warnings[0]
    table = by_key(out)
    pd.testing.assert_series_equal(table["lfc"], expected_lfc(folder), check_names=False, rtol=1e-13)
    row = table.loc[("GGG", "HEL_A")]
    assert (row["hugo_symbol"], row["depmap_id"], row["lineage"]) == ("BRAF", "ACH-000004", "Myeloid")
    assert (row["counts_final"], row["counts_initial"], row["days"]) == (40, 20, 21)
    assert (row["p_dna_batch"], row["genome_alignment"], row["n_alignments"]) == ("1", "chr7_3_+", 2)
    said = json.loads(pq.read_metadata(out).metadata[b"vihier_import"])
    assert said["lfc"] == report.lfc == "log2(reads per million + 1) minus the mean of its plasmid batch"


def test_rows_come_gene_by_gene(folder: Path) -> None:
    out = folder / "screen.csv"
    import_chronos(MappedFiles((folder / "chronos/TinyReadcounts.csv",)), out)
    genes = pd.read_csv(out)["hugo_symbol"]
    assert genes.is_monotonic_increasing
    assert vihier.read_screen(out).n_rows == len(genes)


def test_failing_replicates_and_unused_sgrnas(folder: Path) -> None:
    path = folder / "chronos/TinyGuideMap.csv"
    path.write_text(path.read_text().replace("AAA,chr3_1_-,PIK3CB (5291),1.0,,True", "AAA,,PIK3CB (5291),1.0,,False"))
    files, out = MappedFiles((folder / "chronos/TinyReadcounts.hdf5",)), folder / "screen.parquet"
    report = import_chronos(files, out, choices=Choices(passing_only=True))
    assert report.n_replicates == 3 and report.n_sgrnas == 5
    assert report.left_out["sgRNAs not used, by the guide map's UsedByChronos"] == 1
    assert import_chronos(files, out, choices=Choices(all_sgrnas=True)).n_sgrnas == 6


def test_centring_leaves_a_median_of_zero(folder: Path) -> None:
    files, out = MappedFiles((folder / "chronos/TinyReadcounts.csv",)), folder / "screen.parquet"
    import_chronos(files, out, normalisation=Normalisation(centring=Centring("median")))
    assert by_key(out).groupby("replicate_id")["lfc"].median().abs().max() < 1e-14  # float64 rounding
    import_chronos(files, out, normalisation=Normalisation(centring=Centring("nonessential", frozenset({"BRAF"}))))
    table = by_key(out)
    assert table[table["hugo_symbol"] == "BRAF"].groupby("replicate_id")["lfc"].median().abs().max() < 1e-14
    # A constant was taken off each replicate, nothing else.
    spread, expected = (lfc.groupby("replicate_id").var() for lfc in (table["lfc"], expected_lfc(folder)))
    pd.testing.assert_series_equal(spread, expected, check_names=False)


def test_two_libraries_in_one_table(folder: Path) -> None:
    one, two = folder / "chronos/TinyReadcounts.csv", folder / "chronos/OtherReadcounts.csv"
    for kind in ("Readcounts", "SequenceMap", "GuideMap"):
        (folder / f"chronos/Other{kind}.csv").write_text((folder / f"chronos/Tiny{kind}.csv").read_text())
    out = folder / "both.parquet"
    report = import_chronos(MappedFiles((one, two)), out)
    assert report.n_rows == 46 and report.n_sgrnas == 12 and report.n_replicates == 8
    table = pd.read_parquet(out)
    assert table["screen"].value_counts().to_dict() == {"Tiny": 23, "Other": 23}
    with pytest.warns(ScreenWarning, match="in more than one screen"):
        assert vihier.read_screen(out).n_sgrnas == 12  # one reagent a screen
    with pytest.raises(VihierError, match="both be screen"):
        MappedFiles((one, one))


def test_copy_number_is_carried_as_it_is(folder: Path) -> None:
    (folder / "cn.csv").write_text(",PIK3CB (5291),BRAF (673),SOX1 (1)\nACH-000004,1.5,0.5,1\nACH-1,1,1,1\n")
    out = folder / "screen.parquet"
    report = import_chronos(MappedFiles((folder / "chronos/TinyReadcounts.csv",)), out, copy_number=folder / "cn.csv")
    table = by_key(out)
    assert table.loc[("AAA", "HEL_A"), "copy_number"] == 1.5 and table.loc[("GGG", "HEL_B"), "copy_number"] == 0.5
    # KRAS is not in the matrix, nor is the second line.
    assert table["copy_number"].isna().sum() == 4 + 11
    assert any("1 line without copy number" in text for text in report.warnings)


def test_portal_fold_changes_with_maps_found_beside(folder: Path) -> None:
    out = folder / "screen.csv.gz"
    report = import_depmap(MappedFiles((folder / "depmap/AvanaLogfoldChange.csv",)), out)
    assert (report.n_rows, report.n_genes, report.n_sgrnas, report.n_replicates) == (11, 2, 4, 3)
    assert report.lfc == "log2 fold changes of the file"
    table = by_key(out)
    assert table.loc[("TTT", "KU_A"), "lfc"] == -2.5
    assert table.loc[("TTT", "KU_A"), "lineage"] == "Lymphoid"  # of Model.csv
    assert table.loc[("TTT", "KU_A"), "p_dna_batch"] == "Avana-4"
    assert "counts_final" not in table


def test_genes_that_share_a_symbol_stay_apart(folder: Path) -> None:
    path = folder / "depmap/AvanaGuideMap.csv"
    path.write_text(path.read_text().replace("CCC,chr3_2_-,PIK3CB (5291)", "CCC,chr3_2_-,PIK3CB (77)"))
    out = folder / "screen.csv"
    report = import_depmap(MappedFiles((folder / "depmap/AvanaLogfoldChange.csv",)), out)
    assert set(pd.read_csv(out)["hugo_symbol"]) == {"PIK3CB (5291)", "PIK3CB (77)", "BRAF"}
    assert "1 symbol of several genes" in report.warnings[1]


def test_mageck_table_with_a_sample_sheet(folder: Path) -> None:
    out = folder / "screen.csv"
    report = import_mageck(folder / "mageck/counts.txt", folder / "mageck/samples.csv", out)
    assert (report.n_rows, report.n_lines, report.n_replicates) == (12, 2, 3)
    table = by_key(out)
    # Totals: T0 1028, HEL_T14_A 2513.
    by_hand = np.log2(883 / 2513 * 1e6 + 1) - np.log2(213 / 1028 * 1e6 + 1)
    np.testing.assert_allclose(table.loc[("A1CF_1", "HEL_T14_A"), "lfc"], by_hand, rtol=1e-13)
    assert table.loc[("BRAF_2", "KU_T14_A"), ["depmap_id", "lineage", "note"]].tolist() == ["KU812", "blood", "first"]


def test_initial_samples_of_a_line_are_its_own_baseline(folder: Path) -> None:
    (folder / "mageck/samples.csv").write_text(
        "sample,depmap_id,role,p_dna_batch\nT0,HEL,initial,HEL\nHEL_T14_A,HEL,final,HEL\nHEL_T14_B,HEL,initial,KU\n"
        "KU_T14_A,KU812,final,KU\n"
    )
    out = folder / "screen.csv"
    how = Normalisation(reads_per_million=False)
    import_mageck(folder / "mageck/counts.txt", folder / "mageck/samples.csv", out, normalisation=how)
    table = by_key(out)
    np.testing.assert_allclose(table.loc[("A1CF_1", "HEL_T14_A"), "lfc"], np.log2(884 / 214), rtol=1e-13)
    np.testing.assert_allclose(table.loc[("A1CF_1", "KU_T14_A"), "lfc"], np.log2(176 / 401), rtol=1e-13)


def test_bagel_table_of_one_line_and_with_a_sheet(folder: Path) -> None:
    path, out = folder / "bagel/HCT116.foldchange", folder / "screen.csv"
    report = import_bagel(path, "HCT116", out)
    assert report.n_rows == 8 and report.left_out["sgRNAs without a gene"] == 1
    assert by_key(out).loc[("s2", "T18_B"), "lfc"] == -2.75
    (folder / "sheet.csv").write_text("sample,ModelID,OncotreeLineage\nT18_A,ACH-1,Bowel\nT18_B,ACH-2,Bowel\n")
    assert import_bagel(path, folder / "sheet.csv", out).n_lines == 2
    assert set(pd.read_csv(out)["lineage"]) == {"Bowel"}


def test_conflicting_sgrnas_are_dropped_where_asked(folder: Path) -> None:
    for name in ("depmap/AvanaGuideMap.csv", "bagel/HCT116.foldchange"):
        path = folder / name
        extra = "AAA,chr3_1_-,BRAF (673),1,True,\n" if "Map" in name else "s1\tABCG8\t1.0\t1.0\n"
        path.write_text(path.read_text() + extra)
    out = folder / "screen.csv"
    files = MappedFiles((folder / "depmap/AvanaLogfoldChange.csv",))
    report = import_depmap(files, out, choices=Choices(on_conflict="drop"))
    assert report.left_out["sgRNAs with two genes"] == 1 and "AAA" not in set(pd.read_csv(out)["sgrna"])
    report = import_bagel(folder / "bagel/HCT116.foldchange", "HCT116", out, on_conflict="drop")
    assert report.n_sgrnas == 3


def test_labels_with_a_comma_or_a_quotation_mark_survive_text(folder: Path) -> None:
    lines = folder / "lines.csv"
    lines.write_text('ModelID,OncotreeLineage\nACH-000004,"Head, ""Neck"""\nACH-000074,Skin\n')
    out = folder / "screen.tsv"
    import_chronos(MappedFiles((folder / "chronos/TinyReadcounts.csv",)), out, line_map=lines)
    assert set(vihier.read_screen(out).index.lineages) == {'Head, "Neck"', "Skin"}


def test_a_spool_gives_back_what_was_put_in(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(37, 11))
    spool = Spool(tmp_path, 11)
    for block in np.array_split(values, 5):
        spool.append(block)
    order = np.array([3, 4, 5, 36, 0, 1])
    np.testing.assert_array_equal(spool.rows(order), values[order])
    np.testing.assert_array_equal(spool.columns(2, 5), values[:, 2:5])
    with spool.transposed() as turned:
        np.testing.assert_array_equal(turned.rows(np.arange(11)), values.T)
    assert list(tmp_path.iterdir()) == []


def test_counts_are_kept_with_what_is_expected_of_them(folder: Path) -> None:
    """As many of a sample's reads as the share of the sgRNA in its batch's pools; not where these have none of it."""
    path, out = folder / "chronos/TinyReadcounts.csv", folder / "screen.parquet"
    table = pd.read_csv(path, index_col=0)
    table.loc[["pool_1a", "pool_1b"], table.columns[0]] = 0
    table.to_csv(path)
    plain = folder / "plain.parquet"
    before = import_chronos(MappedFiles((path,)), plain)
    report = import_chronos(MappedFiles((path,)), out, normalisation=Normalisation(keep_counts=True))
    share = table.div(table.sum(axis=1), axis=0)
    pools = {"HEL_A": ["pool_1a", "pool_1b"], "KU_A": ["pool_2"]}
    pools |= {"HEL_B": pools["HEL_A"], "KU_B": pools["KU_A"]}
    found = by_key(out)
    for (sgrna, replicate), row in found.iterrows():
        of_pools = share.loc[pools[replicate], sgrna].mean()
        assert row["counts_expected"] == pytest.approx(of_pools * table.loc[replicate].sum())
        assert row["counts_final"] == table.loc[replicate, sgrna]
    assert (found["counts_expected"] > 0).all()
    absent = by_key(plain).index.difference(found.index)
    assert set(absent.get_level_values("sgrna")) <= {table.columns[0]}
    assert report.left_out["values with too few reads in the plasmid pool"] == len(absent) == before.n_rows - len(found)
    # What a replicate is centred by is a factor of what is expected of it.
    centred = folder / "centred.parquet"
    how = Normalisation(keep_counts=True, centring=Centring("median"))
    import_chronos(MappedFiles((path,)), centred, normalisation=how)
    moved = by_key(centred).loc[found.index]
    np.testing.assert_allclose(
        np.log2(moved["counts_expected"] / found["counts_expected"]), found["lfc"] - moved["lfc"], atol=1e-9
    )
