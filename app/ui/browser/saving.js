// What is shown as a file, or as a link.

const menu = find(".save"), opener = menu.querySelector("summary");

async function save(file) {
  setBusy(1);
  // A figure of many rows takes seconds.
  opener.textContent = "Saving…";
  try {
    const reply = await call("save", state.photo, { file, models: chosen().map((model) => model.name), labels: listRows(), ...look.describeFigure() });
    make("a", { href: `data:${reply.type};base64,${reply.base64}`, download: reply.name }).click();
    complain("");
  } catch (error) {
    complain((await leaveOutGone()) || error.message);
  } finally {
    setBusy(-1);
    opener.textContent = "Download";
  }
}

/** Close the menu that the keyboard is in. */
function leaveMenu() {
  menu.open = false;
  opener.focus();
}

for (const button of menu.querySelectorAll("[data-save]"))
  button.addEventListener("click", () => {
    leaveMenu();
    if (!chosen().length || !listRows().length) complain("There is nothing to save: choose at least one model and one label.");
    else save(button.dataset.save);
  });
menu.querySelector(".copy").hidden = !navigator.clipboard;
menu.querySelector(".copy").addEventListener("click", async () => {
  leaveMenu();
  // The address follows a moment later than the view does.
  await new Promise((done) => setTimeout(done, ADDRESS_REST + 50));
  await navigator.clipboard.writeText(location.href).then(
    () => (find(".status").textContent = "The link is copied."),
    () => complain("The browser does not let this page copy; take the link from its address bar."),
  );
});
document.addEventListener("click", (event) => {
  if (!menu.contains(event.target)) menu.open = false;
});
menu.addEventListener("keydown", (event) => {
  if (event.key === "Escape") leaveMenu();
});
// Over what the keyboard has gone on to.
menu.addEventListener("focusout", ({ relatedTarget }) => {
  if (relatedTarget && !menu.contains(relatedTarget)) menu.open = false;
});
