// The page of a gene: its effects in every line, its parameters, its sgRNAs.
const genePages = data.genePages && readGenePages(data.genePages);

function readGenePages(packed) {
  const genes = decoded(packed.genes);
  const statistics = (group) => Object.fromEntries(
    ["mean", "sd", "hdi_lower", "hdi_upper", "prob_negative"].map((name) => [name, decoded(group[name])]));
  return {
    genes,
    place: new Map(genes.map((gene, place) => [gene, place])),
    lines: decoded(packed.lines),
    lineages: decoded(packed.lineages),
    lineageOfLine: packed.lineageOfLine ? decoded(packed.lineageOfLine) : null,
    colours: packed.colours || null,
    effect: statistics(packed.effect),
    parameters: packed.parameters.map((each) => ({ name: each.name, note: each.note, ...statistics(each) })),
    unit: packed.unit ? { zero: decoded(packed.unit.zero), unit: decoded(packed.unit.unit) } : null,
    khat: packed.khat ? decoded(packed.khat) : null,
    sgrnas: {
      labels: packed.sgrnas.labels,
      starts: decoded(packed.sgrnas.starts),
      alphaDev: packed.sgrnas.alphaDev ? statistics(packed.sgrnas.alphaDev) : null,
      measured: packed.sgrnas.measured ? decoded(packed.sgrnas.measured) : null,
    },
  };
}

function lineageName(line) {
  return genePages.lineageOfLine ? genePages.lineages[genePages.lineageOfLine[line]] : "";
}

// A gene's effects in the chosen lines, in the order and unit asked for.
function effectsOf(gene) {
  const { effect, lines, lineageOfLine, unit } = genePages;
  const inControlUnit = unit !== null && byId("gene-unit").value === "control";
  const start = gene * lines.length;
  const wanted = byId("gene-lineage").value;
  const at = (line) => (inControlUnit ? { zero: unit.zero[line], unit: unit.unit[line] } : { zero: 0, unit: 1 });
  const found = [];
  for (let line = 0; line < lines.length; line += 1) {
    if (wanted !== "" && lineageOfLine[line] !== Number(wanted)) continue;
    const { zero, unit: size } = at(line);
    found.push({
      line,
      zero,
      size,
      mean: (effect.mean[start + line] - zero) / size,
      sd: effect.sd[start + line] / size,
      lower: (effect.hdi_lower[start + line] - zero) / size,
      upper: (effect.hdi_upper[start + line] - zero) / size,
      negative: effect.prob_negative[start + line],
    });
  }
  const byMean = (a, b) => a.mean - b.mean;
  const byLineage = (a, b) => lineageOfLine[a.line] - lineageOfLine[b.line] || byMean(a, b);
  found.sort(byId("gene-order").value === "lineage" && lineageOfLine ? byLineage : byMean);
  return { found, inControlUnit };
}

function effectTraces(found) {
  const groups = new Map();
  found.forEach((each, place) => {
    const lineage = genePages.lineageOfLine ? genePages.lineageOfLine[each.line] : 0;
    if (!groups.has(lineage)) groups.set(lineage, []);
    groups.get(lineage).push({ ...each, place });
  });
  return [...groups].map(([lineage, members]) => {
    const colour = genePages.colours ? genePages.colours[lineage] : "#22567d";
    return {
      type: "scatter",
      mode: "markers",
      name: genePages.lineageOfLine ? escaped(genePages.lineages[lineage]) : "lines",
      x: members.map((each) => each.mean),
      y: members.map((each) => each.place),
      marker: { color: colour, size: 7 },
      error_x: {
        type: "data",
        symmetric: false,
        array: members.map((each) => each.upper - each.mean),
        arrayminus: members.map((each) => each.mean - each.lower),
        color: colour,
        thickness: 1.5,
        width: 0,
      },
      customdata: members.map((each) => [
        escaped(genePages.lines[each.line]), escaped(lineageName(each.line)), each.lower, each.upper]),
      hovertemplate: "%{customdata[0]} %{customdata[1]}<br>%{x:.3f} [%{customdata[2]:.3f}, %{customdata[3]:.3f}]<extra></extra>",
    };
  });
}

