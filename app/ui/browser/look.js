// How the maps are drawn: the controls above the grid, and what they are set to. Only another kind of map needs the server.

const PLAIN = { kind: "layercam", minus: "", scale: "row", smooth: true, threshold: 0.5, colour: COLOUR_MAPS[0].name };

function createLook(element, changed) {
  const find = (selector) => element.querySelector(selector);
  const coloursOf = (name) => parseColours(COLOUR_MAPS.find((each) => each.name === name).colours);
  const view = { ...PLAIN, opacity: 0, even: false, colours: null, diverging: coloursOf(COLOUR_MAPS.find((each) => each.signed).name) };
  let opacityChosen = false, models = [];

  function setColours(name) {
    const entry = COLOUR_MAPS.find((each) => each.name === name && !each.signed) ?? COLOUR_MAPS[0];
    Object.assign(view, { colour: entry.name, colours: coloursOf(entry.name), even: entry.even });
    if (!opacityChosen) view.opacity = entry.opacity;
  }

  function setOpacity(value) {
    opacityChosen = true;
    view.opacity = value;
  }

  /** Set what an address asks for; what it does not name, or names wrongly, is as on a fresh page. */
  function read(asked) {
    opacityChosen = false;
    Object.assign(view, PLAIN);
    const [kind] = asked.kind ?? [], [scale] = asked.scale ?? [], [minus] = asked.minus ?? [];
    const number = (name) => (asked[name]?.[0] === undefined ? NaN : clamp(Number(asked[name][0]), 0, 1));
    if (Object.hasOwn(KINDS, kind)) view.kind = kind;
    if (Object.hasOwn(SCALES, scale)) view.scale = scale;
    if (minus) view.minus = minus;
    if (asked.cells) view.smooth = false;
    setColours(asked.colours?.[0] ?? PLAIN.colour);
    if (!Number.isNaN(number("threshold"))) view.threshold = number("threshold");
    if (!Number.isNaN(number("opacity"))) setOpacity(number("opacity"));
  }

  /** The same for an address: only what differs from a fresh page. */
  const write = () => ({
    ...Object.fromEntries(["kind", "scale", "minus"].map((name) => [name, view[name] === PLAIN[name] ? undefined : [view[name]]])),
    cells: view.smooth ? undefined : ["yes"],
    colours: view.colour === PLAIN.colour ? undefined : [view.colour],
    threshold: view.threshold === PLAIN.threshold ? undefined : [String(view.threshold)],
    opacity: opacityChosen ? [String(view.opacity)] : undefined,
  });

  /** What the server needs to know to draw a figure of the same look. */
  const describeFigure = () => ({ kind: view.kind, threshold: view.threshold, scale: view.scale, colormap: view.colour, smooth: view.smooth, minus: view.minus, opacity: view.opacity });

  /** Show what is set; `compared` are the models that can be subtracted. */
  function show(compared = models) {
    models = compared;
    if (!models.some((model) => model.name === view.minus)) view.minus = "";
    const option = (value, text, on) => make("option", { value, selected: value === on }, text);
    find("#l2d-minus").replaceChildren(option("", "nothing", view.minus), ...models.map((model) => option(model.name, model.title, view.minus)));
    const select = find("#l2d-colour"), signed = view.minus !== "";
    select.replaceChildren(...COLOUR_MAPS.filter((each) => each.signed === signed).map((each) => option(each.name, each.title, view.colour)));
    select.disabled = signed;
    find("#l2d-kind").value = view.kind;
    find(`input[name=l2d-scale][value=${view.scale}]`).checked = true;
    find(`input[name=l2d-smooth][value=${view.smooth ? "smooth" : "cells"}]`).checked = true;
    find("#l2d-opacity").value = 100 * view.opacity;
    find("#l2d-threshold").value = 100 * view.threshold;
    find("label[for=l2d-opacity] output").textContent = Math.round(100 * view.opacity) + "%";
    find("label[for=l2d-threshold] output").textContent = view.threshold.toFixed(2);
  }

  /** What the colours mean, in a sentence. */
  function describe() {
    const other = models.find((model) => model.name === view.minus);
    const what = other ? `${KINDS[view.kind].split(",")[0]} minus that of ${other.title}${view.scale === "map" ? ", as shares of each map's maximum" : ""}` : KINDS[view.kind];
    return `Colours: ${what}; ${SCALES[view.scale]}. Below each map its probability, bold from ${view.threshold.toFixed(2)}, and its largest value; maps of improbable labels fade.`;
  }

  function listen(selector, event, change) {
    for (const control of element.querySelectorAll(selector))
      control.addEventListener(event, () => {
        change(control.value);
        show();
        changed();
      });
  }

  listen("input[name=l2d-scale]", "change", (value) => (view.scale = value));
  listen("input[name=l2d-smooth]", "change", (value) => (view.smooth = value === "smooth"));
  listen("#l2d-kind", "change", (value) => (view.kind = value));
  listen("#l2d-minus", "change", (value) => (view.minus = value));
  listen("#l2d-colour", "change", setColours);
  listen("#l2d-opacity", "input", (value) => setOpacity(value / 100));
  listen("#l2d-threshold", "input", (value) => (view.threshold = value / 100));
  setColours(view.colour);
  return { view, read, write, show, describe, describeFigure };
}
