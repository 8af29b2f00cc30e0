// The Compare tab: what is chosen, what is known, and what of it is on the page.

/** Predicted labels that get a chip, whether they have a row or not. */
const LIKELY_CHIPS = 12;
/** Where the page stands in one column, and what is chosen once is folded away. */
const NARROW = matchMedia("(max-width: 860px)");

const find = (selector) => element.querySelector(selector);

const state = {
  photo: null, // {file | example | sha256, name, credit, url, preview, width, height}
  models: [], // the catalogue: {name, title, role, mAP, labels, on, scores, maps, timings, cached}; the last four are of this photograph
  refused: [], // names of folders that hold no model
  rows: [],
  maxBytes: Infinity,
  maxModels: Infinity,
  maxLabels: Infinity,
};

const look = createLook(element, changeLook);
const grid = createGrid(find(".grid"), { remove: toggleRow, say: (text) => (find(".voice").textContent = text) });
const writeAddress = createAddress();
const chosen = () => state.models.filter((model) => model.on);
/** Whether a chosen model knows a label, and so can fill its row. */
const canFill = (label) => chosen().some((model) => model.labels.includes(label));
/** The rows to be seen; those of another set of labels come back with its models. */
const listRows = () => (chosen().length ? state.rows.filter(canFill) : state.rows);
const findRow = (label) => [...element.querySelectorAll(".grid .row")].find((row) => row.dataset.label === label);
const listKnown = () => chosen().filter((model) => model.scores);
/** A model of the catalogue. */
const admit = (model, on) => ({ ...model, on, maps: noMaps(), scores: null });
const noMaps = () => Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, {}]));

// --- choices -----------------------------------------------------------------------------------------------------------------

/** Take another photograph; until it is compared the old one can come back. */
function pick(photo) {
  if (photo.file && photo.file.size > state.maxBytes)
    return complain(`Expected a file of at most ${Math.floor(state.maxBytes / 2 ** 20)} MB; ${photo.name} has ${Math.ceil(photo.file.size / 2 ** 20)} MB. Save it smaller and choose it again.`);
  if (!state.photo?.preview) release(state.photo);
  // While the photograph before is not compared yet, the last one that was can come back.
  const seen = new Map(state.models.map((model) => [model, { scores: model.scores, maps: model.maps, timings: model.timings }]));
  const before = state.photo?.preview ? { photo: state.photo, rows: state.rows, seen } : state.photo?.before;
  photo.before = before;
  Object.assign(state, { photo, rows: [] });
  for (const model of state.models) Object.assign(model, { scores: null, maps: noMaps(), timings: null });
  showPhoto();
  find(".grid").classList.add("stale");
  const restore = () => {
    release(photo);
    Object.assign(state, { photo: before.photo, rows: before.rows });
    for (const [model, seen] of before.seen) Object.assign(model, seen);
    complete();
  };
  if (chosen().length) ask(chosen(), null, before ? restore : undefined);
}

/** Pictures that are no longer shown need not be kept in memory. */
function release(photo) {
  for (const address of [photo?.url, photo?.preview]) if (address?.startsWith("blob:")) URL.revokeObjectURL(address);
}

function toggleRow(label) {
  if (state.rows.includes(label)) showRows(state.rows.filter((each) => each !== label));
  else addRows([label]);
}

/** Show labels that have no row yet, and go to the last one's row, be it new or not. */
function addRows(labels) {
  showRows([...new Set([...state.rows, ...labels])]);
  findRow(labels.at(-1))?.scrollIntoView({ block: "nearest" });
}

/** All rows away; once there are none, those that a photograph begins with. */
function toggleAllRows() {
  if (state.photo?.preview) showRows(listRows().length ? [] : suggestLabels(listLabels(), look.view.threshold));
}

function showRows(labels) {
  state.rows = labels;
  complain("");
  complete();
}

function toggleModel(model, on) {
  const full = on && chosen().length >= state.maxModels;
  model.on = on && !full;
  complete();
  complain(full ? `At most ${state.maxModels} model${state.maxModels > 1 ? "s" : ""} can be compared at once; take another one away first.` : "");
}

function changeLook() {
  if (chosen().some((model) => state.rows.some((label) => lacks(model, label)))) complete();
  else refresh();
}

/** All labels of the chosen models with the best score that any of them gives, most probable first. */
function listLabels() {
  const best = new Map();
  for (const model of chosen()) for (const label of model.labels) best.set(label, Math.max(best.get(label) ?? -1, model.scores?.get(label) ?? -1));
  return [...best].map(([label, score]) => ({ label, score: score < 0 ? undefined : score })).sort((a, b) => (b.score ?? 0) - (a.score ?? 0));
}

/** Predicted labels without a row, most probable first. */
const listPredicted = () => listLabels().filter(({ label, score }) => score >= look.view.threshold && !state.rows.includes(label)).map(({ label }) => label);

// --- what is on the page -----------------------------------------------------------------------------------------------------

let built = null;

