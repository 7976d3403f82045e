// @ts-check
/** The page of a latent. */
(() => {
  const { make, number, part, percent } = unbraid;

  /** Draw a latent and, where there is one, its twin next to it. */
  unbraid.drawLatent = async (/** @type {"a" | "b"} */ side, /** @type {number} */ latent) => {
    const columns = unbraid.store.lists[side];
    if (!(latent in columns.fires))
      throw new Error(
        `there is no latent ${latent}: ${unbraid.run(side).name} has ${columns.fires.length}, numbered from 0`,
      );
    await unbraid.load("rows.js");
    const found = await unbraid.latent(side, latent);
    const twin = columns.twin?.[latent] ?? -1;
    const other = side === "a" ? "b" : "a";
    if (!columns.twin) return [panel(side, latent, found, null)];
    if (twin < 0)
      return [
        panel(side, latent, found, make("p", { class: "note" }, "It has no twin: the other dictionary is narrower.")),
      ];
    const theirs = await unbraid.latent(other, twin);
    const differs = difference(side, latent, found, other, twin, theirs);
    return [panel(side, latent, found, differs), panel(other, twin, theirs, null)];
  };

  /** All that is known of one latent. */
  const panel = (
    /** @type {"a" | "b"} */ side,
    /** @type {number} */ latent,
    /** @type {any} */ found,
    /** @type {Node | null} */ differs,
  ) =>
    make(
      "div",
      { class: "panel", "data-side": side, "data-latent": latent },
      make(
        "h2",
        {},
        make("a", { href: unbraid.address(side, latent) }, `Latent ${latent}`),
        " ",
        make("bdi", { class: "label" }, unbraid.label(side, latent)),
      ),
      unbraid.store.index.runs.length > 1 ? make("p", { class: "note" }, unbraid.run(side).name) : null,
      facts(side, latent, found),
      differs,
      truth(side, latent, found),
      unbraid.contexts(side, latent, found),
      make("div", { class: "pair" }, histogram(found), tokens(found)),
      unbraid.card(side, found) ?? control(side),
      neighbours(side, found),
    );

  const facts = (/** @type {string} */ side, /** @type {number} */ latent, /** @type {any} */ found) => {
    const { fires, rows } = unbraid.store.lists[side];
    /** @type {[string, string, string?][]} */
    const shown = [["fires in", percent(fires[latent] / rows), `${fires[latent]} of ${rows} held-out rows`]];
    if (fires[latent]) shown.push(["values", `${number(found.bounds[0])} to ${number(found.bounds[1])}`]);
    return unbraid.numbers(shown);
  };

  /** What differs between a latent and its twin. */
  const difference = (
    /** @type {string} */ side,
    /** @type {number} */ latent,
    /** @type {any} */ found,
    /** @type {string} */ other,
    /** @type {number} */ twin,
    /** @type {any} */ theirs,
  ) => {
    const [ours, its] = [unbraid.store.lists[side], unbraid.store.lists[other]];
    const places = (/** @type {any} */ one) => one.contexts.filter((/** @type {any} */ c) => c[0] === 0);
    const near = places(found).filter((/** @type {any} */ c) =>
      places(theirs).some((/** @type {any} */ d) => d[1] >= c[2] && d[1] < c[3]),
    ).length;
    /** @type {[string, string, string?][]} */
    const shown = [
      ["cosine of the atoms", number(ours.similarity[latent])],
      ["fires in rows", `${ours.fires[latent]} and ${its.fires[twin]}`],
      [
        "strongest places shared",
        `${near} of ${places(found).length}`,
        "strongest places that lie in the context of one of the twin's",
      ],
    ];
    if (ours.factor) shown.push(["F1 of their factors", `${number(ours.f1[latent])} and ${number(its.f1[twin])}`]);
    return part(
      "Its twin",
      "",
      make("p", {}, unbraid.link(other, twin), " in ", unbraid.run(other).name),
      unbraid.numbers(shown),
    );
  };

  /** The factor that it stands for, and what it absorbs or shares. */
  const truth = (/** @type {string} */ side, /** @type {number} */ latent, /** @type {any} */ found) => {
    const columns = unbraid.store.lists[side];
    const factor = columns.factor?.[latent] ?? -1;
    if (!columns.factor || !columns.fires[latent]) return null;
    if (factor < 0) return part("Factor", "", make("p", {}, "It fires with no factor that is known."));
    const [precision, recall, cosine] = found.match;
    const { represents, absorbs } = unbraid.ofFactor(side, factor);
    const others = represents.filter((/** @type {number} */ one) => one !== latent);
    const absorbers = absorbs.filter((/** @type {number} */ one) => one !== latent);
    const links = (/** @type {number[]} */ some) => unbraid.links(side, some);
    const lines = [];
    if (columns.represents[latent] && others.length)
      lines.push(make("p", {}, "The factor is split; these latents represent it too: ", links(others)));
    if (absorbers.length) lines.push(make("p", {}, "Absorbed in part by: ", links(absorbers)));
    for (const [parent, share] of columns.absorbs?.[latent] ?? []) {
      const above = unbraid.ofFactor(side, parent);
      const owners = above.represents.filter((/** @type {number} */ one) => !above.absorbs.includes(one));
      lines.push(
        make(
          "p",
          { class: "absorbs", "data-factor": unbraid.store.index.factors[parent].name },
          "Absorbs ",
          make("b", {}, unbraid.store.index.factors[parent].name),
          `: in ${percent(share)} of the rows in which it fires with that factor and a child of it, the factor's own latents are silent. `,
          owners.length ? "They are: " : null,
          owners.length ? links(owners) : null,
        ),
      );
    }
    const title = columns.represents[latent] ? "Represents" : "Detects best, without representing it:";
    return part(
      "Factor",
      "",
      make(
        "p",
        { class: "factor", "data-factor": unbraid.store.index.factors[factor].name },
        title,
        " ",
        make("b", {}, unbraid.factorName(factor)),
      ),
      unbraid.numbers([
        ["precision", percent(precision), "share of its firings in which the factor is active"],
        ["recall", percent(recall), "share of the factor's activations in which it fires"],
        ["F1", number(columns.f1[latent])],
        ["|cosine| with it", number(cosine), "alignment of the atom with the factor's direction or subspace"],
      ]),
      ...lines,
    );
  };

  /** What setting latents of its dictionary does, where that was measured. */
  const control = (/** @type {"a" | "b"} */ side) => {
    const scores = unbraid.run(side).control;
    if (!scores.length) return null;
    return part(
      "What setting latents does",
      "Means over latents of this dictionary that were set, not of this one alone.",
      unbraid.numbers(
        scores.map((/** @type {any} */ one) => [
          one.name.replaceAll("_", " "),
          number(one.value) + (one.chance === undefined ? "" : ` (chance ${number(one.chance)})`),
          one.about,
        ]),
      ),
    );
  };

  /** Bars from the smallest value to the largest. */
  const histogram = (/** @type {any} */ found) => {
    const counts = found.histogram,
      most = Math.max(1, ...counts);
    if (!found.contexts.length) return null;
    const bars = counts.map((/** @type {number} */ count, /** @type {number} */ i) =>
      make(
        "svg:rect",
        { x: i * 10 + 1, y: 80 - (76 * count) / most, width: 8, height: (76 * count) / most },
        make("svg:title", {}, `${count} firings`),
      ),
    );
    const picture = make(
      "svg:svg",
      {
        viewBox: `0 0 ${counts.length * 10} 82`,
        role: "img",
        class: "histogram",
        preserveAspectRatio: "none",
        "aria-label": `histogram of its values, from ${number(found.bounds[0])} to ${number(found.bounds[1])}`,
      },
      ...bars,
    );
    return part(
      "Values where it fires",
      "",
      picture,
      make(
        "p",
        { class: "ends" },
        make("span", {}, number(found.bounds[0])),
        make("span", {}, `most: ${most} in a bin`),
        make("span", {}, number(found.bounds[1])),
      ),
    );
  };

  /** Next tokens that its atom promotes and suppresses. */
  const tokens = (/** @type {any} */ found) => {
    if (!found.promoted) return null;
    const most = Math.max(1e-9, ...[...found.promoted, ...found.suppressed].map(([, by]) => Math.abs(by)));
    const table = (/** @type {string} */ title, /** @type {[string, number][]} */ rows) =>
      make(
        "table",
        {},
        make("caption", {}, title),
        make(
          "tbody",
          {},
          ...rows.map(([text, by]) =>
            make(
              "tr",
              {},
              make("td", {}, make("bdi", { class: "token" }, unbraid.shown(text))),
              make(
                "td",
                { class: "bar" },
                make("span", { class: by < 0 ? "down" : "up", "style.--a": (Math.abs(by) / most).toFixed(3) }),
              ),
              make("td", { class: "figure" }, number(by)),
            ),
          ),
        ),
      );
    return part(
      "Next tokens",
      "Its direct path to the logits, past the blocks in between; change of the logit against the mean.",
      make("div", { class: "two" }, table("promoted", found.promoted), table("suppressed", found.suppressed)),
    );
  };

  const neighbours = (/** @type {string} */ side, /** @type {any} */ found) => {
    const table = (/** @type {string} */ title, /** @type {string} */ about, /** @type {[number, number][]} */ rows) =>
      rows.length
        ? make(
            "table",
            {},
            make("caption", { title: about }, title),
            make(
              "tbody",
              {},
              ...rows.map(([latent, by]) =>
                make("tr", {}, make("td", {}, unbraid.link(side, latent)), make("td", { class: "figure" }, number(by))),
              ),
            ),
          )
        : null;
    return part(
      "Neighbours",
      "",
      make(
        "div",
        { class: "two" },
        table("nearest atoms", "cosine of the atoms", found.near),
        table("fire together", "correlation of firing (phi)", found.together),
      ),
    );
  };
})();
