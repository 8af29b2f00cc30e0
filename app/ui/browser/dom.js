// What the other scripts build the page of: elements, and probabilities as text.

/** A DOM element; text children are text, never HTML. */
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== false) node.setAttribute(name, value === true ? "" : value);
  node.append(...children);
  return node;
}

/** Whether a container has to be filled anew to show something. If it need not be, it should not: a click on what is replaced meanwhile is lost. */
function differs(container, shown) {
  const text = JSON.stringify(shown), different = container.dataset.shown !== text;
  container.dataset.shown = text;
  return different;
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

/** A probability as people read it: with two decimals, but 0.00 or 1.00 only where it is just that; nothing while it is unknown. */
function formatProbability(score) {
  if (score === undefined) return "";
  if (score > 0 && score < 0.005) return "<0.01";
  return score >= 0.995 && score < 1 ? ">0.99" : score.toFixed(2);
}
