// The labels: a field with a searchable list of all of them, and those worth showing.

/** Labels that a photograph begins with: at most so many that are predicted; so many of the most probable where none is. */
const MOST_PREDICTED = 8, MOST_PROBABLE = 3;

function watchLabels(element, { listLabels, isShown, add }) {
  const input = element.querySelector("#l2d-label"), list = element.querySelector("#l2d-options");
  let options = [], active = 0;
  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const choose = (label) => {
    input.value = "";
    close();
    add([label]);
  };
  /** The labels whose whole names stand in the field, between commas, and what is no label's name. */
  const readNames = () => {
    const names = input.value.split(",").map((name) => name.trim()).filter(Boolean);
    const labels = new Map(listLabels().map(({ label }) => [label.toLowerCase(), label]));
    return { found: names.map((name) => labels.get(name.toLowerCase())).filter(Boolean), unknown: names.filter((name) => !labels.has(name.toLowerCase())) };
  };
  /** Take the labels that are named; what is no label's name stays in the field. */
  const chooseNamed = () => {
    const { found, unknown } = readNames();
    input.value = unknown.join(", ");
    if (found.length) add(found);
    if (input.value) open();
    else close();
  };
  const render = () => {
    const text = input.value.trim().toLowerCase();
    const starts = ({ label }) => (label.toLowerCase().startsWith(text) ? 0 : 1);
    const { found } = readNames();
    options = listLabels().filter(({ label }) => label.toLowerCase().includes(text) && !isShown(label));
    if (text) options.sort((a, b) => starts(a) - starts(b));
    if (!options.length && !found.length) options = listLabels().filter(({ label }) => isMisspelt(text, label.toLowerCase()) && !isShown(label));
    list.replaceChildren(...options.map(describe));
    const added = found.filter((label) => !isShown(label)).join(", ");
    if (!options.length) list.append(make("li", { class: "none", role: "option", "aria-disabled": "true" }, added ? `Enter adds ${added}` : explainNone(text, found)));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark(0);
  };
  /** Mark the option that Enter takes. Of thousands none is built anew for it. */
  const mark = (index) => {
    if (!options.length) return input.removeAttribute("aria-activedescendant");
    list.children[active]?.setAttribute("aria-selected", "false");
    active = clamp(index, 0, options.length - 1);
    list.children[active].setAttribute("aria-selected", "true");
    input.setAttribute("aria-activedescendant", "l2d-option-" + active);
    list.children[active].scrollIntoView({ block: "nearest" });
  };
  const explainNone = (text, found) => (!text ? "All labels are shown" : found.length ? "Already shown" : "No label of that name");
  const describe = ({ label, score }, index) => {
    const option = make(
      "li",
      { role: "option", id: "l2d-option-" + index, "aria-selected": "false" },
      make("span", {}, label),
      make("small", {}, formatProbability(score)),
    );
    // Not when it is pressed: a finger may only be scrolling the list.
    option.addEventListener("click", () => choose(label));
    // The keyboard stays in the field.
    option.addEventListener("mousedown", (event) => event.preventDefault());
    return option;
  };
  const open = () => {
    render();
    list.scrollIntoView({ block: "nearest" });
  };
  input.addEventListener("focus", open);
  input.addEventListener("click", open);
  input.addEventListener("input", open);
  // The keyboard of a phone comes later than the list, and would lie over it.
  visualViewport.addEventListener("resize", () => list.hidden || list.scrollIntoView({ block: "nearest" }));
  // Not when the field loses the keyboard, which a press does: what lies below moves up then, and the click that follows would miss it.
  // It is judged by where it began, as opening the list may move the field itself.
  let began = null;
  document.addEventListener("pointerdown", ({ target }) => (began = target), true);
  for (const done of ["click", "change"])
    document.addEventListener(done, ({ target }) => ![target, began].includes(input) && !list.contains(began) && close(), true);
  input.addEventListener("keydown", (event) => {
    // Keys of an input method, as Enter for what was composed; Safari says so of that one by its number alone.
    if (event.isComposing || event.keyCode === 229) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (list.hidden) open();
      else mark(active + step);
    } else if (event.key === "Enter" && !list.hidden && options.length) choose(options[active].label);
    else if (event.key === "Enter") chooseNamed();
    else if (event.key === "Escape" || event.key === "Tab") close();
  });
}

/** What the server shows where nobody names labels (`choose_labels` in l2d/labels.py), of labels by probability. */
function suggestLabels(ranked, threshold) {
  const predicted = ranked.filter(({ score }) => score >= threshold);
  return (predicted.length ? predicted.slice(0, MOST_PREDICTED) : ranked.slice(0, MOST_PROBABLE)).map(({ label }) => label);
}

/** Whether a text becomes a label's name by changing, adding or leaving out no more than a third of its letters. */
function isMisspelt(text, name) {
  let edits = Array.from({ length: name.length + 1 }, (_, place) => place);
  for (const [row, letter] of [...text].entries()) {
    const next = [row + 1];
    for (let i = 0; i < name.length; i++) next.push(Math.min(edits[i + 1] + 1, next[i] + 1, edits[i] + (name[i] === letter ? 0 : 1)));
    edits = next;
  }
  return edits[name.length] <= Math.round(text.length / 3);
}