function measuredTrace(gene, found) {
  const { sgrnas, lines } = genePages;
  const x = [], y = [], text = [];
  for (let sgrna = sgrnas.starts[gene]; sgrna < sgrnas.starts[gene + 1]; sgrna += 1) {
    found.forEach((each, place) => {
      const value = sgrnas.measured[sgrna * lines.length + each.line];
      if (value === MISSING) return;
      x.push((value / 1000 - each.zero) / each.size);
      y.push(place);
      text.push(escaped(sgrnas.labels[sgrna]));
    });
  }
  return {
    type: "scatter", mode: "markers", name: "sgRNAs, measured", x, y, customdata: text,
    marker: { color: "#8a96a1", size: 4, opacity: 0.55 },
    hovertemplate: "%{customdata}<br>%{x:.3f}<extra></extra>",
  };
}

function ticks(found, narrow) {
  if (found.length <= LABELLED_LINES) {
    const text = found.map((each) => {
      const name = lineageName(each.line);
      const lineage = narrow && name.length > LONGEST_LINEAGE ? `${name.slice(0, LONGEST_LINEAGE)}\u2026` : name;
      return escaped(lineage ? `${lineage} ${genePages.lines[each.line]}` : genePages.lines[each.line]);
    });
    return { tickvals: found.map((_, place) => place), ticktext: text };
  }
  if (!genePages.lineageOfLine || byId("gene-order").value !== "lineage") return { showticklabels: false };
  // More lines than fit: each lineage is named once, in its middle.
  const places = new Map();
  found.forEach((each, place) => {
    const name = lineageName(each.line);
    if (!places.has(name)) places.set(name, []);
    places.get(name).push(place);
  });
  const middle = (values) => values[Math.floor(values.length / 2)];
  return { tickvals: [...places.values()].map(middle), ticktext: [...places.keys()].map(escaped) };
}

function drawGene(gene) {
  const { found, inControlUnit } = effectsOf(gene);
  const traces = effectTraces(found);
  if (genePages.sgrnas.measured) traces.unshift(measuredTrace(gene, found));
  const step = found.length <= LABELLED_LINES ? 17 : found.length <= 400 ? 8 : 4;
  const height = 90 + Math.max(4, found.length) * step;
  const narrow = byId("gene-chart").clientWidth < NARROW;
  const unit = inControlUnit ? "control genes: non-essential 0, essential -1" : "log2 fold change";
  const rule = (x) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: "#b9c2ca", width: 1 }, layer: "below" });
  byId("gene-chart").style.height = `${height}px`;
  const layout = axisLayout({
    height,
    margin: { l: 10, r: 15, t: 30, b: 45 },
    xaxis: { title: { text: narrow ? "effect" : `effect (${unit})` }, zeroline: false, gridcolor: "#eef1f4" },
    yaxis: {
      ...ticks(found, narrow), range: [found.length - 0.4, -0.6], automargin: true, zeroline: false, showgrid: false,
      tickfont: { size: narrow ? 10 : 11 },
    },
    shapes: inControlUnit ? [rule(0), rule(-1)] : [rule(0)],
    hovermode: "closest",
  });
  Plotly.react("gene-chart", traces, layout, CONFIG);
  byId("gene-title").textContent = genePages.genes[gene];
  byId("gene-facts").textContent = geneFacts(gene);
  byId("gene-caption").textContent = `Effect in ${unit}. Dots are posterior means, bars 89 % highest-density intervals`
    + (genePages.sgrnas.measured ? ", small dots the measured mean of each sgRNA over replicates." : ".");
  drawGeneTables(gene, found);
}

function geneFacts(gene) {
  const { sgrnas, khat } = genePages;
  const n = sgrnas.starts[gene + 1] - sgrnas.starts[gene];
  const facts = [];
  if (n > 0) facts.push(`${n} sgRNA${n === 1 ? "" : "s"}`);
  if (khat && Number.isFinite(khat[gene])) facts.push(`k-hat ${khat[gene].toFixed(2)}`);
  return facts.join(", ");
}

