// What charts share, and those of checks.
function axisLayout(extra) {
  return { font: FONT, margin: { l: 60, r: 15, t: 15, b: 45 }, showlegend: false, plot_bgcolor: "#fff", ...extra };
}

function drawCharts() {
  const { elbo, khat } = data.charts;
  if (elbo) {
    const trace = { x: decoded(elbo.step), y: decoded(elbo.elbo), mode: "lines", line: { color: "#22567d", width: 1.5 } };
    const yaxis = { title: { text: "ELBO per row (nats)" }, ...(elbo.range ? { range: elbo.range } : {}) };
    Plotly.newPlot("elbo", [trace], axisLayout({ xaxis: { title: { text: "step" } }, yaxis }), CONFIG);
  }
  if (khat) {
    const trace = { x: decoded(khat), type: "histogram", marker: { color: "#22567d" }, nbinsx: 60 };
    const limit = { type: "line", x0: 0.7, x1: 0.7, yref: "paper", y0: 0, y1: 1, line: { color: "#b3261e", dash: "dash" } };
    const layout = { xaxis: { title: { text: "k-hat (limit 0.7)" } }, yaxis: { title: { text: "genes" } }, shapes: [limit] };
    Plotly.newPlot("khat", [trace], axisLayout(layout), CONFIG);
  }
}
