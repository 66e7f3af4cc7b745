// Blocks as elements; every text is set as text. What is focused, open or drawn already stays.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== "" && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function cell(value) {
  if (value.href !== undefined) return element("a", { href: value.href }, value.text);
  if (value.tone !== undefined) return element("span", { class: `badge ${value.tone}` }, value.text);
  return document.createTextNode(value.text);
}

const MAKERS = {
  heading: (block) => {
    const inner = block.href ? element("a", { href: block.href }, block.text) : block.text;
    return element(`h${block.level}`, {}, inner);
  },
  text: (block) => element("p", { class: block.tone }, block.text),
  notice: (block) => element("p", { class: `notice ${block.tone}` }, block.text),
  facts: (block) => {
    const facts = block.items.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, cell(value))));
    return element("dl", { class: "facts" }, ...facts);
  },
  table: (block) => {
    const caption = element("caption", {}, block.caption);
    if (!block.rows.length) return element("div", {}, element("h3", {}, block.caption), element("p", { class: "dim" }, block.empty));
    const heads = block.columns.map((head) => element("th", { scope: "col" }, head));
    const rows = block.rows.map(([name, ...cells]) =>
      element("tr", {}, element("th", { scope: "row" }, cell(name)),
        ...cells.map((value, index) => element("td", { "data-head": block.columns[index + 1] }, cell(value)))));
    return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": block.caption },
      element("table", {}, caption, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows)));
  },
  controls: (block) => controls(block),
  chart: (block) => element("figure", { class: "card", "data-key": block.key },
    element("figcaption", {}, element("h3", {}, block.title), element("p", { class: "dim" }, block.about)),
    element("div", { class: "chart", id: block.target, role: "img", "aria-label": `${block.title}: ${block.about}` })),
};

export function render(parent, blocks, charts) {
  const old = [...parent.children];
  blocks.forEach((block, index) => {
    const key = JSON.stringify(block.kind === "chart" ? [block.kind, block.key, block.target] : block);
    const held = old[index];
    if (held?.dataset.block === key) {
      if (block.kind === "chart") describe(held, block);
    } else {
      if (held?.dataset.chart) charts.drop(held.dataset.chart);
      const made = MAKERS[block.kind](block);
      made.dataset.block = key;
      if (block.kind === "chart") made.dataset.chart = block.key;
      if (held) replace(held, made);
      else parent.append(made);
    }
  });
  for (const rest of old.slice(blocks.length)) {
    if (rest.dataset.chart) charts.drop(rest.dataset.chart);
    rest.remove();
  }
  charts.show(blocks.filter((block) => block.kind === "chart"));
}

function describe(figure, block) {
  figure.querySelector("h3").textContent = block.title;
  figure.querySelector("figcaption p").textContent = block.about;
  figure.querySelector(".chart").setAttribute("aria-label", `${block.title}: ${block.about}`);
}

// A link that was focused is focused again in the new table.
function replace(held, made) {
  const focused = held.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  held.replaceWith(made);
  if (focused) [...made.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

function controls(block) {
  const fields = block.fields.map((field) => {
    const label = element("label", {}, element("span", {}, field.label));
    label.append(field.kind === "choice" ? choice(field) : search(field));
    return label;
  });
  const form = element("form", { class: "controls", role: "search" }, ...fields);
  form.addEventListener("change", () => go(form));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go(form);
  });
  return form;
}

function choice(field) {
  const options = field.options.map(([value, text]) => {
    const option = element("option", {}, text);
    option.value = value;
    option.defaultSelected = value === field.value;
    return option;
  });
  return element("select", { name: field.name }, ...options);
}

function search(field) {
  const list = `list-${field.name}`;
  const input = element("input", { name: field.name, type: "search", value: field.value, autocomplete: "off", maxlength: "200" });
  if (!field.suggestions.length) return input;
  input.setAttribute("list", list);
  const options = field.suggestions.map((name) => element("option", { value: name }));
  return element("span", {}, input, element("datalist", { id: list }, ...options));
}

function go(form) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of new FormData(form)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const search = String(query);
  if (`?${search}` !== location.search) location.assign(location.pathname + (search ? `?${search}` : ""));
}
