// The page's address: what is shown, after the "#", so that a link or a reload opens it again. Only what differs from a fresh page.

/** Milliseconds of rest before the address follows: browsers allow few changes of it in a row. */
const ADDRESS_REST = 400;

/** What the address asks for: name -> list of texts. Nothing of an address that is not ours. */
function readAddress() {
  try {
    const parts = location.hash.slice(1).split("&").filter((part) => part.includes("="));
    return Object.fromEntries(parts.map((part) => part.split("=")).map(([name, texts]) => [name, texts.split(",").filter(Boolean).map(decodeURIComponent)]));
  } catch {
    return {};
  }
}

/** A function that writes {name: list of texts, or undefined} into the address, without a step in the browser's history. */
function createAddress() {
  let resting = 0;
  return (shown) => {
    clearTimeout(resting);
    resting = setTimeout(() => {
      const parts = Object.entries(shown).filter(([, texts]) => texts !== undefined).map(([name, texts]) => `${name}=${texts.map(encodeURIComponent).join(",")}`);
      history.replaceState(history.state, "", parts.length ? "#" + parts.join("&") : location.pathname + location.search);
    }, ADDRESS_REST);
  };
}
