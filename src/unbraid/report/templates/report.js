"use strict";
// @ts-check
/* Draws the figures when they come into sight, fills tables when they are opened, sorts, copies, hides methods. */
(() => {
  const hidden = new Set();
  const key = (section, method) => section + "/" + method;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const make = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  // ---- figures
  const theme = () => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": colour("--ink"),
    "xaxis.gridcolor": colour("--grid"), "yaxis.gridcolor": colour("--grid"),
    "xaxis.linecolor": colour("--rule"), "yaxis.linecolor": colour("--rule"), "xaxis.zerolinecolor": colour("--rule"),
    "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": colour("--soft"), "modebar.activecolor": colour("--ink"),
    "hoverlabel.bgcolor": colour("--panel"), "hoverlabel.font.color": colour("--ink"),
  });
  const show = (plot) => {
    const on = plot.data.map((t) => t.meta === undefined || !hidden.has(key(plot.dataset.section, t.meta)));
    if (on.includes(false) || plot.some) Plotly.restyle(plot, { visible: on });
    plot.some = on.includes(false);
  };
  const draw = (plot) => {
    if (plot.drawn) return;
    plot.drawn = true;
    const { figure } = JSON.parse(plot.querySelector("script").textContent);
    figure.layout.font = { family: getComputedStyle(document.body).fontFamily, size: 12 };
    figure.layout.dragmode = false; // a finger that scrolls must not zoom
    if (plot.clientWidth < 420) {
      figure.layout.yaxis.tickfont = { size: 10 };
      figure.layout.xaxis.title.font = { size: 10 };
      figure.data.forEach((trace) => (trace.mode = trace.mode?.replace("+text", "")));
    }
    Plotly.newPlot(plot, figure.data, figure.layout, { responsive: true, displaylogo: false, plotlyServerURL: "",
      displayModeBar: matchMedia("(hover: none)").matches ? false : "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] });
    Plotly.relayout(plot, theme());
    show(plot);
  };
  const plots = () => [...document.querySelectorAll(".plot")];
  const inSight = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => draw(e.target)),
    { rootMargin: "600px" });
  plots().forEach((plot) => inSight.observe(plot));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots().filter((p) => p.drawn).forEach((p) => Plotly.relayout(p, theme())));
  addEventListener("beforeprint", () => plots().filter((p) => !p.closest("details:not([open])")).forEach(draw));

  document.querySelectorAll(".legend button").forEach((button) => button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    hidden[on ? "delete" : "add"](key(button.dataset.section, button.dataset.method));
    plots().filter((p) => p.drawn && p.dataset.section === button.dataset.section).forEach(show);
  }));

  // ---- tables
  const shown = (cell) => (cell === null ? "—" : typeof cell === "number" ? String(Number(cell.toPrecision(4))).replace("-", "−") : cell);
  const fill = (details) => {
    const holder = details.querySelector("script") ?? details.closest("figure").querySelector(".plot script");
    const { table } = details.filled ? {} : JSON.parse(holder.textContent);
    if (!table) return;
    details.filled = true;
    const [element, head] = [make("table", "", { class: "sortable" }), make("tr")];
    table.head.forEach((name) => head.append(make("th", "", { scope: "col" })) ?? head.lastChild.append(make("button", name, { type: "button" })));
    if (table.runs.length) head.append(make("th", "runs", { scope: "col" }));
    element.append(make("thead"), make("tbody"));
    element.tHead.append(head);
    table.rows.forEach((cells, at) => {
      const row = make("tr");
      cells.forEach((cell, i) => row.append(make(i ? "td" : "th", shown(cell), { "data-sort": cell ?? "nan", ...(i ? {} : { scope: "row" }) })));
      if (table.runs.length) row.append(make("td"));
      table.runs[at]?.forEach(([said, anchor], i) => row.lastChild.append(i ? ", " : "", make("a", said, { href: "#" + anchor })));
      element.tBodies[0].append(row);
    });
    const copy = make("button", "Copy as text", { type: "button", class: "copy" });
    const lines = [table.head, ...table.rows].map((row) => row.map((cell) => cell ?? "").join("\t")).join("\n");
    copy.addEventListener("click", () => copied(copy, lines, element));
    const scroll = make("div", "", { class: "scroll", tabindex: "0" });
    scroll.append(element);
    details.append(copy, scroll);
    sortable(element);
  };
  const copied = async (button, lines, table) => {
    try {
      await navigator.clipboard.writeText(lines);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(table); // where pages from a disk may not write the clipboard
      button.textContent = "Selected: press Ctrl+C";
    }
  };
  document.querySelectorAll("details.data").forEach((d) => d.addEventListener("toggle", () => d.open && fill(d)));

  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.sort ?? cell.textContent.trim();
    const number = text === "nan" ? NaN : Number(text);
    return text === "nan" || !Number.isNaN(number) ? number : text;
  };
  const order = (a, b) => {
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  const sortable = (table) => table.querySelectorAll("thead button").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th"), column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("thead th").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    for (const body of table.tBodies) {
      [...body.rows].map((row) => [value(row, column), row])
        .sort(([a], [b]) => (Number.isNaN(a) || Number.isNaN(b) || !down ? order(a, b) : order(b, a)))
        .forEach(([, row]) => body.append(row));
    }
  }));
  document.querySelectorAll("table.sortable").forEach(sortable);

  // ---- links into folded parts
  const open = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let d = target.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
    target.querySelector(":scope > details.how")?.setAttribute("open", "");
    target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
