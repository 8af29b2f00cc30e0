// The Compare tab: what is chosen, what is known, and when the server is asked (only for what is not known yet).

/** Predicted labels that get a chip, whether they have a row or not. */
const LIKELY_CHIPS = 12;

const find = (selector) => element.querySelector(selector);
const colourOf = (name) => parseColours(COLOUR_MAPS.find((each) => each.name === name).colours);

const state = {
  photo: null, // {file | example, name, url, sha256, preview, width, height}
  models: [], // the catalogue: {name, title, role, mAP, labels, on, scores, maps, timings, cached}; the last four are of this photograph
  rows: [],
  maxBytes: Infinity,
  view: { show: "evidence", scale: "row", smooth: true, opacity: 0.85, threshold: 0.5, even: false, colours: null, diverging: colourOf("coolwarm") },
};

const grid = createGrid(find(".grid"), { remove: toggleRow });
const chosen = () => state.models.filter((model) => model.on);
let asking = 0, opacityChosen = false;

// --- asking the server -------------------------------------------------------------------------------------------------------

/** Call a function of the page's Python side. The photograph travels once; after that its hash does, for as long as it is remembered. */
async function call(name, photo, request) {
  const known = { ...request, example: photo.example, sha256: photo.sha256 };
  let reply = !photo.file || photo.sha256 ? await server[name](known) : { forgotten: true };
  if (reply?.forgotten) reply = await server[name]({ binary: true, data: { request: JSON.stringify(request), photograph: photo.file } });
  if (!reply) throw new Error("The server does not answer. Is it still running?");
  if (reply.error) throw new Error(reply.error);
  return reply;
}

async function ask(models, labels) {
  const photo = state.photo;
  setBusy(1);
  try {
    const fresh = !photo.preview;
    const reply = await call("compare", photo, { models: models.map((model) => model.name), labels, threshold: state.view.threshold, preview: fresh });
    if (photo !== state.photo) return;
    accept(reply);
  } catch (error) {
    if (photo === state.photo) complain(error.message);
  } finally {
    setBusy(-1);
  }
}

/** Merge an answer: models that were not asked, and labels that were not, stay as they are. */
function accept({ answer, preview }) {
  complain("");
  Object.assign(state.photo, answer.image);
  const first = preview && !state.photo.preview;
  if (first) {
    state.photo.preview = preview;
    state.rows = answer.labels;
  }
  for (const seen of answer.models) {
    const model = state.models.find((each) => each.name === seen.name);
    model.scores = new Map(seen.predictions.map(({ label, score }) => [label, score]));
    model.maps = { ...model.maps, ...seen.maps };
    Object.assign(model, { timings: seen.timings_ms, cached: seen.cached });
  }
  // A model that was chosen while the first answer was on its way could not know the rows.
  if (preview && !first) complete();
  else refresh();
}

/** Ask for what is shown but not known, if anything is. */
function complete() {
  const lacks = (model, label) => model.labels.includes(label) && !model.maps[label];
  const models = chosen().filter((model) => !model.scores || state.rows.some((label) => lacks(model, label)));
  const labels = state.rows.filter((label) => models.some((model) => lacks(model, label)));
  refresh();
  if (models.length && state.photo) ask(models, labels.length ? labels : null);
}

// --- choices -----------------------------------------------------------------------------------------------------------------

function pick(photo) {
  if (photo.file && photo.file.size > state.maxBytes)
    return complain(`Expected a file of at most ${Math.floor(state.maxBytes / 2 ** 20)} MB; ${photo.name} has ${Math.ceil(photo.file.size / 2 ** 20)} MB. Save it smaller and choose it again.`);
  if (state.photo?.url?.startsWith("blob:")) URL.revokeObjectURL(state.photo.url);
  state.photo = photo;
  state.rows = [];
  for (const model of state.models) Object.assign(model, { scores: null, maps: {}, timings: null });
  showPhoto();
  if (chosen().length) ask(chosen(), null);
}

