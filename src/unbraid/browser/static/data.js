// @ts-check
/**
 * Data of the pages. A page opened from a disk may not read files, so each is a script that calls one of the functions
 * of `unbraid.data` with what it holds; `load` adds the script and waits for that.
 *
 * @typedef {"a" | "b"} Side
 * @typedef {{name: string, latents: number, shard: number, source: string, method: string,
 *   scores: [string, number][], cards?: [number, number], control: {name: string, value: number, chance?: number, about: string}[]}} Run
 * @typedef {{name: string, parent: number}} Factor
 * @typedef {{fires: number[], highest: number[], anchors: string[][], rows: number, factor?: (number | null)[], f1?: number[],
 *   represents?: number[], absorbs?: Record<string, [number, number][]>, next?: string[][], effect?: (number | null)[],
 *   twin?: number[], similarity?: number[]}} Columns
 * @typedef {{own_effect: number, length: number, dose: number, cost: number, selectivity: number | null,
 *   steadiness: number | null, reached: boolean, raised: [string, number, number][], lowered: [string, number, number][],
 *   with: [number, number | null][]}} Card at a budget: what a push changes, each from a mean to another
 * @typedef {[number, number, number, number, number[], number[]]} Context band, row, start, stop, firings, values
 * @typedef {{bounds: [number, number], histogram: number[], near: [number, number][], together: [number, number][],
 *   contexts: Context[], promoted?: [string, number][], suppressed?: [string, number][],
 *   match?: [number | null, number | null, number | null], card?: Card}} Latent
 * @typedef {{texts?: string[], gaps?: number[], rows?: Record<string, [number[], number[]]>}} Rows
 */
var unbraid = /** @type {any} */ ({});

unbraid.store = {
  /** @type {{runs: Run[], factors: Factor[]} | null} */ index: null,
  /** @type {Partial<Record<Side, Columns>>} */ lists: {},
  /** @type {Record<string, Latent[]>} */ shards: {},
  /** @type {Rows | null} */ rows: null,
};

/** What the scripts of data call. */
unbraid.data = {
  index: (/** @type {any} */ found) => (unbraid.store.index = found),
  list: (/** @type {Side} */ side, /** @type {Columns} */ found) => (unbraid.store.lists[side] = found),
  shard: (/** @type {Side} */ side, /** @type {number} */ number, /** @type {Latent[]} */ found) =>
    (unbraid.store.shards[side + "/" + number] = found),
  rows: (/** @type {Rows} */ found) => {
    unbraid.store.rows = found;
    unbraid.gaps = new Set(found.gaps);
  },
};

/** @type {Record<string, Promise<void>>} */
unbraid.asked = {};

/**
 * Load one script of data, once.
 * @param {string} path below data/
 * @returns {Promise<void>}
 */
unbraid.load = (path) =>
  (unbraid.asked[path] ??= new Promise((/** @type {(nothing?: undefined) => void} */ done, fail) => {
    const script = document.createElement("script");
    script.src = "data/" + path;
    script.onload = () => done();
    script.onerror = () => {
      delete unbraid.asked[path];
      fail(new Error(`data/${path} is missing: copy the whole folder, or write it again with unbraid browse`));
    };
    document.head.append(script);
  }));

/**
 * @param {Side} side
 * @returns {Run}
 */
unbraid.run = (side) => unbraid.store.index.runs[side === "a" ? 0 : 1];

/**
 * The details of a latent, its shard loaded if need be.
 * @param {Side} side
 * @param {number} latent
 * @returns {Promise<Latent>}
 */
unbraid.latent = async (side, latent) => {
  const size = unbraid.run(side).shard;
  const name = side + "/" + Math.floor(latent / size);
  await unbraid.load(name + ".js");
  return unbraid.store.shards[name][latent % size];
};

/** The latents that represent a factor, and those that absorb it. */
unbraid.ofFactor = (/** @type {Side} */ side, /** @type {number} */ factor) => {
  const columns = /** @type {Columns} */ (unbraid.store.lists[side]);
  /** @type {number[]} */
  const represents = [];
  (columns.factor ?? []).forEach((of, latent) => {
    if (of === factor && columns.represents?.[latent]) represents.push(latent);
  });
  const absorbs = Object.entries(columns.absorbs ?? {})
    .filter(([, parents]) => parents.some(([of]) => of === factor))
    .map(([latent]) => Number(latent));
  return { represents, absorbs };
};
