"""The report in headless Chromium: it opens without an error, answers questions, and runs nothing that a label says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hostile import HOSTILE_GENE, HOSTILE_GENES, HOSTILE_LINE, HOSTILE_LINEAGE, HOSTILE_SGRNA, Reported

pytest.importorskip("selenium")
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

# As plotly is given it, to be shown as it is.
ESCAPED_SGRNA = HOSTILE_SGRNA.replace("<", "&lt;").replace(">", "&gt;")

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture
def page(browser: Chrome, reported: Reported) -> Chrome:
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.set_window_size(1280, 1000)
    browser.get(reported.written.path.as_uri())
    return browser


def rows(page: Chrome, holder: str) -> list[list[str]]:
    """Cells of the rows that a table shows, also of one that is on a closed tab."""
    script = (
        "return [...document.querySelectorAll(arguments[0] + ' tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    found: list[list[str]] = page.execute_script(script, holder)
    return found


def show_gene(page: Chrome, gene: str) -> None:
    name = page.find_element(By.ID, "gene-name")
    name.clear()
    name.send_keys(gene + Keys.ENTER)
    assert page.find_element(By.ID, "gene-title").text == gene


def chart(page: Chrome, name: str) -> list[dict[str, Any]]:
    """The traces that plotly drew."""
    script = (
        "return document.getElementById(arguments[0]).data.map(t => ({x: [...t.x], custom: t.customdata, "
        "array: t.error_x && [...t.error_x.array], minus: t.error_x && [...t.error_x.arrayminus]}))"
    )
    traces: list[dict[str, Any]] = page.execute_script(script, name)
    return traces


def test_it_opens_without_an_error_and_asks_the_network_for_nothing(page: Chrome) -> None:
    drawn = page.execute_script(
        "return ['elbo', 'khat', 'gene-chart'].map(id => document.getElementById(id).data.length)"
    )
    assert all(drawn)
    assert page.get_log("browser") == []
    asked = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [said["params"]["request"]["url"] for said in asked if said["method"] == "Network.requestWillBeSent"]
    assert urls
    assert all(url.split(":")[0] in ("file", "data", "blob") for url in urls)


def test_no_button_of_a_chart_sends_it_anywhere(page: Chrome) -> None:
    script = "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    assert set(page.execute_script(script)) == {"Download plot as a PNG", "Zoom", "Pan", "Reset axes"}


@pytest.mark.parametrize("gene", HOSTILE_GENES)
def test_a_label_that_is_markup_is_shown_and_does_nothing(page: Chrome, reported: Reported, gene: str) -> None:
    show_gene(page, gene)
    sgrnas = reported.screen.to_frame().query("hugo_symbol == @gene")["sgrna"].unique()
    assert [cells[0] for cells in rows(page, "#gene-sgrnas")] == sorted(sgrnas)
    assert [cells[0] for cells in rows(page, "#table-genes") if cells[0] == gene] == [gene]
    for label in (HOSTILE_LINE, HOSTILE_LINEAGE):
        assert any(label in cells for cells in rows(page, "#gene-lines"))
    # On the chart too: the letters themselves, in its labels and where the mouse is.
    ticks = page.execute_script(
        "return [...document.querySelectorAll('#gene-chart .ytick text')].map(t => t.textContent)"
    )
    assert f"{HOSTILE_LINEAGE} {HOSTILE_LINE}" in ticks or any(HOSTILE_LINE in tick for tick in ticks)
    page.execute_script("Plotly.Fx.hover('gene-chart', [{curveNumber: 1, pointNumber: 0}])")
    hovered = page.execute_script("return document.querySelector('#gene-chart .hoverlayer').textContent")
    assert HOSTILE_LINEAGE in hovered
    with pytest.raises(NoAlertPresentException):
        page.switch_to.alert  # noqa: B018
    foreign = "main script, main img[src=x], main b, main a[href^=javascript], svg a, [onload], [onerror]"
    assert page.execute_script(
        "return [window.pwned ?? null, document.querySelectorAll(arguments[0]).length]", foreign
    ) == [
        None,
        0,
    ]
    assert page.get_log("browser") == []


def test_an_sgrna_that_is_markup_is_shown_and_does_nothing(page: Chrome, reported: Reported) -> None:
    frame = reported.screen.to_frame()
    show_gene(page, frame.loc[frame["sgrna"] == HOSTILE_SGRNA, "hugo_symbol"].iloc[0])
    assert HOSTILE_SGRNA in [cells[0] for cells in rows(page, "#gene-sgrnas")]
    labels = chart(page, "gene-chart")[0]["custom"]
    page.execute_script(
        "Plotly.Fx.hover('gene-chart', [{curveNumber: 0, pointNumber: arguments[0]}])", labels.index(ESCAPED_SGRNA)
    )
    assert HOSTILE_SGRNA in page.execute_script("return document.querySelector('#gene-chart .hoverlayer').textContent")
    assert page.execute_script("return window.pwned ?? null") is None


def test_a_table_is_searched_and_sorted(page: Chrome, reported: Reported) -> None:
    assert len(rows(page, "#table-genes")) == 12
    search = page.find_element(By.CSS_SELECTOR, "#table-genes input")
    search.send_keys("<SCRIPT>alert")
    assert [cells[0] for cells in rows(page, "#table-genes")] == [HOSTILE_GENE]
    assert page.find_element(By.CSS_SELECTOR, "#table-genes .count").text == "1 of 12 rows"
    search.clear()
    search.send_keys(Keys.SPACE + Keys.BACKSPACE)
    expected = reported.post.summary("effect_gene").sort_values("mean")
    means = {gene: f"{mean:.3f}" for gene, mean in zip(expected["hugo_symbol"], expected["mean"], strict=True)}
    by_mean = page.find_elements(By.CSS_SELECTOR, "#table-genes th button")[1]
    for order, sort in ((list(means), "ascending"), (list(means)[::-1], "descending")):
        by_mean.click()
        assert [cells[0] for cells in rows(page, "#table-genes")] == order
        assert by_mean.find_element(By.XPATH, "..").get_attribute("aria-sort") == sort
    # The mean over lines is that of the draws, which the file has as effect_gene: equal to what is shown.
    shown = {cells[0]: float(cells[1]) for cells in rows(page, "#table-genes")}
    assert shown == pytest.approx({gene: float(mean) for gene, mean in means.items()}, abs=0.0011)


def test_tabs_show_one_table_at_a_time(page: Chrome) -> None:
    tab = page.find_element(By.ID, "tab-selective-lineage")
    tab.click()
    panels = {
        panel.get_attribute("id"): panel.is_displayed()
        for panel in page.find_elements(By.CSS_SELECTOR, "#hits [role=tabpanel]")
    }
    assert [name for name, displayed in panels.items() if displayed] == ["panel-selective-lineage"]
    assert tab.get_attribute("aria-selected") == "true"


def test_a_gene_page_has_the_numbers_of_the_posterior(page: Chrome, reported: Reported) -> None:
    gene = reported.post.labels("hugo_symbol")[-1]
    show_gene(page, gene)
    expected = reported.post.summary("effect", hugo_symbol=gene).set_index("depmap_id")
    assert len(rows(page, "#gene-lines")) == len(expected) == 9
    for line, _, *numbers in rows(page, "#gene-lines"):
        of_line = expected.loc[line, ["mean", "sd", "hdi_5.5%", "hdi_94.5%", "prob_negative"]]
        assert numbers == [f"{value:.3f}" for value in of_line]
    _, *by_lineage = chart(page, "gene-chart")
    assert len(by_lineage) == 3
    drawn = {}
    for trace in by_lineage:
        for x, custom, above, below in zip(trace["x"], trace["custom"], trace["array"], trace["minus"], strict=True):
            line = custom[0].replace("&lt;", "<").replace("&gt;", ">")
            drawn[line] = (x, x - below, x + above)
    bounds = expected[["mean", "hdi_5.5%", "hdi_94.5%"]]
    # float32 in the file, float32 in the page; the bars are differences of such.
    np.testing.assert_allclose([drawn[line] for line in bounds.index], bounds.to_numpy(), atol=1e-6)


def test_a_gene_page_has_the_measurements(page: Chrome, reported: Reported) -> None:
    gene = reported.post.labels("hugo_symbol")[-1]
    show_gene(page, gene)
    frame = reported.screen.to_frame()
    means = frame[frame["hugo_symbol"] == gene].groupby(["sgrna", "depmap_id"])["lfc"].mean()
    # Kept to a thousandth of a log2 fold change.
    np.testing.assert_allclose(sorted(chart(page, "gene-chart")[0]["x"]), sorted(means), atol=0.00051)


def test_lines_are_chosen_by_lineage_and_ordered_by_effect(page: Chrome, reported: Reported) -> None:
    def lines() -> Sequence[str]:
        return [cells[0] for cells in rows(page, "#gene-lines")]

    gene = reported.post.labels("hugo_symbol")[-1]
    show_gene(page, gene)
    index = reported.post.group("index")
    of_line = dict(
        zip(index["depmap_id"].values, index["lineage"].values[index["lineage_of_line"].values], strict=True)
    )
    mean = reported.post.summary("effect", hugo_symbol=gene).set_index("depmap_id")["mean"]
    assert lines() == sorted(mean.index, key=lambda line: (of_line[line], mean[line]))
    page.find_element(By.CSS_SELECTOR, "#gene-order option[value=mean]").click()
    assert lines() == mean.sort_values().index.tolist()
    page.find_element(By.XPATH, "//select[@id='gene-lineage']/option[2]").click()
    assert lines() == [line for line in mean.sort_values().index if of_line[line] == HOSTILE_LINEAGE]


def test_a_gene_is_found_by_its_address_and_by_clicking_it(page: Chrome, reported: Reported) -> None:
    page.get(f"{reported.written.path.as_uri()}#gene=%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    page.refresh()
    assert page.find_element(By.ID, "gene-title").text == HOSTILE_GENE
    link = page.find_element(By.CSS_SELECTOR, "#table-genes tbody tr:nth-child(3) a")
    gene = link.text
    page.execute_script("arguments[0].click()", link)
    assert page.find_element(By.ID, "gene-title").text == gene


def test_an_address_of_a_gene_that_has_no_page_shows_another(page: Chrome, reported: Reported) -> None:
    page.get(f"{reported.written.path.as_uri()}#gene=NOSUCH")
    page.refresh()
    assert page.find_element(By.ID, "gene-message").text == "There is no page of a gene called NOSUCH."
    assert page.find_element(By.ID, "gene-title").text in reported.post.labels("hugo_symbol")
    page.find_element(By.CSS_SELECTOR, "#gene-order option[value=mean]").click()
    assert page.get_log("browser") == []


def test_a_gene_that_has_no_page_is_said(page: Chrome) -> None:
    name = page.find_element(By.ID, "gene-name")
    name.clear()
    name.send_keys("<b>NOSUCH</b>" + Keys.ENTER)
    message = page.find_element(By.ID, "gene-message")
    assert message.is_displayed() and message.text == "There is no page of a gene called <b>NOSUCH</b>."


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page: Chrome, width: int) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    page.refresh()
    try:
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