function toggleRow(label) {
  state.rows = state.rows.includes(label) ? state.rows.filter((each) => each !== label) : [...state.rows, label];
  complete();
}

function toggleModel(model, on) {
  model.on = on;
  if (!on && state.view.show === model.name) state.view.show = "evidence";
  complete();
}

/** All labels of the chosen models with the best score that any of them gives, most probable first. */
function listLabels() {
  const best = new Map();
  for (const model of chosen()) for (const label of model.labels) best.set(label, Math.max(best.get(label) ?? -1, model.scores?.get(label) ?? -1));
  return [...best].map(([label, score]) => ({ label, score: score < 0 ? undefined : score })).sort((a, b) => (b.score ?? 0) - (a.score ?? 0));
}

// --- what is on the page -----------------------------------------------------------------------------------------------------

function refresh() {
  showPhoto();
  showModels();
  showChips();
  showChoices();
  const known = chosen().filter((model) => model.scores);
  if (!state.photo?.preview || !known.length) return;
  grid.build({ photo: state.photo, labels: state.rows, models: known });
  redraw();
  showMore();
}

function redraw() {
  grid.draw(state.view);
  explain();
  find("label[for=l2d-opacity] output").textContent = Math.round(100 * state.view.opacity) + "%";
  find("label[for=l2d-threshold] output").textContent = state.view.threshold.toFixed(2);
}

function showPhoto() {
  const { photo } = state, picture = find(".picked");
  picture.hidden = !photo;
  find(".drop-hint").hidden = Boolean(photo);
  if (!photo) return;
  picture.src = photo.preview ?? photo.url ?? "";
  picture.alt = photo.name;
  find(".photo-name").textContent = photo.name;
  for (const button of element.querySelectorAll(".examples button")) button.setAttribute("aria-pressed", String(button.dataset.name === photo.example));
}

function showModels() {
  swap(
    find(".models"),
    state.models.map((model) => {
      const box = make("input", { type: "checkbox", checked: model.on, "data-key": model.name });
      box.addEventListener("change", () => toggleModel(model, box.checked));
      const score = typeof model.mAP === "number" ? `mAP ${model.mAP.toFixed(1)}` : "";
      return make("li", {}, make("label", { title: `${model.name}: ${model.backbone}, ${model.image_size} pixels` }, box, make("span", {}, model.title), make("small", {}, score)));
    }),
  );
}

function showChips() {
  const likely = listLabels().filter(({ score }) => score >= state.view.threshold).slice(0, LIKELY_CHIPS);
  const scores = new Map(listLabels().map(({ label, score }) => [label, score]));
  const labels = [...state.rows, ...likely.map(({ label }) => label).filter((label) => !state.rows.includes(label))];
  swap(
    find(".chips"),
    labels.map((label) => {
      const score = scores.get(label);
      const chip = make("button", { type: "button", class: "chip", "data-key": label, "aria-pressed": String(state.rows.includes(label)) }, make("span", {}, label), make("small", {}, score === undefined ? "" : formatShare(score)));
      chip.addEventListener("click", () => toggleRow(label));
      return chip;
    }),
  );
}

/** Predicted labels beyond the rows that a new photograph starts with. */
function showMore() {
  const rest = listLabels().filter(({ label, score }) => score >= state.view.threshold && !state.rows.includes(label)).map(({ label }) => label);
  const button = make("button", { type: "button", class: "button" }, rest.length === 1 ? `Show ${rest[0]} too` : `Show ${rest.length} more predicted labels`);
  button.addEventListener("click", () => {
    state.rows = [...state.rows, ...rest];
    complete();
  });
  find(".more").replaceChildren(...(rest.length ? [button] : []));
}

function showChoices() {
  const option = (value, text, on) => make("option", { value, selected: value === on }, text);
  const differences = chosen().map((model) => option(model.name, `Minus ${model.title}`, state.view.show));
  find("#l2d-show").replaceChildren(option("evidence", "Evidence", state.view.show), ...differences);
  const select = find("#l2d-colour"), signed = state.view.show !== "evidence";
  select.replaceChildren(...COLOUR_MAPS.filter((each) => each.signed === signed).map((each) => option(each.name, each.title, state.view.colourName)));
  select.disabled = signed;
}

