// @ts-check
/** The contexts of a latent: stretches of text, or rows of a world, each shaded by its values there. */
(() => {
  const { make, number, part } = unbraid;
  const BANDS = ["strongest places", "weakest quarter", "third quarter", "second quarter", "strongest quarter"];

  /** Contexts by band, the strongest first. */
  unbraid.contexts = (/** @type {"a" | "b"} */ side, /** @type {number} */ latent, /** @type {any} */ found) => {
    if (!found.contexts.length) return part("Contexts", "", make("p", {}, "It fires in none of the held-out rows."));
    const most = Math.max(Math.abs(found.bounds[0]), Math.abs(found.bounds[1]));
    const bands = [...new Set(found.contexts.map((/** @type {any} */ c) => c[0]))].sort(
      (x, y) => (x === 0 ? -9 : -Number(x)) - (y === 0 ? -9 : -Number(y)),
    );
    const draw = unbraid.store.rows.texts ? textContext : rowContext(side, latent);
    return part(
      "Contexts",
      "",
      ...bands.map((band) =>
        make(
          "details",
          { open: true },
          make("summary", {}, BANDS[Number(band)] + (Number(band) ? " of its firings, drawn at random" : "")),
          make(
            "ol",
            { class: "contexts" },
            ...found.contexts
              .filter((/** @type {any} */ c) => c[0] === band)
              .map((/** @type {any} */ c) => draw(c, most)),
          ),
        ),
      ),
    );
  };

  /** A stretch of text, each token shaded by the value there. */
  const textContext = (/** @type {any} */ [, row, start, stop, fired, values], /** @type {number} */ most) => {
    const at = new Map(
      fired.map((/** @type {number} */ offset, /** @type {number} */ i) => [start + offset, values[i]]),
    );
    const line = make("p", { dir: "auto" });
    for (let i = start; i < stop; i++) {
      if (unbraid.gaps.has(i))
        line.append(make("span", { class: "gap", title: "tokens that are no rows: special ones, or outliers" }, "⋯"));
      const text = unbraid.store.rows.texts[i];
      const space = /^ +/.exec(text)?.[0] ?? "";
      line.append(i > start ? space : "", token(text.slice(space.length), at.get(i), most, i === row));
    }
    return make("li", {}, make("span", { class: "value" }, number(at.get(row))), line);
  };

  const token = (
    /** @type {string} */ text,
    /** @type {number | undefined} */ value,
    /** @type {number} */ most,
    /** @type {boolean} */ here,
  ) => {
    const said = unbraid.shown(text) || "·";
    if (value === undefined) return make("span", { class: text ? "" : "empty" }, said);
    return make(
      "span",
      {
        class: `on${value < 0 ? " negative" : ""}${here ? " here" : ""}`,
        title: number(value),
        "style.--a": (Math.abs(value) / most).toFixed(3),
      },
      said,
    );
  };

  /** A row of a world: its active factors, the strongest first. */
  const rowContext =
    (/** @type {"a" | "b"} */ side, /** @type {number} */ latent) =>
    (/** @type {any} */ [, row, , , , values], /** @type {number} */ most) => {
      const own = unbraid.store.lists[side].factor?.[latent];
      const [factors, magnitudes] = unbraid.store.rows.rows[row] ?? [[], []];
      const order = factors
        .map((/** @type {number} */ _, /** @type {number} */ i) => i)
        .sort((/** @type {number} */ x, /** @type {number} */ y) => magnitudes[y] - magnitudes[x]);
      const chips = order.map((/** @type {number} */ i) =>
        make(
          "span",
          {
            class: factors[i] === own ? "chip own" : "chip",
            "style.--a": Math.min(1, magnitudes[i] / 3).toFixed(3),
            title: `magnitude ${number(magnitudes[i])}`,
          },
          unbraid.store.index.factors[factors[i]].name,
          " ",
          make("small", {}, number(magnitudes[i])),
        ),
      );
      return make(
        "li",
        {},
        make("span", { class: "value on", "style.--a": (Math.abs(values[0]) / most).toFixed(3) }, number(values[0])),
        make(
          "p",
          { class: "chips" },
          ...(chips.length ? chips : [unbraid.store.index.factors.length ? "no factor is active" : `row ${row}`]),
        ),
      );
    };
})();
