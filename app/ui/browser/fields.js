// What Gradio's own fields lack for the keyboard, and for those who have them read out. They are built anew at any time.

function mendFields() {
  // Each radio button has a name of its own there. Those of one name are one stop of the tab key, and arrows move the choice.
  for (const radio of document.querySelectorAll(".l2d-jobs input")) radio.name = "l2d-jobs";
  // Its title is text like any other there.
  for (const group of document.querySelectorAll(".l2d-jobs")) [group.role, group.ariaLabel] = ["radiogroup", "Jobs"];
  // A list that scrolls is a stop, too, but goes as soon as its field is left, and the keyboard would be nowhere.
  for (const list of document.querySelectorAll(".option-list")) list.tabIndex = -1;
  for (const opener of document.querySelectorAll(".gr-accordion > .label-wrap")) opener.ariaExpanded = String(opener.classList.contains("open"));
}

/** Gradio opens a list at any key of its field, be it one that leaves it: the list would stay, over the fields below. */
function hideTab(event) {
  if (["Tab", "Shift"].includes(event.key) && event.target.closest(".wrap-inner")) event.stopPropagation();
}

// Before the browser acts on a key, and after the page did on a click.
document.addEventListener("keydown", mendFields, true);
document.addEventListener("keydown", hideTab, true);
document.addEventListener("click", () => setTimeout(mendFields));
