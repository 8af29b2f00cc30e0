// What the other scripts build the page of: elements, and probabilities as text.

/** A DOM element; text children are text, never HTML. */
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

/** Replace what a container holds; the keyboard stays on the element of the same key, or where that one was. */
function swap(container, children) {
  const listKeys = () => [...container.querySelectorAll("[data-key]")];
  const index = listKeys().indexOf(document.activeElement), key = document.activeElement?.dataset?.key;
  container.replaceChildren(...children);
  if (index < 0) return;
  const now = listKeys();
  (now.find((each) => each.dataset.key === key) ?? now[Math.min(index, now.length - 1)])?.focus({ preventScroll: true });
}

/** A probability as people read it: never 100% or 0% unless it is. */
function formatShare(score) {
  if (score > 0 && score < 0.01) return "<1%";
  if (score < 1 && score >= 0.995) return ">99%";
  return Math.round(100 * score) + "%";
}
