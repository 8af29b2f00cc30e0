// How the page begins: with what its address names, or an example; and with the models that there are by now.

const fold = () => {
  for (const part of element.querySelectorAll(".look, .models-box")) part.open = !NARROW.matches;
};
NARROW.addEventListener("change", fold);
fold();

let openings = 0;

/** Show what the address asks for; where it asks for nothing, the first example. */
async function open() {
  const asked = readAddress(), turn = ++openings;
  look.read(asked);
  const { kind, threshold } = look.view;
  const named = { example: asked.example?.[0], sha256: asked.photo?.[0], models: asked.models, labels: asked.labels };
  const linked = named.example || named.sha256, before = state.photo;
  const opening = await server.opening(linked ? { ...named, kind, threshold, preview: true } : null);
  if (turn !== openings) return; // the address changed meanwhile, as when somebody goes back twice
  if (!opening) throw new Error(await explainSilence());
  const { first, error } = opening;
  // What the address asks for is shown, not an example in its place.
  const followed = linked && opening.example === (named.example ?? null);
  const compared = first?.answer.models.map(({ name }) => name);
  // A view of no model, or of no row, is one, too.
  const isOn = (model) => (followed && asked.models?.length === 0 ? false : compared ? compared.includes(model.name) : model.default);
  Object.assign(state, { maxBytes: opening.max_upload_bytes, maxModels: opening.max_models, maxLabels: opening.max_labels, refused: opening.refused });
  state.models = opening.models.map((model) => admit(model, isOn(model)));
  find(".examples").replaceChildren(...opening.examples.map(showExample));
  if (state.photo !== before) complete(); // somebody chose another photograph meanwhile
  else if (first) showFirst(opening, asked, followed);
  else refresh();
  complain(error);
}

/** Show the photograph that is compared already. */
function showFirst({ first, examples, example }, asked, followed) {
  const known = examples.find(({ name }) => name === example), sha256 = asked.photo?.[0];
  const before = state.photo?.sha256 === sha256 ? state.photo : { name: asked.name?.[0] ?? "Photograph", sha256 };
  release(state.photo);
  state.photo = known ? photoOf(known) : { ...before, preview: undefined };
  accept(first);
  const rows = asked.labels?.filter(canFill);
  // Of many labels the first answer has some; of none it has those that a photograph begins with.
  if (followed && rows && (rows.length || !asked.labels.length)) showRows(rows);
}

const photoOf = ({ name, title, credit, thumbnail }) => ({ example: name, name: title, credit, url: thumbnail });

function showExample(example) {
  const { name, title, credit, thumbnail } = example;
  const button = make("button", { type: "button", "aria-label": title, "aria-pressed": "false", title: `${title}. ${credit}` }, make("img", { src: thumbnail, alt: "", draggable: "false" }));
  button.dataset.name = name;
  button.addEventListener("click", () => pick(photoOf(example)));
  return button;
}

/** Models come and go while the page is open: jobs make them, people delete them. */
async function updateModels() {
  const reply = await server.listing(null);
  if (!reply) return;
  const known = new Map(state.models.map((model) => [model.name, model]));
  state.models = reply.models.map((model) => (known.has(model.name) ? Object.assign(known.get(model.name), model) : admit(model, false)));
  state.refused = reply.refused;
  refresh();
}

/** After a refusal: take the chosen models away that are no longer there; a sentence about them, if there are any. */
async function leaveOutGone() {
  const before = chosen();
  await updateModels();
  const gone = before.filter((model) => !state.models.includes(model));
  return gone.length ? `No longer on the server: ${gone.map(({ title }) => title).join(", ")}.` : "";
}

/** What changed on the server meanwhile, and what could not be had from it while it was away. */
const lookAgain = () => updateModels().then(() => asking || complete()).catch((error) => complain(error.message));

// Another tab of the page was in front.
let away = false;
new IntersectionObserver(([{ isIntersecting }]) => {
  if (isIntersecting && away) lookAgain();
  away = !element.offsetParent;
}).observe(element);
// Another window was, where somebody may have copied or deleted a model; or there was no network.
for (const event of ["focus", "online"]) window.addEventListener(event, () => state.models.length && lookAgain());

function start() {
  openTab(readAddress().tab?.[0]);
  setBusy(1);
  open().catch((error) => complain(error.message)).finally(() => setBusy(-1));
}

// A link that is pasted into the address of the open page; what the page itself writes there is no such event.
window.addEventListener("hashchange", start);
start();
watchTabs(() => state.photo && writeAddress(describeAddress()));
