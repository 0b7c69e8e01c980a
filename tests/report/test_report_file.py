"""The report as a file: self-contained, of bounded size, whole or not there, and with what no browser is needed for."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import HOSTILE_GENE, HOSTILE_GENES, Reported
from markupsafe import escape

import vihier
from vihier.cli import main
from vihier.errors import VihierError
from vihier.posterior.reader import Posterior
from vihier.posterior.writer import PosteriorWriter
from vihier.report import write_report
from vihier.report.answers_tables import Calling

Make = Callable[..., Posterior]


class Elements(HTMLParser):
    """Start tags with their attributes, and what stands in scripts that are data."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._in_data = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_data = tag == "script" and dict(attrs).get("type") == "application/json"

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data


def data_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Elements(path.read_text(encoding="utf-8")).data)
    return found


def floats(packed: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["f32"]), dtype="<f4")


def test_labels_are_no_markup(reported: Reported) -> None:
    elements = Elements(reported.html)
    known = {"script": 3, "img": 3, "b": 0, "svg": 0, "i": 0, "textarea": 0}
    assert {name: sum(tag == name for tag, _ in elements.tags) for name in known} == known
    assert "&lt;i&gt;fit.h5" in reported.html  # the file's own name
    assert set(HOSTILE_GENES) < set(json.loads(elements.data)["genePages"]["genes"])


