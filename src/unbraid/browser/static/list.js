// @ts-check
/**
 * The list of latents: sorted, filtered and searched as columns of numbers; only the rows in sight are in the page, so
 * that tens of thousands scroll without a stutter.
 */
unbraid.List = class {
  /** The number of rows that paper gets. */
  printed = 100;

  constructor() {
    const by = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
    this.grid = by("grid");
    this.rows = by("rows");
    this.heads = by("columns");
    this.query = by("query");
    this.only = by("only");
    this.count = by("count");
    /** @type {number[]} */ this.order = [];
    this.chosen = 0;
    /** @type {"a" | "b" | ""} */ this.side = "";
    this.sort = { name: "fires", down: true };
    this.grid.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()));
    this.grid.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.key(event));
    this.query.addEventListener("input", () => this.arrange());
    this.only.addEventListener("change", () => this.arrange());
    document.getElementById("filters")?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.grid.focus();
    });
    new ResizeObserver(() => this.draw()).observe(this.grid);
  }

  /** Show a dictionary. @param {"a" | "b"} side */
  show(side) {
    if (this.side === side) return;
    this.side = side;
    this.data = unbraid.store.lists[side];
    this.names = this.data.fires.map((/** @type {number} */ _, /** @type {number} */ i) => unbraid.label(side, i));
    this.searched = this.names.map((/** @type {string} */ name, /** @type {number} */ i) => this.words(name, i));
    this.fields = this.columns().filter((field) => field.there);
    if (!this.fields.some((field) => field.name === this.sort.name)) this.sort = { name: "fires", down: true };
    this.choices();
    this.arrange();
  }

  /** All text by which a latent is found, a line each. */
  words(/** @type {string} */ name, /** @type {number} */ latent) {
    const factors = unbraid.store.index.factors;
    const of = this.data.factor?.[latent] ?? -1;
    const absorbs = (this.data.absorbs?.[latent] ?? []).map(
      (/** @type {[number, number]} */ [parent]) => "absorbs " + factors[parent].name,
    );
    const parts = [
      name,
      of >= 0 ? factors[of].name : "",
      ...absorbs,
      ...this.data.anchors[latent],
      ...(this.data.next?.[latent] ?? []),
    ];
    return `\n${parts.map((part) => part.trim()).join("\n")}\n`.toLowerCase();
  }

  /** The columns: title, what is sorted by, and what is shown. */
  columns() {
    const { fires, rows, highest, anchors, effect, f1, absorbs, factor, next, twin, similarity } = this.data;
    const of = (/** @type {any} */ column) => (/** @type {number} */ i) => column[i] ?? -Infinity;
    const lost = (/** @type {number} */ i) =>
      (absorbs?.[i] ?? [])
        .map(
          (/** @type {[number, number]} */ [parent, share]) =>
            `${unbraid.store.index.factors[parent].name} ${unbraid.percent(share)}`,
        )
        .join(", ");
    return [
      { name: "latent", title: "#", there: true, key: (/** @type {number} */ i) => -i, text: String },
      {
        name: "label",
        title: factor ? "stands for" : "strongest on",
        there: !!factor || anchors.some((/** @type {string[]} */ tokens) => tokens.length > 0),
        wide: true,
        key: null,
        text: (/** @type {number} */ i) => this.names[i],
      },
      {
        name: "fires",
        title: "rate",
        there: true,
        about: "share of the held-out rows in which it fires",
        key: of(fires),
        text: (/** @type {number} */ i) => unbraid.percent(fires[i] / rows),
      },
      {
        name: "highest",
        title: "max",
        there: true,
        small: false,
        about: "its largest value",
        key: (/** @type {number} */ i) => Math.abs(highest[i]),
        text: (/** @type {number} */ i) => unbraid.number(highest[i]),
      },
      {
        name: "effect",
        title: "effect",
        there: !!effect,
        small: false,
        about: "KL in nats by which its own high value, added at every token, changes what is expected downstream",
        key: of(effect),
        text: (/** @type {number} */ i) => (effect[i] === null ? "" : unbraid.number(effect[i])),
      },
      {
        name: "f1",
        title: "F1",
        there: !!f1,
        about: "how well it detects its factor: harmonic mean of precision and recall",
        key: of(f1),
        text: (/** @type {number} */ i) => unbraid.number(f1[i]),
      },
      {
        name: "absorbs",
        title: "absorbs",
        there: Object.keys(absorbs ?? {}).length > 0,
        small: false,
        about: "parents that it speaks for where their own latents are silent",
        key: (/** @type {number} */ i) =>
          Math.max(-1, ...(absorbs?.[i] ?? []).map((/** @type {[number, number]} */ [, share]) => share)),
        text: lost,
      },
      {
        name: "next",
        title: "next tokens",
        there: !!next,
        small: false,
        key: null,
        text: (/** @type {number} */ i) =>
          next[i].map((/** @type {string} */ token) => unbraid.shown(token).trim()).join(" · "),
      },
      {
        name: "similarity",
        title: "twin",
        there: !!twin,
        about: "cosine with its twin in the other dictionary",
        key: of(similarity),
        text: (/** @type {number} */ i) => (twin[i] < 0 ? "none" : `${unbraid.number(similarity[i])}`),
      },
    ];
  }

  /** The filters that make sense here. */
  choices() {
    const { factor, absorbs, twin, effect } = this.data;
    const some = [
      ["all", "all"],
      ["alive", "those that fire"],
      ["dead", "those that never fire here"],
    ];
    if (factor) some.push(["represents", "those of one factor"], ["mixed", "those of none"]);
    if (Object.keys(absorbs ?? {}).length) some.push(["absorbs", "those that absorb a parent"]);
    if (effect?.includes(null)) some.push(["carded", "those that were pushed"]);
    if (twin) some.push(["alone", "those whose twin is unlike (below 0.7)"], ["shared", "those with a like twin"]);
    const before = this.only.value;
    this.only.replaceChildren(...some.map(([value, text]) => unbraid.make("option", { value }, text)));
    this.only.value = some.some(([value]) => value === before) ? before : "all";
  }

  /** Whether a latent passes the filter. */
  passes(/** @type {number} */ i) {
    const { fires, represents, absorbs, effect, twin, similarity } = this.data;
    const like = () => twin[i] >= 0 && similarity[i] >= 0.7;
    switch (this.only.value) {
      case "alive":
        return fires[i] > 0;
      case "dead":
        return fires[i] === 0;
      case "represents":
        return !!represents[i];
      case "mixed":
        return fires[i] > 0 && !represents[i];
      case "absorbs":
        return !!absorbs[i];
      case "carded":
        return effect[i] !== null;
      case "alone":
        return !like();
      case "shared":
        return like();
      default:
        return true;
    }
  }

  /** Filter and sort anew; what is searched for whole comes first. Commas separate what must all be there. */
  arrange() {
    const asked = this.query.value
      .toLowerCase()
      .split(",")
      .map((/** @type {string} */ part) => part.trim())
      .filter(Boolean);
    const number = asked.length === 1 && /^#?\d+$/.test(asked[0]) ? Number(asked[0].replace("#", "")) : -1;
    const found = [];
    for (let i = 0; i < this.searched.length; i++) {
      const hit = i === number || asked.every((/** @type {string} */ part) => this.searched[i].includes(part));
      if (hit && this.passes(i)) found.push(i);
    }
    const field = this.fields?.find((one) => one.name === this.sort.name);
    const sign = this.sort.down ? -1 : 1;
    if (field?.key) {
      const keys = new Float64Array(this.searched.length);
      for (const i of found) keys[i] = field.key(i);
      found.sort((x, y) => sign * (keys[x] - keys[y]) || x - y);
    } else if (field) {
      /** @type {string[]} */ const keys = [];
      for (const i of found) keys[i] = field.text(i).toLowerCase();
      // A collator takes ten times as long, and orders words of many languages no better.
      found.sort((x, y) => (keys[x] < keys[y] ? sign : keys[x] > keys[y] ? -sign : x - y));
    }
    const exact = (/** @type {number} */ i) =>
      i === number || asked.some((/** @type {string} */ part) => this.searched[i].includes(`\n${part}\n`));
    this.order = asked.length ? [...found.filter(exact), ...found.filter((i) => !exact(i))] : found;
    this.chosen = 0;
    this.grid.scrollTop = 0;
    this.count.textContent = `${found.length.toLocaleString("en")} of ${this.searched.length.toLocaleString("en")}`;
    this.head();
    this.draw();
  }

  /** The titles, by which one sorts; the one that has the focus keeps it. */
  head() {
    const focused = [...this.heads.children].findIndex((one) => one === document.activeElement);
    this.heads.replaceChildren(
      ...(this.fields ?? []).map((field) => {
        const sorted = field.name === this.sort.name;
        return unbraid.make(
          "button",
          {
            role: "columnheader",
            type: "button",
            class: this.kind(field),
            title: field.about,
            "aria-sort": sorted ? (this.sort.down ? "descending" : "ascending") : "none",
            onclick: () => {
              this.sort = { name: field.name, down: sorted ? !this.sort.down : true };
              this.arrange();
            },
          },
          field.title + (sorted ? (this.sort.down ? " ↓" : " ↑") : ""),
        );
      }),
    );
    if (focused >= 0) /** @type {HTMLElement} */ (this.heads.children[focused]).focus();
  }

  kind(/** @type {any} */ field) {
    return `cell ${field.name}` + (field.small === false ? " roomy" : "");
  }

  /** The height of a row, as the style sheet has it. */
  get height() {
    return parseFloat(getComputedStyle(this.grid).getPropertyValue("--row")) || 32;
  }

  /** Put the rows in sight into the page. */
  draw() {
    if (!this.fields || !this.grid.clientHeight) return;
    const height = this.height;
    const first = Math.max(0, Math.floor(this.grid.scrollTop / height) - 6);
    this.put(first, first + Math.ceil(this.grid.clientHeight / height) + 12, this.order.length);
  }

  /** Put the first rows into the page, for paper, on which one cannot scroll. */
  print() {
    if (this.fields) this.put(0, this.printed, Math.min(this.printed, this.order.length));
  }

  /** Put rows into the page, and leave room for so many. */
  put(/** @type {number} */ first, /** @type {number} */ beyond, /** @type {number} */ room) {
    const height = this.height;
    const last = Math.min(this.order.length, beyond);
    this.rows.style.height = `${room * height}px`;
    const made = [];
    for (let place = first; place < last; place++) made.push(this.row(place, height));
    this.rows.replaceChildren(...made);
    if (!this.order.length) this.rows.replaceChildren(unbraid.make("p", { class: "none" }, "no latent is like this"));
  }

  row(/** @type {number} */ place, /** @type {number} */ height) {
    const latent = this.order[place];
    return unbraid.make(
      "a",
      {
        role: "row",
        href: unbraid.address(this.side, latent),
        tabindex: -1,
        class: place === this.chosen ? "chosen" : "",
        "data-latent": latent,
        "style.transform": `translateY(${place * height}px)`,
      },
      ...(this.fields ?? []).map((field) =>
        unbraid.make(
          "span",
          {
            role: "gridcell",
            class: this.kind(field),
            title: field.wide || field.small === false ? field.text(latent) : null,
          },
          unbraid.make("bdi", {}, field.text(latent)),
        ),
      ),
    );
  }

  key(/** @type {KeyboardEvent} */ event) {
    const page = Math.max(1, Math.floor(this.grid.clientHeight / this.height) - 2);
    const steps = /** @type {Record<string, number>} */ ({
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -this.order.length,
      End: this.order.length,
    });
    if (event.key === "Enter" && this.order.length && event.target === this.grid) {
      location.hash = unbraid.address(this.side, this.order[this.chosen]);
    } else if (event.key in steps) {
      this.choose(this.chosen + steps[event.key]);
    } else return;
    event.preventDefault();
  }

  choose(/** @type {number} */ place) {
    this.chosen = Math.max(0, Math.min(this.order.length - 1, place));
    const top = this.chosen * this.height;
    const room = this.grid.clientHeight - 2 * this.height;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    if (top > this.grid.scrollTop + room) this.grid.scrollTop = top - room;
    this.draw();
  }

  /** The latent so many places further in the list. */
  beside(/** @type {number} */ latent, /** @type {number} */ step) {
    const place = this.order.indexOf(latent);
    return place < 0 ? undefined : this.order[place + step];
  }
};
