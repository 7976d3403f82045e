// @ts-check
/** The causal card of a latent: what pushing it does, at a budget that is the same for all latents. */
(() => {
  const { make, number, part, percent } = unbraid;

  /** Draw the card; null for a latent that was not pushed. */
  unbraid.card = (/** @type {"a" | "b"} */ side, /** @type {any} */ found) => {
    const { card } = found;
    const [budget, random] = unbraid.run(side).cards ?? [];
    if (!card) return null;
    const tokens = !!unbraid.store.rows.texts;
    const about = card.reached
      ? `Its atom is added at every ${tokens ? "token" : "row"} until what is expected downstream has changed by ` +
        `${number(budget)} nats.`
      : `Its atom, added at every ${tokens ? "token" : "row"}, changes what is expected downstream by ` +
        `${number(card.cost)} nats and no more; the budget is ${number(budget)}.`;
    /** @type {[string, string, string?][]} */
    const shown = [
      ["effect of its own high value", `${number(card.own_effect)} nats`, "KL, when the 95th percentile of its codes is added"],
      ["length of the push", number(card.length), `in median norms of the activations; random directions: ${number(random)}`],
      ["in its own high values", `${number(card.dose)} ×`],
      [
        "selectivity",
        percent(card.selectivity),
        `share of the change that is in ${tokens ? "the ten most changed next tokens" : "the most changed readout"}`,
      ],
      ["steadiness", number(card.steadiness), "1 where every place is changed alike"],
    ];
    return part(
      "What pushing it does",
      about,
      unbraid.numbers(shown),
      make(
        "div",
        { class: "two" },
        moves(tokens ? "more likely" : "raises", card.raised, tokens),
        moves(tokens ? "less likely" : "lowers", card.lowered, tokens),
      ),
      interactions(side, card.with),
    );
  };

  /** What a push changes, from one mean to another. */
  const moves = (
    /** @type {string} */ title,
    /** @type {[string, number, number][]} */ rows,
    /** @type {boolean} */ shares,
  ) => {
    if (!rows.length) return null;
    const most = Math.max(1e-12, ...rows.map(([, from, to]) => Math.abs(to - from)));
    const value = shares ? percent : number;
    return make(
      "table",
      { class: "moves" },
      make("caption", {}, title),
      make(
        "tbody",
        {},
        ...rows.map(([text, from, to]) =>
          make(
            "tr",
            {},
            make("td", {}, make("bdi", { class: shares ? "token" : "" }, unbraid.shown(text))),
            make(
              "td",
              { class: "bar" },
              make("span", {
                class: to < from ? "down" : "up",
                "style.--a": (Math.abs(to - from) / most).toFixed(3),
              }),
            ),
            make("td", { class: "figure wider" }, `${value(from)} → ${value(to)}`),
          ),
        ),
      ),
    );
  };

  /** The neighbours that were pushed with it, those first with which it does more than both apart. */
  const interactions = (/** @type {string} */ side, /** @type {[number, number | null][]} */ pairs) =>
    pairs.length
      ? make(
          "table",
          {},
          make(
            "caption",
            { title: "|both - one - other| / (|one| + |other|): 0 where two pushes add up" },
            "pushed together with its neighbours: change beyond the sum of both",
          ),
          make(
            "tbody",
            {},
            ...pairs.map(([latent, by]) =>
              make("tr", {}, make("td", {}, unbraid.link(side, latent)), make("td", { class: "figure" }, number(by))),
            ),
          ),
        )
      : null;
})();
