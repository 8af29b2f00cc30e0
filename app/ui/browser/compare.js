// The Compare tab: what is chosen, what is known, and when the server is asked (only for what is not known yet).

/** Predicted labels that get a chip, whether they have a row or not. */
const LIKELY_CHIPS = 12;
/** Where the page stands in one column, and what is chosen once is folded away. */
const NARROW = matchMedia("(max-width: 860px)");
const NOT_THERE = "The server does not answer. Is it still running?";
const TOO_OFTEN = "The server runs, but refused to answer: it may have been asked too often. Try again in a minute.";
const TOO_SLOW = "The server runs, but did not take the photograph: it may have come too slowly, or the server been asked too often. Try again in a minute, or with a smaller file.";

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
/** The rows that a chosen model can fill; those of another set of labels come back with its models. */
const listRows = () => (chosen().length ? state.rows.filter((label) => chosen().some((model) => model.labels.includes(label))) : state.rows);
const listKnown = () => chosen().filter((model) => model.scores);
/** A model of the catalogue. */
const admit = (model, on) => ({ ...model, on, maps: noMaps(), scores: null });
const noMaps = () => Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, {}]));
let asking = 0;

// --- asking the server -------------------------------------------------------------------------------------------------------

/** Call a function of the page's Python side. The photograph travels once; after that its hash does, for as long as it is remembered. */
async function call(name, photo, request) {
  const known = { ...request, example: photo.example, sha256: photo.sha256 };
  let reply = !photo.file || photo.sha256 ? await server[name](known) : { forgotten: true };
  if (reply?.forgotten && !photo.file) throw new Error("The server no longer remembers this photograph; choose it again.");
  const refusal = reply?.forgotten ? TOO_SLOW : TOO_OFTEN;
  if (reply?.forgotten) reply = await server[name]({ binary: true, data: { request: JSON.stringify(request), photograph: photo.file } });
  if (!reply) throw new Error(await explainSilence(refusal));
  if (reply.error) throw new Error(reply.error);
  return reply;
}

/** Gradio tells no reason why there is no answer; `refusal` is the likely one of a server that runs. */
async function explainSilence(refusal = TOO_OFTEN) {
  return (await fetch("healthz").then(({ ok }) => ok, () => false)) ? refusal : NOT_THERE;
}

/** Ask for maps and predictions, and show them; a refusal is told, and undone by `restore`. */
async function ask(models, labels, restore = () => {}) {
  const { photo } = state, { kind, threshold } = look.view;
  complain("");
  setBusy(1);
  try {
    const reply = await call("compare", photo, { models: models.map((model) => model.name), labels, threshold, kind, preview: !photo.preview });
    if (photo === state.photo) accept(reply);
  } catch (error) {
    const gone = await leaveOutGone();
    if (photo !== state.photo) return;
    if (gone && photo.preview) complete();
    else if (gone && chosen().length) ask(chosen(), null, restore);
    else restore();
    complain(gone || (photo.preview ? error.message : `${photo.name}: ${error.message}`));
  } finally {
    setBusy(-1);
    showEmpty();
  }
}

/** Merge an answer: models that were not asked, and labels that were not, stay as they are. */
function accept({ answer, preview }) {
  Object.assign(state.photo, answer.image);
  const first = preview && !state.photo.preview;
  if (first) {
    release(state.photo);
    state.photo.preview = preview;
    state.photo.before = undefined;
    state.rows = answer.labels;
  }
  for (const seen of answer.models) {
    const model = state.models.find((each) => each.name === seen.name);
    if (!model) continue; // deleted meanwhile
    model.scores = new Map(seen.predictions.map(({ label, score }) => [label, score]));
    Object.assign(model.maps[answer.kind], measureByArea(seen.maps));
    // What more labels cost is added to what the photograph's first look did.
    const more = model.timings && seen.cached;
    Object.assign(model, more ? { timings: addTimes(model.timings, seen.timings_ms) } : { timings: seen.timings_ms, cached: seen.cached });
  }
  if (state.rows.length && !listRows().length) state.rows = [...state.rows, ...answer.labels];
  // What was chosen while the answer was on its way, a model or another kind of map, could not be asked with the rows.
  complete();
}

const addTimes = (before, now) => Object.fromEntries(Object.entries(before).map(([stage, time]) => [stage, time + now[stage]]));

/** Whether a model could show a map of a label and has none yet. */
const lacks = (model, label) => model.labels.includes(label) && !model.maps[look.view.kind][label];

/** Ask for what is shown but not known, if anything is; for as many labels as one request may name, as its answer asks for the next. */
function complete() {
  // Of another set of labels than all rows: begins with its own.
  const lost = state.rows.length && !listRows().length;
  const labels = state.rows.filter((label) => chosen().some((model) => lacks(model, label))).slice(0, state.maxLabels);
  const models = chosen().filter((model) => !model.scores || lost || labels.some((label) => lacks(model, label)));
  if (models.length && state.photo) ask(models, labels.length ? labels : null);
  refresh();
}

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

/** A file that is no longer shown itself need not be kept in memory for it. */
function release(photo) {
  if (photo?.url?.startsWith("blob:")) URL.revokeObjectURL(photo.url);
}

function toggleRow(label) {
  if (state.rows.includes(label)) showRows(state.rows.filter((each) => each !== label));
  else addRows([label]);
}

/** Show labels that have no row yet, and go to the last one's row, be it new or not. */
function addRows(labels) {
  showRows([...new Set([...state.rows, ...labels])]);
  const row = [...element.querySelectorAll(".grid .row")].find((each) => each.dataset.label === labels.at(-1));
  row?.scrollIntoView({ block: "nearest" });
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
    [...element.querySelectorAll(".grid .row")].find((row) => row.dataset.label === rest[0])?.querySelector(".cells").focus({ preventScroll: true });
  });
  find(".more").replaceChildren(...(rest.length ? [button] : []));
}

function setBusy(change) {
  asking += change;
  find(".desk").dataset.busy = String(asking > 0);
  find(".grid").setAttribute("aria-busy", String(asking > 0));
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
