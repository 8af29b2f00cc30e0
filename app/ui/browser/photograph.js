// The photograph: chosen, dropped, pasted, taken or an example. Every way ends in `pick({file | example, name, url})`.

/** Marks what is dragged within the page or out of it: its own pictures and words. */
const OWN = "text/x-l2d";
/** Whether words are pasted or dropped into a field, which takes them; spreadsheets add a picture of their cells. */
const isTyped = ({ target }, { types }) => types.includes("text/plain") && target.matches?.("input, textarea");

function watchPhotograph(element, pick, complain) {
  const find = (selector) => element.querySelector(selector);
  const take = (file) => {
    if (!file) return;
    pick({ file, name: file.name || "pasted photograph", url: URL.createObjectURL(file) });
  };
  const input = find("#l2d-file");
  input.addEventListener("change", () => {
    take(input.files[0]);
    input.value = "";
  });
  watchDrop(element, take, complain);
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (!file || !element.offsetParent || isTyped(event, event.clipboardData)) return;
    event.preventDefault();
    take(file);
  });
  watchCamera(find(".camera"), find(".webcam"), take, complain);
}

function watchDrop(element, take, complain) {
  const desk = element.querySelector(".desk");
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    desk.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragstart", ({ dataTransfer }) => dataTransfer.setData(OWN, "own"));
  // The whole page takes it: beside the desk, or before another tab, the browser would leave the page for the file.
  const isOurs = (event) => {
    const { types } = event.dataTransfer;
    return !types.includes(OWN) && (types.includes("Files") || (element.offsetParent && !isTyped(event, event.dataTransfer)));
  };
  const listen = (name, act) => document.addEventListener(name, (event) => isOurs(event) && act(event));
  listen("dragenter", () => mark(1));
  listen("dragleave", () => mark(-1));
  listen("dragover", (event) => event.preventDefault());
  listen("drop", (event) => {
    event.preventDefault();
    mark(-depth);
    if (!element.offsetParent) return;
    const { files } = event.dataTransfer;
    if (files.length === 1) take(files[0]);
    else complain(files.length ? `One photograph is compared at a time; ${files.length} files came.` : "Only files can be dropped here; save the picture first, or copy and paste it.");
  });
}

function watchCamera(button, dialog, take, complain) {
  const video = dialog.querySelector("video");
  const close = () => {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
    dialog.close();
  };
  button.addEventListener("click", async () => {
    if (!navigator.mediaDevices) return complain("The camera needs a secure address: open this page as localhost or over https.");
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      return complain("The browser gives no camera: " + error.message);
    }
    dialog.showModal();
    await video.play();
  });
  dialog.querySelector(".cancel").addEventListener("click", close);
  dialog.addEventListener("cancel", close);
  dialog.querySelector(".shoot").addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => take(new File([blob], "camera.png", { type: "image/png" })), "image/png");
    close();
  });
}

/** An address for what a data URL holds: those are read anew for every image that shows them, which in Firefox takes a second for 700. */
function keepPicture(dataUrl) {
  const [header, text] = dataUrl.split(",");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: header.slice("data:".length, header.indexOf(";")) }));
}
