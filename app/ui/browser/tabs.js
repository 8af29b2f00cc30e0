// The page's tabs: a link opens the one that its address names, and the address names the one in front, but for the first.

const tabs = () => [...document.querySelectorAll("[role=tablist] [role=tab]")];
/** Not by its text, which a browser may have translated. */
const nameTab = (tab) => tab.dataset.tabId;
const isFront = (tab) => tab.getAttribute("aria-selected") === "true";

/** For an address: the tab in front. */
function describeTab() {
  const place = tabs().findIndex(isFront);
  return { tab: place > 0 ? [nameTab(tabs()[place])] : undefined };
}

/** Bring a tab to the front; the first one, if there is none of that name. */
function openTab(name) {
  const tab = tabs().find((one) => nameTab(one) === name) ?? tabs()[0];
  if (tab && !isFront(tab)) tab.click();
}

/** Call a function whenever another tab comes to the front. */
function watchTabs(react) {
  const list = document.querySelector("[role=tablist]");
  if (list) new MutationObserver(react).observe(list, { subtree: true, attributeFilter: ["aria-selected"] });
}
