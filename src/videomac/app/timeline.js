// The scrubber, and under it how sure each label is in each frame.
const find = (selector) => element.querySelector(selector);
const slider = find(".vm-frame"), output = find("output"), plot = find(".vm-plot");
const bar = find(".vm-progress"), words = find(".vm-words"), next = find(".vm-next");
const SPACE = "http://www.w3.org/2000/svg";
let clip = 0;

function draw(parent, name, attributes) {
  const node = document.createElementNS(SPACE, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  parent.appendChild(node);
  return node;
}

function across(frame) {
  return (1000 * frame) / Math.max(1, props.value.length - 1);
}

function place() {
  output.textContent = slider.value + " of " + Math.max(0, (props.value || {}).length - 1);
  const cursor = plot.querySelector(".vm-cursor");
  if (cursor) for (const key of ["x1", "x2"]) cursor.setAttribute(key, across(slider.value));
}

function go(frame) {
  if (slider.disabled) return;
  slider.value = frame;
  place();
  trigger("scrub", { frame: Number(slider.value) });
}

function show() {
  const value = props.value || {};
  if (!value.length) return;
  slider.max = value.length - 1;
  slider.disabled = value.busy;
  if (value.frame !== null) slider.value = value.frame;
  else if (value.clip !== clip) slider.value = 0;
  clip = value.clip;
  plot.replaceChildren();
  const svg = draw(plot, "svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const frame of value.labelled) draw(svg, "line", { x1: across(frame), x2: across(frame), y1: 0, y2: 100, class: "vm-labelled" });
  for (const frame of value.suggested) draw(svg, "line", { x1: across(frame), x2: across(frame), y1: 0, y2: 100, class: "vm-suggested" });
  for (const curve of value.curves)
    draw(svg, "polyline", {
      points: curve.values.map(([frame, share]) => across(frame) + "," + (96 - 92 * share)).join(" "),
      stroke: curve.colour,
      "data-name": curve.name,
    });
  draw(svg, "line", { y1: 0, y2: 100, class: "vm-cursor" });
  plot.classList.toggle("vm-empty", !value.curves.length && !value.labelled.length);
  bar.style.visibility = value.progress && value.busy ? "visible" : "hidden";
  bar.firstElementChild.style.width = (value.progress ? 100 * value.progress.share : 0) + "%";
  words.textContent = value.progress ? value.progress.words : "";
  next.replaceChildren();
  if (value.suggested.length) next.append("Worth labelling next: ");
  for (const frame of value.suggested) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = frame;
    button.setAttribute("aria-label", "Go to frame " + frame);
    button.addEventListener("click", () => go(frame));
    next.append(button);
  }
  place();
}

slider.addEventListener("input", () => go(slider.value));
plot.addEventListener("click", (event) => {
  const box = plot.getBoundingClientRect();
  go(Math.round(((event.clientX - box.left) / box.width) * ((props.value || {}).length - 1)));
});
for (const button of element.querySelectorAll("[data-by]"))
  button.addEventListener("click", () => go(Number(slider.value) + Number(button.dataset.by)));
watch("value", show);
show();
