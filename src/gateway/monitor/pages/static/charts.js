// Charts by BokehJS. New data goes into the chart that is there; only a chart of another make is drawn anew.

export class Charts {
  #held = new Map();
  #era = 0;

  #wanted = null;
  #working = false;

  // Draw or update these blocks, those near the top first; a newer call takes over from one that is at work.
  show(blocks) {
    this.#wanted = blocks;
    if (!this.#working) this.#work();
  }

  async #work() {
    this.#working = true;
    while (this.#wanted) {
      const blocks = this.#wanted;
      const era = this.#era;
      this.#wanted = null;
      for (const block of blocks) {
        if (this.#wanted || era !== this.#era) break;
        try {
          await this.#show(block, era);
        } catch (error) {
          console.error(`chart ${block.key}`, error);
        }
      }
    }
    this.#working = false;
  }

  drop(key) {
    const held = this.#held.get(key);
    if (!held) return;
    const document = shown(held);
    held.clear();
    forget(document);
    this.#held.delete(key);
  }

  // Colours have changed: what is at work is given up, whatever comes is drawn anew.
  forget() {
    this.#era += 1;
    for (const key of [...this.#held.keys()]) this.drop(key);
  }

  async #show(block, era) {
    const held = this.#held.get(block.key);
    const target = document.getElementById(block.target);
    if (held && target?.childElementCount && update(held, block.item)) return;
    this.drop(block.key);
    target?.replaceChildren();
    this.#held.set(block.key, await Bokeh.embed.embed_item(block.item));
    // Changed while it was drawn: the next one must not be taken into it.
    if (era !== this.#era) this.drop(block.key);
  }
}

// Take the data sources and ranges of a newer drawing into the one that is held; false: it is of another make.
function update(held, item) {
  const live = shown(held);
  if (!live) return false;
  const newer = live.constructor.from_json(item.doc);
  const [olds, news] = [named(live), named(newer)];
  const same = olds.length === news.length &&
    olds.every((model, i) => model.name === news[i].name && model.type === news[i].type);
  if (same) olds.forEach((model, i) => take(model, news[i]));
  forget(newer);
  return same;
}

function shown(held) {
  return held.roots?.[0]?.model.document;
}

// BokehJS keeps a list of all documents that were ever made.
function forget(document) {
  const place = Bokeh.documents.indexOf(document);
  if (place >= 0) Bokeh.documents.splice(place, 1);
}

function named(document) {
  const models = [...document.all_models].filter((model) => model.name);
  return models.sort((a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)));
}

function take(model, newer) {
  if ("factors" in newer.attributes) model.factors = newer.factors;
  else if ("start" in newer.attributes) model.setv({ start: newer.start, end: newer.end });
  else if ("data" in newer.attributes) model.data = newer.data;
}