def test_nothing_is_loaded_from_anywhere(reported: Reported) -> None:
    elements = Elements(reported.html)
    loading = ("src", "href", "action", "data", "poster", "srcset")
    addresses = [value or "" for _, attrs in elements.tags for name, value in attrs.items() if name in loading]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    policy = next(attrs["content"] or "" for tag, attrs in elements.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe-eval" not in policy


def test_its_numbers_are_those_of_the_file(reported: Reported) -> None:
    pages = data_of(reported.written.path)["genePages"]
    post = reported.post
    for name in ("mean", "sd", "hdi_lower", "hdi_upper", "prob_negative"):
        np.testing.assert_array_equal(floats(pages["effect"][name]), post.moments("effect")[name].values.ravel())
        np.testing.assert_array_equal(
            floats(pages["sgrnas"]["alphaDev"][name]),
            post.moments("alpha_dev", sgrna=pages["sgrnas"]["labels"])[name].values,
        )
    np.testing.assert_array_equal(floats(pages["khat"]), post.group("diagnostics")["khat"].values.astype("f4"))


def test_measurements_are_those_of_the_screen_also_of_a_store(reported: Reported, tmp_path: Path) -> None:
    frame = reported.screen.to_frame()
    frame.to_parquet(tmp_path / "screen.parquet")
    assert main(["pack", str(tmp_path / "screen.parquet"), str(tmp_path / "store.h5"), "--quiet"]) == 0
    out = tmp_path / "report.html"
    assert main(["report", str(reported.post.path), "--out", str(out), "--screen", str(tmp_path / "store.h5")]) == 0
    sgrnas, in_memory = data_of(out)["genePages"]["sgrnas"], data_of(reported.written.path)["genePages"]["sgrnas"]
    assert sgrnas == in_memory
    values = np.frombuffer(base64.b64decode(sgrnas["measured"]["i16"]), dtype="<i2").astype(float).reshape(-1, 9)
    values[values == -32768] = np.nan
    expected = frame.pivot_table(index="sgrna", columns="depmap_id", values="lfc", aggfunc="mean")
    # Rounded to a thousandth; NaN where the screen has no row.
    np.testing.assert_allclose(values / 1000, expected.loc[sgrnas["labels"]].to_numpy(), atol=0.00051)


def test_a_table_with_other_names_and_without_lineages_is_read_as_the_fit_had_it(
    reported: Reported, tmp_path: Path
) -> None:
    table = tmp_path / "screen.csv"
    frame = reported.screen.subset(genes=reported.screen.index.genes[-4:].tolist()).to_frame()
    frame.drop(columns="lineage").rename(columns={"lfc": "LFC"}).to_csv(table, index=False)
    named = ["--column", "lfc=LFC"]
    fit, out = str(tmp_path / "fit.h5"), str(tmp_path / "report.html")
    quick = ["--single-lineage", "--guide", "mean_field", "--max-steps", "5", "--draws", "20", "--quiet"]
    assert main(["fit", str(table), "--out", fit, *named, *quick]) == 0
    assert main(["report", fit, "--out", out, "--screen", str(table), *named]) == 0
    html = Path(out).read_text(encoding="utf-8")
    assert "posterior predictive by gene" in html and "Rows were not checked" not in html


def test_nine_hundred_genes_in_sixty_lines_are_below_30_mb(make_posterior: Make, tmp_path: Path) -> None:
    written = write_report(make_posterior(900, 60, 6), tmp_path / "report.html")
    assert written.n_gene_pages == written.n_genes == 900
    assert written.n_bytes < 30e6


def test_where_not_all_genes_fit_the_strongest_have_a_page_and_the_page_says_so(
    make_posterior: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vihier.report.gene_pages.LARGEST", 3 * 8 * 27)
    post = make_posterior(12, 8, 2)
    written = write_report(post, tmp_path / "report.html")
    assert written.n_gene_pages == 3
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "3 of 12 genes have a page here" in html
    # In every line the same distance from the mean, so that only their effects tell the genes apart.
    assert data_of(tmp_path / "report.html")["genePages"]["genes"] != post.labels("hugo_symbol").tolist()


def test_genes_that_are_named_have_a_page(make_posterior: Make, tmp_path: Path) -> None:
    post = make_posterior(12, 8, 2)
    wanted = ["GENE0007", "GENE0003", "GENE0007"]
    assert write_report(post, tmp_path / "report.html", genes=wanted).n_gene_pages == 2
    pages = data_of(tmp_path / "report.html")["genePages"]
    assert pages["genes"] == ["GENE0003", "GENE0007"]
    expected = post.moments("effect", hugo_symbol=["GENE0003", "GENE0007"])["mean"].values
    np.testing.assert_array_equal(floats(pages["effect"]["mean"]), expected.ravel())


def test_the_unit_of_control_genes_is_that_of_hits(make_posterior: Make, tmp_path: Path) -> None:
    from vihier import answers
    from vihier.diagnostics.control_genes import ControlGenes

    post = make_posterior(12, 8, 2)
    controls = ControlGenes({"GENE0011", "GENE0010"}, {"GENE0000", "GENE0001"})
    write_report(post, tmp_path / "report.html", calling=Calling(controls=controls))
    data = data_of(tmp_path / "report.html")
    scaling = answers.control_scaling(post, controls)
    for name, expected in (("zero", scaling.zero), ("unit", scaling.unit)):
        np.testing.assert_allclose(floats(data["genePages"]["unit"][name]), expected, rtol=1e-6)
    table = next(each for each in data["tables"] if each["key"] == "genes")
    columns = {column["name"]: column["values"] for column in table["columns"]}
    called = answers.hits(post, fdr=1.0, controls=controls).table
    shown = dict(zip(columns["hugo_symbol"], floats(columns["mean"]), strict=True))
    assert shown == pytest.approx(dict(zip(called["hugo_symbol"], called["mean"], strict=True)))


def test_what_qc_flags_is_in_the_report(reported: Reported, tmp_path: Path) -> None:
    from vihier.quality import fit_quality, screen_quality

    expected = [*fit_quality(reported.post).flags["text"], *screen_quality(reported.screen).flags["text"]]
    table = next(each for each in data_of(reported.written.path)["tables"] if each["key"] == "flags")
    assert sorted(table["columns"][0]["values"]) == sorted(expected)
    assert expected


def test_the_list_of_checks_is_in_the_report(reported: Reported) -> None:
    from vihier.diagnostics.checks import check_fit

    for item in check_fit(reported.post, reported.screen).items:
        assert (
            f'<span class="status {item.status}">{item.status}</span> <strong>{escape(item.name)}</strong>:'
            in reported.html
        )
        assert str(escape(item.sentence)) in reported.html
    assert "posterior predictive by gene" in reported.html


def test_rows_of_a_screen_that_was_fitted_in_part_are_checked(reported: Reported, tmp_path: Path) -> None:
    part = reported.screen.subset(genes=reported.screen.index.genes[:6].tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vihier.FitWarning)
        post = vihier.fit(part, guide="mean_field", draws=20, max_steps=5, quiet=True)
    write_report(post, tmp_path / "report.html", screen=reported.screen, check_draws=20)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "posterior predictive by gene" in html and "Rows were not checked" not in html


def test_rows_of_another_screen_are_not_checked_and_the_page_says_so(reported: Reported, tmp_path: Path) -> None:
    other = vihier.read_screen(reported.screen.to_frame().assign(lfc=lambda frame: frame["lfc"] + 0.5))
    write_report(reported.post, tmp_path / "report.html", screen=other)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Rows were not checked" in html and "other rows or values" in html
    assert "posterior predictive by gene" not in html


def test_a_fit_that_did_not_converge_says_so(make_posterior: Make, tmp_path: Path) -> None:
    write_report(make_posterior(4, 5, 2, converged=False), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The fit did not converge" in html and '<span class="status fail">fail</span>' in html


def test_a_program_without_effect_has_a_report_without_hits(tmp_path: Path) -> None:
    about = {"model": "slopes", "guide": "mean_field", "seed": 0, "priors": {}, "config": "", "screen_hash": ""}
    with PosteriorWriter(
        tmp_path / "fit.h5", labels={"hugo_symbol": [HOSTILE_GENE]}, n_draws=20, attrs=about
    ) as writer:
        writer.add("slope", ("hugo_symbol",))
        writer.write("slope", np.zeros((20, 1)))
        writer.write_group("vi_history", {"step": np.arange(3)}, {"step": ("record",)})
        writer.finish(converged=True)
    with vihier.open_posterior(tmp_path / "fit.h5") as post:
        written = write_report(post, tmp_path / "report.html")
    assert written.n_gene_pages == 0
    assert 'id="hits"' not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert data_of(tmp_path / "report.html")["genePages"] is None


def test_a_refused_report_leaves_the_earlier_one(reported: Reported, make_posterior: Make, tmp_path: Path) -> None:
    post = make_posterior(4, 5, 2)
    out = tmp_path / "report.html"
    out.write_text("earlier")
    with pytest.raises(VihierError, match="NOSUCH"):
        write_report(post, out, genes=["NOSUCH"])
    with pytest.raises(VihierError, match="give the screen that was fitted"):
        write_report(post, out, screen=reported.screen)
    assert out.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.glob("*.html*")) == ["report.html"]


def test_a_screen_that_lacks_genes_of_the_fit_is_said_in_the_page(reported: Reported, tmp_path: Path) -> None:
    part = reported.screen.subset(genes=[HOSTILE_GENE])
    write_report(reported.post, tmp_path / "report.html", screen=part)
    assert "it is not the one that was fitted" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_command_says_what_it_wrote(
    make_posterior: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(make_posterior(4, 5, 2).path), "--out", str(out), "--gene", "GENE0001", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["n_bytes"] == out.stat().st_size
    assert (said["out"], said["n_genes"], said["n_gene_pages"]) == (str(out), 4, 1)
    assert said["n_rows"]["genes"] == 4
    assert main(["report", "fit.h5", "--out", str(tmp_path / "report.pdf")]) == 2
    assert "report.html" in capsys.readouterr().err
