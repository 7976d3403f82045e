"use strict";
(() => {
  const hidden = new Set();
  const key = (section, method) => section + "/" + method;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const theme = () => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": colour("--ink"),
    "xaxis.gridcolor": colour("--grid"), "yaxis.gridcolor": colour("--grid"),
    "xaxis.linecolor": colour("--rule"), "yaxis.linecolor": colour("--rule"),
    "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": colour("--soft"), "modebar.activecolor": colour("--ink"),
    "hoverlabel.bgcolor": colour("--panel"), "hoverlabel.font.color": colour("--ink"),
  });
  const show = (plot) => {
    const on = plot.data.map((t) => t.meta === undefined || !hidden.has(key(plot.dataset.section, t.meta)));
    Plotly.restyle(plot, { visible: on });
  };
  const draw = (plot) => {
    if (plot.drawn) return;
    plot.drawn = true;
    const figure = JSON.parse(plot.querySelector("script").textContent);
    figure.layout.font = { family: getComputedStyle(document.body).fontFamily, size: 12 };
    Plotly.newPlot(plot, figure.data, figure.layout, { responsive: true, displaylogo: false, plotlyServerURL: "",
      displayModeBar: matchMedia("(hover: none)").matches ? false : "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] });
    Plotly.relayout(plot, theme());
    show(plot);
  };
  const plots = () => [...document.querySelectorAll(".plot")];
  const drawOpen = () => plots().filter((p) => !p.closest("details:not([open])")).forEach(draw);
  document.querySelectorAll("details.plots").forEach((d) => d.addEventListener("toggle", drawOpen));
  drawOpen();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots().filter((p) => p.drawn).forEach((p) => Plotly.relayout(p, theme())));

  document.querySelectorAll(".legend button").forEach((button) => button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    hidden[on ? "delete" : "add"](key(button.dataset.section, button.dataset.method));
    plots().filter((p) => p.drawn && p.dataset.section === button.dataset.section).forEach(show);
  }));

  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.sort ?? cell.textContent.trim();
    const number = text === "nan" ? NaN : Number(text);
    return text === "nan" || !Number.isNaN(number) ? number : text;
  };
  const order = (a, b) => {
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  document.querySelectorAll("table.sortable thead button").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("thead th").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("divider"));
      rows.forEach((row) => row.classList.remove("rule"));
      rows.map((row) => [value(row, column), row])
        .sort(([a], [b]) => (Number.isNaN(a) || Number.isNaN(b) || !down ? order(a, b) : order(b, a)))
        .forEach(([, row]) => body.append(row));
    }
  }));
})();