function explain() {
  const scales = { row: "one scale per row", map: "every map up to its own maximum", grid: "one scale for the whole grid" };
  const what = state.view.show === "evidence" ? "LayerCAM evidence, from zero" : "evidence minus that of the reference";
  const unit = state.view.show !== "evidence" && state.view.scale === "map" ? ", as shares of each map's maximum" : "";
  find(".status").textContent = `Colours: ${what}${unit}; ${scales[state.view.scale]}. Below each map its probability, bold from ${state.view.threshold.toFixed(2)}, and its largest value; maps of improbable labels fade.`;
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

// --- controls ----------------------------------------------------------------------------------------------------------------

function setColours(name) {
  const entry = COLOUR_MAPS.find((each) => each.name === name);
  Object.assign(state.view, { colourName: name, colours: colourOf(name), even: entry.even });
  if (!opacityChosen) {
    state.view.opacity = entry.opacity;
    find("#l2d-opacity").value = 100 * entry.opacity;
  }
}

function listen(selector, event, change) {
  for (const control of element.querySelectorAll(selector))
    control.addEventListener(event, () => {
      change(control.value);
      redraw();
    });
}

listen("input[name=l2d-scale]", "change", (value) => (state.view.scale = value));
listen("input[name=l2d-smooth]", "change", (value) => (state.view.smooth = value === "smooth"));
listen("#l2d-colour", "change", setColours);
listen("#l2d-opacity", "input", (value) => {
  opacityChosen = true;
  state.view.opacity = value / 100;
});
listen("#l2d-threshold", "input", (value) => {
  state.view.threshold = value / 100;
  showChips();
  showMore();
});
listen("#l2d-show", "change", (value) => {
  state.view.show = value;
  showChoices();
});

async function save(kind) {
  const request = { kind, models: chosen().map((model) => model.name), labels: state.rows, threshold: state.view.threshold };
  setBusy(1);
  try {
    const file = await call("save", state.photo, request);
    const link = make("a", { href: `data:${file.type};base64,${file.base64}`, download: file.name });
    link.click();
    complain("");
  } catch (error) {
    complain(error.message);
  } finally {
    setBusy(-1);
  }
}

for (const button of element.querySelectorAll("[data-save]"))
  button.addEventListener("click", () => {
    find(".save").open = false;
    save(button.dataset.save);
  });
document.addEventListener("click", (event) => {
  if (!find(".save").contains(event.target)) find(".save").open = false;
});
find(".save").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  find(".save").open = false;
  find(".save summary").focus();
});

watchPhotograph(element, pick, complain);
watchLabels(element, { listLabels, isShown: (label) => state.rows.includes(label), toggle: toggleRow });

// --- the first picture -------------------------------------------------------------------------------------------------------

async function open() {
  const opening = await server.opening();
  if (!opening) return complain("The server does not answer. Is it still running?");
  state.maxBytes = opening.max_bytes;
  state.models = opening.models.map((model) => ({ ...model, on: model.default, maps: {}, scores: null }));
  find(".examples").replaceChildren(
    ...opening.examples.map(({ name, title, credit, thumbnail }) => {
      const button = make("button", { type: "button", "aria-label": title, "aria-pressed": "false", title: `${title}. ${credit}` }, make("img", { src: thumbnail, alt: "" }));
      button.dataset.name = name;
      button.addEventListener("click", () => pick({ example: name, name: title, url: thumbnail }));
      return button;
    }),
  );
  if (opening.error) complain(opening.error);
  if (opening.first) {
    const { name, title, thumbnail } = opening.examples[0];
    state.photo = { example: name, name: title, url: thumbnail };
    accept(opening.first);
  } else refresh();
}

setColours(COLOUR_MAPS[0].name);
setBusy(1);
open().finally(() => setBusy(-1));
