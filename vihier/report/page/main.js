// Put everything in its place.
for (const spec of data.tables) {
  const columns = spec.columns.map((each) => ({ ...each, values: decoded(each.values) }));
  buildTable(byId(`table-${spec.key}`), columns, spec.nRows, spec.key !== "parameters");
}
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => {
    for (const other of tab.parentElement.children) {
      other.setAttribute("aria-selected", String(other === tab));
      byId(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
  });
}
drawCharts();
if (genePages) setUpGenes();
