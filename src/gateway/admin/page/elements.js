// Builds elements from data, always as text, and puts a new tree in the place of an old one without
// disturbing what has focus, is selected or is being pressed.

const SVG = "http://www.w3.org/2000/svg";

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

// Returns an element; strings among its children become text nodes, null and false nothing.
export function el(name, attributes = {}, ...children) {
  return made(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return made(document.createElementNS(SVG, name), attributes, children);
}

// Changes the children of `into` to be like `wanted`, keeping every node that can stay.
export function show(into, ...wanted) {
  const next = wanted.flat(Infinity).filter((child) => child != null && child !== false);
  for (const [place, node] of next.entries()) {
    const present = into.childNodes[place];
    const fresh = typeof node === "string" ? document.createTextNode(node) : node;
    if (!present) into.append(fresh);
    else if (!alike(present, fresh)) present.replaceWith(fresh);
    else if (fresh.nodeType === Node.TEXT_NODE) {
      if (present.data !== fresh.data) present.data = fresh.data;
    } else {
      copyAttributes(present, fresh);
      show(present, ...fresh.childNodes);
    }
  }
  while (into.childNodes.length > next.length) into.lastChild.remove();
}

function alike(one, other) {
  return (
    one.nodeType === other.nodeType &&
    one.nodeName === other.nodeName &&
    (one.dataset?.key ?? "") === (other.dataset?.key ?? "")
  );
}

function copyAttributes(to, from) {
  for (const { name } of [...to.attributes]) {
    if (!from.hasAttribute(name) && name !== "open") to.removeAttribute(name);
  }
  for (const { name, value } of from.attributes) {
    if (to.getAttribute(name) !== value) to.setAttribute(name, value);
  }
}
