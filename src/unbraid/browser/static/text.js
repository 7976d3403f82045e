// @ts-check
/** Text and numbers as they are shown, and elements made of them. All text is set as text, never as markup. */

/** Signs for characters that cannot be seen or that would rearrange the page: controls, and marks of direction. */
unbraid.shown = (/** @type {string} */ text) =>
  text
    .replace(/\r\n|\n|\r/g, "↵")
    .replace(/\t/g, "⇥")
    .replace(
      /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
      (sign) => "‹" + (sign.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0") + "›",
    );

/**
 * An element with attributes and children; text among the children is set as text.
 * @param {string} tag `svg:` before the name of a part of a drawing
 * @param {Record<string, any>} [attributes] `class`, `style.--x`, `on…` and others
 * @param {...(Node | string | null | undefined)} children
 * @returns {any}
 */
unbraid.make = (tag, attributes = {}, ...children) => {
  const made = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.startsWith("style.")) made.style.setProperty(name.slice(6), String(value));
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};

/** A number to three digits; a dash for one that there is not. */
unbraid.number = (/** @type {number | null | undefined} */ value) =>
  value === null || value === undefined
    ? "–"
    : Math.abs(value) >= 1000
      ? value.toFixed(0)
      : String(Number(value.toPrecision(3)));

/** A share in percent, rare ones with more digits. */
unbraid.percent = (/** @type {number | null | undefined} */ value) =>
  value === null || value === undefined ? "–" : value === 0 ? "0" : Number((100 * value).toPrecision(2)) + " %";

/** The address of a latent's page, which one can send. */
unbraid.address = (/** @type {string} */ side, /** @type {number} */ latent) =>
  `#latent=${latent}` + (unbraid.store.index.runs.length > 1 ? `&in=${side}` : "");

/** The name of a factor, with those above it. */
unbraid.factorName = (/** @type {number} */ factor) => {
  const factors = unbraid.store.index.factors;
  const above = factors[factor].parent;
  return factors[factor].name + (above >= 0 ? ` (below ${factors[above].name})` : "");
};

/** What a latent is called in a list: the factor that it represents, and the tokens on which it is strongest. */
unbraid.label = (/** @type {string} */ side, /** @type {number} */ latent) => {
  const columns = unbraid.store.lists[side];
  const factor = columns.factor?.[latent] ?? -1;
  const tokens = columns.anchors[latent].map(unbraid.shown).join(" · ");
  if (!columns.fires[latent]) return "never fires here";
  if (factor < 0 || !columns.represents[latent]) return tokens || (factor >= 0 ? "mixed" : "");
  return unbraid.store.index.factors[factor].name + (tokens ? ` — ${tokens}` : "");
};

/** Links to some latents by number, the first few shown; their names are in the titles. */
unbraid.links = (/** @type {string} */ side, /** @type {number[]} */ some) =>
  unbraid.make(
    "span",
    { class: "links" },
    ...some
      .slice(0, 12)
      .map((latent) =>
        unbraid.make("a", { href: unbraid.address(side, latent), title: unbraid.label(side, latent) }, String(latent)),
      ),
    some.length > 12 ? `and ${some.length - 12} more` : null,
  );

/** A link to a latent, with its name. */
unbraid.link = (/** @type {string} */ side, /** @type {number} */ latent) =>
  unbraid.make(
    "a",
    { href: unbraid.address(side, latent) },
    String(latent),
    " ",
    unbraid.make("bdi", { class: "label" }, unbraid.label(side, latent)),
  );

/** A part of the page with a title. */
unbraid.part = (/** @type {string} */ title, /** @type {string} */ about, /** @type {(Node | null)[]} */ ...children) =>
  unbraid.make(
    "section",
    {},
    unbraid.make("h3", { title: about }, title),
    about ? unbraid.make("p", { class: "note" }, about) : null,
    ...children,
  );

/** A row of named numbers, each with an explanation in its title. */
unbraid.numbers = (/** @type {[string, string, string?][]} */ rows) =>
  unbraid.make(
    "dl",
    {},
    ...rows.map(([name, value, about]) =>
      unbraid.make(
        "div",
        { title: about },
        unbraid.make("dt", {}, name),
        unbraid.make("dd", {}, unbraid.make("bdi", {}, value)),
      ),
    ),
  );