function drawGeneTables(gene, found) {
  const lines = byId("gene-lines");
  lines.replaceChildren();
  const pick = (name) => Float32Array.from(found, (each) => each[name]);
  buildTable(lines, [
    column("depmap_id", "text", found.map((each) => genePages.lines[each.line])),
    ...(genePages.lineageOfLine ? [column("lineage", "text", found.map((each) => lineageName(each.line)))] : []),
    column("mean", "number", pick("mean"), "posterior mean"),
    column("sd", "number", pick("sd"), "posterior standard deviation"),
    column("hdi_5.5%", "number", pick("lower"), "lower bound of the 89 % interval"),
    column("hdi_94.5%", "number", pick("upper"), "upper bound of the 89 % interval"),
    column("prob_negative", "number", pick("negative"), "posterior probability that the log2 fold change is below 0"),
  ], found.length);

  const { parameters, sgrnas } = genePages;
  const one = (name) => Float32Array.from(parameters, (each) => each[name][gene]);
  const holder = byId("gene-parameters");
  holder.replaceChildren();
  if (parameters.length) {
    holder.append(element("h3", {}, "Its parameters"));
    buildTable(holder, [
      column("variable", "text", parameters.map((each) => each.name)),
      column("mean", "number", one("mean")), column("sd", "number", one("sd")),
      column("hdi_5.5%", "number", one("hdi_lower")), column("hdi_94.5%", "number", one("hdi_upper")),
      ...(parameters.some((each) => each.note) ? [column("not_identified", "text", parameters.map((each) => each.note))] : []),
    ], parameters.length, false);
  }

  const ofSgrnas = byId("gene-sgrnas");
  ofSgrnas.replaceChildren();
  const [first, last] = [sgrnas.starts[gene], sgrnas.starts[gene + 1]];
  if (!sgrnas.alphaDev || first === last) return;
  ofSgrnas.append(element("h3", {}, "Its sgRNAs"), element("p", {}, "alpha_dev: the sgRNA's effect minus the mean of its gene's sgRNAs (log2 fold change)."));
  const part = (name) => sgrnas.alphaDev[name].slice(first, last);
  buildTable(ofSgrnas, [
    column("sgrna", "text", sgrnas.labels.slice(first, last)),
    column("mean", "number", part("mean")), column("sd", "number", part("sd")),
    column("hdi_5.5%", "number", part("hdi_lower")), column("hdi_94.5%", "number", part("hdi_upper")),
  ], last - first, false);
}

let current = null;

function showGene(name) {
  const known = genePages.place.has(name) ? name
    : genePages.genes.find((gene) => gene.toLowerCase() === name.toLowerCase());
  const message = byId("gene-message");
  message.hidden = known !== undefined;
  if (known === undefined) {
    message.textContent = `There is no page of a gene called ${name}.`;
    return false;
  }
  drawNamed(known);
  return true;
}

function drawNamed(gene) {
  current = gene;
  byId("gene-name").value = gene;
  drawGene(genePages.place.get(gene));
}

function suggest() {
  const query = byId("gene-name").value.trim().toLowerCase();
  const starts = genePages.genes.filter((gene) => gene.toLowerCase().startsWith(query)).slice(0, 40);
  byId("gene-names").replaceChildren(...starts.map((gene) => element("option", { value: gene })));
}

function followAddress() {
  const match = location.hash.match(/^#gene=(.*)$/);
  if (!match) return false;
  let name;
  try { name = decodeURIComponent(match[1]); } catch { return false; }
  const found = showGene(name);
  byId("gene").scrollIntoView();
  return found;
}

function setUpGenes() {
  options(byId("gene-lineage"), [["", "all lineages"], ...genePages.lineages.map((name, code) => [String(code), name])]);
  options(byId("gene-order"), genePages.lineageOfLine ? [["lineage", "by lineage"], ["mean", "by effect"]] : [["mean", "by effect"]]);
  if (genePages.unit) {
    options(byId("gene-unit"), [["control", "control genes"], ["lfc", "log2 fold change"]]);
    byId("gene-unit-label").hidden = false;
  }
  for (const id of ["gene-lineage", "gene-order", "gene-unit"]) {
    byId(id).addEventListener("change", () => drawGene(genePages.place.get(current)));
  }
  const input = byId("gene-name");
  input.addEventListener("input", () => {
    suggest();
    if (genePages.place.has(input.value.trim())) showGene(input.value.trim());
  });
  input.addEventListener("focus", () => { input.select(); suggest(); });
  byId("gene-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (name) showGene(name);
  });
  window.addEventListener("hashchange", followAddress);
  // A gene that the address asks for in vain is said to be missing, above the one that is shown.
  if (!followAddress()) drawNamed(data.firstGene ?? genePages.genes[0]);
}