function refresh() {
  showPhoto();
  showModels();
  showChips();
  look.show(chosen());
  showEmpty();
  if (!state.photo?.preview) return;
  const known = listKnown();
  // Only what is drawn changes when the look does: rows and cells stay, and with them the keyboard's place.
  const scene = { photo: state.photo, labels: listRows(), models: known.map((model) => ({ ...model, maps: model.maps[look.view.kind] })) };
  const key = JSON.stringify([state.photo.sha256, scene.labels, known.map((model) => [model.name, model.title, model.timings]), look.view.kind, scene.models.map((model) => Object.keys(model.maps))]);
  if (key !== built) grid.build(scene);
  built = key;
  find(".grid").classList.remove("stale");
  grid.draw(look.view);
  find(".status").textContent = known.length && scene.labels.length ? look.describe() : "";
  showMore();
  writeAddress(describeAddress());
}

/** Why there is no map to see. */
function showEmpty() {
  const reason = explainEmptiness();
  find(".empty").textContent = reason;
  find(".empty").hidden = !reason;
  find(".grid").hidden = !listKnown().length;
}

function explainEmptiness() {
  if (!state.models.length) return "";
  if (!chosen().length) return "Choose at least one model.";
  if (!state.photo?.preview) return asking ? "Comparing…" : "Choose a photograph.";
  return listKnown().length && !listRows().length ? "Add a label to see its maps." : "";
}

function showPhoto() {
  const { photo } = state, picture = find(".picked");
  picture.hidden = !photo;
  find(".drop-hint").hidden = Boolean(photo);
  if (!photo) return;
  const source = photo.preview ?? photo.url ?? "";
  if (picture.getAttribute("src") !== source) picture.src = source;
  picture.alt = photo.name;
  Object.assign(find(".photo-name"), { textContent: photo.name, title: photo.name });
  find(".credit").textContent = photo.credit ?? "";
  for (const button of element.querySelectorAll(".examples button")) button.setAttribute("aria-pressed", String(button.dataset.name === photo.example));
}

function showModels() {
  find(".count").textContent = `${chosen().length} of ${state.models.length}`;
  find(".refused").textContent = state.refused.length ? `Cannot be used: ${state.refused.join(", ")}. Results tells why.` : "";
  const list = find(".models");
  if (differs(list, state.models.map(({ name, title, mAP, data }) => [name, title, mAP, data]))) swap(list, state.models.map(showModel));
  for (const model of state.models) list.querySelector(`[data-key="${model.name}"]`).checked = model.on;
}

function showModel({ name, title, mAP, data, backbone, image_size: size }) {
  const box = make("input", { type: "checkbox", "data-key": name });
  box.addEventListener("change", () => toggleModel(state.models.find((model) => model.name === name), box.checked));
  // Scores on different data do not compare: those that are not the first model's name theirs.
  const other = data === state.models[0].data ? "" : make("small", { class: "data" }, `on ${data}`);
  const about = `${name}: ${backbone}, ${size} pixels, trained and scored on ${data}`;
  return make("li", {}, make("label", { title: about }, box, make("span", {}, title, other), make("small", {}, typeof mAP === "number" ? `mAP ${mAP.toFixed(1)}` : "")));
}

function showChips() {
  const scores = new Map(listLabels().map(({ label, score }) => [label, score])), rows = listRows();
  const chips = [...rows, ...listPredicted().slice(0, LIKELY_CHIPS)].map((label) => [label, formatProbability(scores.get(label)), rows.includes(label)]);
  if (differs(find(".chips"), chips)) swap(find(".chips"), chips.map(showChip));
  find(".all-rows").textContent = rows.length ? "Remove all" : "Show suggested";
  find(".all-rows").hidden = !state.photo?.preview || !scores.size;
}

function showChip([label, probability, shown]) {
  const chip = make("button", { type: "button", class: "chip", "data-key": label, "aria-pressed": String(shown) }, make("span", {}, label), make("small", {}, probability));
  chip.addEventListener("click", () => toggleRow(label));
  return chip;
}

/** Predicted labels beyond the rows that a new photograph starts with. */
function showMore() {
  const rest = listPredicted();
  if (!differs(find(".more"), rest)) return;
  const button = make("button", { type: "button", class: "button" }, rest.length === 1 ? `Show ${rest[0]} too` : `Show ${rest.length} more predicted labels`);
  button.addEventListener("click", () => {
    showRows([...state.rows, ...rest]);
    // The button is gone; what it brought begins where it was.
    findRow(rest[0])?.querySelector(".cells").focus({ preventScroll: true });
  });
  find(".more").replaceChildren(...(rest.length ? [button] : []));
}

function complain(message) {
  const notice = find(".notice");
  notice.textContent = message;
  notice.hidden = !message;
}

// --- the address -------------------------------------------------------------------------------------------------------------

/** What opens this view again. An uploaded photograph is named by its hash: whoever has the link sees it while the server remembers it. */
function describeAddress() {
  const { photo } = state, usual = state.models.every((model) => model.on === model.default);
  const source = photo.example ? { example: [photo.example] } : { photo: [photo.sha256], name: [photo.name] };
  return { ...source, models: usual ? undefined : chosen().map((model) => model.name), labels: listRows(), ...look.write(), ...describeTab() };
}

watchPhotograph(element, pick, complain);
find(".all-rows").addEventListener("click", toggleAllRows);
watchLabels(element, { listLabels, isShown: (label) => state.rows.includes(label), add: addRows });
