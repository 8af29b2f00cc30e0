// When the server is asked: only for what is shown and not known yet.

const NOT_THERE = "The server does not answer. Is it still running?";
const TOO_OFTEN = "The server runs, but refused to answer: it may have been asked too often. Try again in a minute.";
const TOO_SLOW = "The server runs, but did not take the photograph: it may have come too slowly, or the server been asked too often. Try again in a minute, or with a smaller file.";
const TOO_OLD = "The server was started anew since this page was opened, and may no longer understand it: reload the page.";
const UNREADABLE = "The browser cannot read this: it is a folder, or was moved or changed since it was chosen. Choose a photograph's file.";

let asking = 0;

/** Call a function of the page's Python side. The photograph travels once; after that its hash does, for as long as it is remembered. */
async function call(name, photo, request) {
  const known = { ...request, example: photo.example, sha256: photo.sha256 };
  let reply = !photo.file || photo.sha256 ? await server[name](known) : { forgotten: true };
  if (reply?.forgotten && !photo.file) throw new Error("The server no longer remembers this photograph; choose it again.");
  const refusal = reply?.forgotten ? TOO_SLOW : TOO_OFTEN;
  if (reply?.forgotten) reply = await send(name, photo.file, request);
  if (!reply) throw new Error(await explainSilence(refusal));
  if (reply.error) throw new Error(reply.error);
  return reply;
}

async function send(name, photograph, request) {
  await photograph.slice(0, 1).arrayBuffer().catch(() => {
    throw new Error(UNREADABLE);
  });
  return server[name]({ binary: true, data: { request: JSON.stringify(request), photograph } });
}

/** Gradio tells no reason why there is no answer; `refusal` is the likely one of a server that runs. */
async function explainSilence(refusal = TOO_OFTEN) {
  if (!(await fetch("healthz").then(({ ok }) => ok, () => false))) return NOT_THERE;
  // Of another version's page the parts have other numbers, and the server finds none of ours.
  const start = await fetch("gradio_api/app_id").then((reply) => reply.json()).catch(() => ({}));
  return [undefined, window.gradio_config.app_id].includes(start.app_id) ? refusal : TOO_OLD;
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
    release(state.photo.before?.photo);
    state.photo.preview = keepPicture(preview);
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

function setBusy(change) {
  asking += change;
  find(".desk").dataset.busy = String(asking > 0);
  find(".grid").setAttribute("aria-busy", String(asking > 0));
}
