// @ts-check
/** Which page is shown, by the address: the list, or `#latent=12&in=b`. */
(async () => {
  const by = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
  const [list, page, error] = [by("list"), by("latent"), by("error")];
  /** @type {any} */ let latents = null;
  /** @type {{side: "a" | "b", latent: number} | null} */ let open = null;

  const say = (/** @type {unknown} */ fault) => {
    page.hidden = true; // it may show a latent that was asked for before
    error.textContent = fault instanceof Error ? fault.message : String(fault);
    error.hidden = false;
  };

  /** The names of the dictionaries, to change between two. */
  const head = (/** @type {"a" | "b"} */ side) => {
    const runs = unbraid.store.index.runs;
    const name = (/** @type {any} */ run, /** @type {number} */ i) => {
      const own = "ab"[i];
      const scores = run.scores
        .map((/** @type {[string, number]} */ [title, value]) => `${title} ${unbraid.number(value)}`)
        .join(" · ");
      return unbraid.make(
        "a",
        { href: `#in=${own}`, "aria-current": own === side ? "true" : null, title: run.name },
        unbraid.make("b", {}, run.method),
        ` ${run.latents.toLocaleString("en")} latents`,
        scores ? ` · ${scores}` : "",
      );
    };
    by("sides").replaceChildren(...runs.map(name));
    by("about").textContent = runs[side === "a" ? 0 : 1].source;
  };

  const route = async () => {
    error.hidden = true;
    const asked = new URLSearchParams(location.hash.slice(1));
    const side = asked.get("in") === "b" && unbraid.store.index.runs.length > 1 ? "b" : "a";
    head(side);
    latents.show(side);
    open = asked.has("latent") ? { side, latent: Number(asked.get("latent")) } : null;
    list.hidden = !!open;
    page.hidden = !open;
    if (asked.has("find") && latents.query.value !== asked.get("find")) {
      latents.query.value = asked.get("find");
      latents.arrange();
    }
    if (!open) {
      document.title = "Latents";
      latents.draw();
      return;
    }
    const { latent } = open;
    const panels = await unbraid.drawLatent(side, latent);
    if (open?.latent !== latent || open?.side !== side) return; // another was asked for meanwhile
    page.replaceChildren(...panels);
    page.classList.toggle("twins", panels.length > 1);
    document.title = `Latent ${latent} ${unbraid.label(side, latent)}`;
    scrollTo(0, 0);
  };

  const go = () => route().catch(say);

  const key = (/** @type {KeyboardEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (event.key === "Escape") {
      if (open) location.hash = `#in=${open.side}`;
      else by("grid").focus();
    } else if (typing) {
      return;
    } else if (event.key === "/") {
      if (open) location.hash = `#in=${open.side}`;
      setTimeout(() => latents.query.focus());
    } else if (open && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      const next = latents.beside(open.latent, event.key === "ArrowLeft" ? -1 : 1);
      if (next !== undefined) location.hash = unbraid.address(open.side, next);
    } else if (open && event.key === "t" && (latents.data.twin?.[open.latent] ?? -1) >= 0) {
      location.hash = unbraid.address(open.side === "a" ? "b" : "a", latents.data.twin[open.latent]);
    } else return;
    event.preventDefault();
  };

  /** In a frame of a notebook, a link to a place of this page would lead to one of the notebook's. */
  const follow = (/** @type {MouseEvent} */ event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href^='#']") : null;
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    location.hash = link.getAttribute("href") ?? "";
    event.preventDefault();
  };

  try {
    await unbraid.load("index.js");
    await Promise.all(
      unbraid.store.index.runs.map((/** @type {any} */ _, /** @type {number} */ i) =>
        unbraid.load("ab"[i] + "/list.js"),
      ),
    );
    latents = new unbraid.List();
    addEventListener("hashchange", go);
    document.addEventListener("keydown", key);
    document.addEventListener("click", follow);
    addEventListener("beforeprint", () => latents.print());
    addEventListener("afterprint", () => latents.draw());
    await go();
    requestAnimationFrame(() => setTimeout(() => performance.mark("first-row"))); // for benchmarks
  } catch (fault) {
    say(fault);
  }
})();
