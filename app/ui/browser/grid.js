// The grid: rows of cells, painted from the maps; cross-hair, values and the bare photograph.

/** Pixels of a smooth map along its longer side; the browser enlarges them. */
const FINE = 144;
/** Times as wide as high: photographs from here on stand below one another. */
const WIDE = 3;
/** Pixels of a column below which names would break within words: maps then stand in several lines, each with its model's name. */
const NARROWEST = 88;
/** Milliseconds that a finger rests before it holds a map: it may only be scrolling. */
const HOLD = 180;

function createGrid(root, { remove, say }) {
  let rows = [], names = [], shown = null;
  // The row that the tab key reaches: with 80 rows nobody would come past all.
  let stop = null;
  let holding = 0;
  const whole = buildBar();
  // Hundreds of maps take as long to paint as a person notices: those far from the window wait until they are near.
  const approach = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) rows.find((row) => row.node === target)?.paint();
  }, { rootMargin: "100% 0px" });
  // A row that is scrolled to keeps clear of the names above it, which may take several lines.
  const cover = new ResizeObserver(([{ target }]) => root.style.setProperty("--head", `${target.offsetHeight}px`));
  new ResizeObserver(crowd).observe(root);
  window.addEventListener("beforeprint", () => rows.forEach((row) => row.paint()));

  /** Build rows and columns anew: other labels, models or photograph. */
  function build(scene) {
    shown = scene;
    root.style.setProperty("--columns", scene.models.length + 1);
    root.style.setProperty("--shape", `${scene.photo.width} / ${scene.photo.height}`);
    root.style.setProperty("--ratio", scene.photo.width / scene.photo.height);
    root.classList.toggle("wide", scene.photo.width >= WIDE * scene.photo.height);
    crowd();
    names = [];
    rows = scene.labels.map((label) => buildRow(label, scene));
    const head = buildHead(scene);
    swap(root, [head, ...rows.map((row) => row.node)]);
    moveStop(scene.labels.includes(stop) ? stop : scene.labels[0]);
    cover.disconnect();
    cover.observe(head);
    approach.disconnect();
    for (const row of rows) approach.observe(row.node);
  }

  function crowd() {
    const columns = shown ? shown.models.length + 1 : 1;
    root.classList.toggle("crowded", root.clientWidth > 0 && root.clientWidth / columns < NARROWEST);
  }

  function moveStop(label) {
    stop = label;
    for (const row of rows) row.cross.tabIndex = row.label === stop ? 0 : -1;
  }

  function buildHead({ models, photo }) {
    const columns = models.map((model) =>
      make("div", { class: "column" }, buildName("b", model), make("span", {}, describeScore(model)), make("span", { class: "time", title: describeTime(model) }, formatTime(model))),
    );
    const picture = make("div", { class: "column" }, make("b", {}, "Photograph"), make("span", {}, `${photo.width} × ${photo.height}`), whole.node);
    return make("div", { class: "head" }, picture, ...columns);
  }

  function buildRow(label, { models, photo }) {
    const close = make("button", { type: "button", class: "close", tabindex: "-1", "data-key": `close ${label}`, "aria-label": `Remove the row ${label}`, title: "Remove this row" }, "×");
    close.addEventListener("click", () => remove(label));
    const bar = buildBar();
    const cells = models.map((model) => buildCell(label, model, photo));
    const bare = make("figure", { class: "cell bare-cell", "aria-hidden": "true" }, make("div", { class: "frame" }, buildPicture(photo)), make("figcaption", {}, make("span", { class: "name" }, label)));
    const cross = make("div", { class: "cells", tabindex: "-1", "data-key": label, role: "group", "aria-label": `${label}: arrow keys move the cross-hair, space shows the photograph, page up and down change the row` }, bare, ...cells.map((cell) => cell.node));
    const node = make("section", { class: "row", "aria-label": label }, make("header", {}, make("h3", {}, label), bar.node, close), cross);
    node.dataset.label = label;
    const row = { label, node, cells, bar, cross, paint: () => {} };
    watchRow(row);
    return row;
  }

  function buildCell(label, model, photo) {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const note = make("span", { class: "note" }), probability = make("span", { class: "probability" }), value = make("span", { class: "value" });
    const bar = buildBar();
    const caption = make("figcaption", {}, buildName("span", model), probability, value, bar.node);
    const node = make("figure", { class: "cell" }, make("div", { class: "frame" }, buildPicture(photo), canvas, note), caption);
    node.dataset.model = model.name;
    return { label, model, node, canvas, note, probability, value, bar };
  }

  /** Where a model's name stands; what is subtracted from it is written there, too. */
  function buildName(tag, model) {
    const node = make(tag, { class: "name" });
    names.push({ node, model });
    return node;
  }

  function buildPicture(photo) {
    return make("img", { src: photo.preview, alt: "", draggable: "false" });
  }

  function buildBar() {
    const canvas = make("canvas", { "aria-hidden": "true" }), low = make("span", {}), high = make("span", {});
    return { node: make("span", { class: "bar" }, low, canvas, high), canvas, low, high };
  }

  /** Draw all cells for a view: no server is asked. */
  function draw(view) {
    if (!shown) return;
    for (const { node, model } of names) node.textContent = nameColumn(model, view);
    for (const row of rows) for (const cell of row.cells) cell.layer = findLayer(cell, view);
    const highest = peakOf(rows.flatMap((row) => row.cells));
    for (const row of rows) drawRow(row, view.scale === "grid" ? highest : peakOf(row.cells), view);
    whole.node.hidden = view.scale !== "grid" || !highest;
    labelBar(whole, highest, view, isSigned(view))();
    root.classList.toggle("cells-view", !view.smooth);
    for (const row of rows.filter(isNear)) row.paint();
  }

  function isNear({ node }) {
    const { top, bottom } = node.getBoundingClientRect();
    return bottom > -innerHeight && top < 2 * innerHeight;
  }

  /** Write what a row says; `row.paint` paints it, once. */
  function drawRow(row, range, view) {
    const paints = row.cells.map((cell) => drawCell(cell, cell.layer?.reference || view.scale === "map" ? cell.layer?.peak : range, view));
    row.bar.node.hidden = view.scale !== "row" || !range;
    paints.push(labelBar(row.bar, range, view, isSigned(view)));
    row.paint = () => {
      row.paint = () => {};
      for (const each of paints) each();
    };
  }

  /** As above a figure's columns; no line ends with the sign. */
  function nameColumn(model, view) {
    const other = model.name !== view.minus && findReference(view);
    return other ? `${model.title} −\u00a0${other.title}` : model.title;
  }

  const isSigned = (view) => view.minus !== "";
  const findReference = (view) => shown.models.find((each) => each.name === view.minus);
  /** Whether a cell shows a map. */
  const isFilled = ({ layer }) => Boolean(layer && !layer.empty);
  const tellPeak = ({ peak, signed }) => (signed ? "±" : "max ") + formatNumber(peak);
  const peakOf = (cells) => Math.max(0, ...cells.filter((cell) => cell.layer && !cell.layer.reference).map((cell) => cell.layer.peak));

  /** What a cell shows: {peak, signed, reference, read(x, y), size, empty}; undefined where there is no map, or none to subtract. */
  function findLayer({ label, model }, view) {
    const map = model.maps[label];
    if (!map) return undefined;
    if (!isSigned(view) || view.minus === model.name) {
      const read = (x, y) => valueAt(map, x, y, view.smooth);
      return { peak: largest(map), signed: false, reference: isSigned(view), read, size: [map[0].length, map.length], empty: largest(map) <= 0 };
    }
    return subtract(map, findReference(view)?.maps[label], view);
  }

  function explainAbsence({ label, model }, view) {
    const asked = model.labels.includes(label) ? findReference(view) ?? model : model;
    return asked.labels.includes(label) ? "…" : asked === model ? "not a label of this model" : "not a label of " + asked.title;
  }

  /** Evidence of one map minus that of another; with a scale per map, of shares of each one's maximum. */
  function subtract(map, other, view) {
    if (!other) return undefined;
    const unit = (each) => (view.scale === "map" ? largest(each) || 1 : 1);
    const [a, b] = [unit(map), unit(other)];
    const read = (x, y) => valueAt(map, x, y, view.smooth) / a - valueAt(other, x, y, view.smooth) / b;
    const size = [Math.max(map[0].length, other[0].length), Math.max(map.length, other.length)];
    const field = sample(...size, read);
    return { peak: field.values.reduce((most, value) => Math.max(most, Math.abs(value)), 0), signed: true, reference: false, read, size, empty: false };
  }

  /** Write what a cell says; returns what paints it. */
  function drawCell(cell, range, view) {
    const { layer, model, label } = cell;
    const score = model.scores.get(label);
    const sure = score >= view.threshold;
    cell.probability.textContent = formatProbability(score);
    cell.node.classList.toggle("sure", sure);
    cell.note.textContent = layer ? (layer.empty ? "no positive evidence" : "") : explainAbsence(cell, view);
    cell.node.classList.toggle("without", !isFilled(cell));
    cell.value.textContent = isFilled(cell) ? tellPeak(layer) : "";
    cell.bar.node.hidden = !isFilled(cell) || !(view.scale === "map" || layer.reference);
    cell.node.setAttribute("aria-label", describeCell(cell, view));
    const paintOwnBar = labelBar(cell.bar, range, view, layer?.signed);
    return () => {
      paintMap(cell, range, view, sure ? 1 : 0.3 + 0.5 * (score ?? 0) / view.threshold);
      paintOwnBar();
    };
  }

  function paintMap(cell, range, view, fade) {
    const { layer, canvas } = cell;
    if (!isFilled(cell) || !(range > 0)) return void (canvas.width = 0);
    const shape = shown.photo.width / shown.photo.height;
    const [width, height] = view.smooth ? (shape > 1 ? [FINE, Math.ceil(FINE / shape)] : [Math.ceil(FINE * shape), FINE]) : layer.size;
    const colours = layer.signed ? view.diverging : view.colours;
    paint(canvas, sample(width, height, layer.read), { range, signed: layer.signed, colours, even: view.even && !layer.signed, opacity: view.opacity * fade });
  }

  /** Write the ends of a colour bar; returns what paints it. */
  function labelBar(bar, range, view, signed) {
    if (bar.node.hidden) return () => {};
    bar.low.textContent = signed ? "−" + formatNumber(range) : "0";
    bar.high.textContent = (signed ? "+" : "") + formatNumber(range);
    const colours = signed ? view.diverging : view.colours;
    return () => paintBar(bar.canvas, colours);
  }

  /** The cross-hair of a row, and the bare photograph for as long as a pointer or the space bar is held. */
  function watchRow(row) {
    const at = { x: 0.5, y: 0.5 };
    const move = (x, y) => {
      Object.assign(at, { x: clamp(x, 0, 1), y: clamp(y, 0, 1) });
      row.node.classList.add("crossed");
      row.cross.style.setProperty("--x", (100 * at.x).toFixed(1) + "%");
      row.cross.style.setProperty("--y", (100 * at.y).toFixed(1) + "%");
      for (const cell of row.cells.filter(isFilled)) cell.value.textContent = formatNumber(cell.layer.read(at.x, at.y));
    };
    const leave = () => {
      row.node.classList.remove("crossed");
      for (const cell of row.cells.filter(isFilled)) cell.value.textContent = tellPeak(cell.layer);
    };
    watchPointer(row, move, leave);
    watchKeys(row, at, move);
    row.cross.addEventListener("focus", () => moveStop(row.label));
    row.cross.addEventListener("blur", () => { leave(); bare(false); });
  }

  function bare(on) {
    clearTimeout(holding);
    root.classList.toggle("bare", on);
  }

  function watchPointer(row, move, leave) {
    const follow = (event) => {
      const frame = event.target.closest?.(".frame");
      if (!frame) return;
      const box = frame.getBoundingClientRect();
      move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    };
    row.cross.addEventListener("pointermove", follow);
    // A finger that is lifted has left, too, and the values are read after that: they go with the focus, or when it scrolls.
    row.cross.addEventListener("pointerleave", ({ pointerType }) => { if (pointerType !== "touch") leave(); bare(false); });
    row.cross.addEventListener("pointercancel", leave);
    row.cross.addEventListener("pointerdown", (event) => {
      if (event.button || !event.target.closest(".frame")) return;
      follow(event);
      clearTimeout(holding);
      if (event.pointerType === "touch") holding = setTimeout(() => bare(true), HOLD);
      else bare(true);
    });
    for (const end of ["pointerup", "pointercancel"]) row.cross.addEventListener(end, () => bare(false));
    row.cross.addEventListener("contextmenu", (event) => {
      if (root.classList.contains("bare")) return event.preventDefault();
      // The browser's menu copies and saves a canvas alone; of a map without its photograph nobody has any use.
      const [canvas] = event.target.closest(".frame")?.getElementsByTagName("canvas") ?? [];
      if (canvas?.width) layOver(canvas, canvas.previousSibling);
    });
  }

  function watchKeys(row, at, move) {
    row.cross.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, -0.05], ArrowDown: [0, 0.05] }[event.key];
      if (step) {
        move(at.x + step[0], at.y + step[1]);
        say(`${describePlace(at)}: ${row.cells.map(({ model, value }) => `${model.title} ${value.textContent || "nothing"}`).join(", ")}`);
      }
      else if (event.key === "PageUp" || event.key === "PageDown") rows[rows.indexOf(row) + (event.key === "PageUp" ? -1 : 1)]?.cross.focus();
      else if (event.key === " ") bare(true);
      // A Mac's key of that name is Backspace.
      else if (event.key === "Delete" || event.key === "Backspace") return remove(row.label);
      else return;
      event.preventDefault();
    });
    row.cross.addEventListener("keyup", (event) => { if (event.key === " ") bare(false); });
  }

  const describeCell = ({ label, model, probability, note, layer }, view) =>
    `${nameColumn(model, view)}, ${label}: probability ${probability.textContent || "unknown"}, ${note.textContent || describePeak(layer)}`;
  const describePeak = ({ peak, signed }) => (signed ? "largest difference " : "largest value ") + formatNumber(peak);
  const describePlace = ({ x, y }) => `${Math.round(100 * x)} percent from the left, ${Math.round(100 * y)} from the top`;
  const describeScore = (model) => (model.mAP === null || model.mAP === undefined ? "mAP not measured" : `mAP ${model.mAP.toFixed(1)}`);
  const formatTime = (model) => (!model.timings ? "" : !model.timings.total ? "from memory" : `${model.timings.total.toFixed(model.timings.total < 10 ? 1 : 0)} ms`);
  const describeTime = ({ timings, cached }) =>
    timings ? `decoding ${timings.decode.toFixed(1)}, network ${timings.network.toFixed(1)}, maps ${timings.maps.toFixed(1)} ms${cached ? " (network from memory)" : ""}` : "";

  return { build, draw };
}
