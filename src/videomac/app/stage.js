// The picture that is drawn on. What is drawn is sent to Python, which answers with the next picture.
const screen = element.querySelector(".vm-screen");
const image = element.querySelector("img"), canvas = element.querySelector("canvas");
const size = element.querySelector(".vm-size input");
let tool = "point", stroke = null;

function show() {
  const value = props.value || {};
  screen.classList.toggle("vm-nothing", !value.src);
  element.classList.toggle("vm-busy", Boolean(value.busy));
  if (!value.src) return;
  const fit = element.querySelector(".vm-fit");
  fit.style.aspectRatio = value.width + " / " + value.height;
  fit.style.width = "min(100%, " + (56 * value.width) / value.height + "vh)";
  image.onload = () => {
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    screen.dataset.frame = value.frame;
  };
  image.src = value.src;
}

function choose(name) {
  tool = name;
  for (const button of element.querySelectorAll("[data-tool]"))
    button.setAttribute("aria-pressed", button.dataset.tool === name);
  element.querySelector(".vm-size").style.visibility = name === "point" ? "hidden" : "visible";
  canvas.style.touchAction = name === "point" ? "manipulation" : "none";
}

// A position in pixels of the video; the centre of the top left one is (0, 0).
function place(event) {
  const box = canvas.getBoundingClientRect(), value = props.value;
  const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
  return [u * value.width - 0.5, v * value.height - 0.5];
}

// The brush's radius in pixels of the video: the slider is in pixels of the screen.
function radius() {
  return (size.value / 2) * (props.value.width / canvas.getBoundingClientRect().width);
}

function trace(from, to) {
  const context = canvas.getContext("2d"), scale = canvas.width / props.value.width;
  context.strokeStyle = tool === "erase" ? "rgba(255, 255, 255, 0.7)" : props.value.colour;
  context.globalAlpha = 0.6;
  context.lineWidth = 2 * radius() * scale;
  context.lineCap = "round";
  context.beginPath();
  context.moveTo((from[0] + 0.5) * scale, (from[1] + 0.5) * scale);
  context.lineTo((to[0] + 0.5) * scale, (to[1] + 0.5) * scale);
  context.stroke();
}

canvas.addEventListener("pointerdown", (event) => {
  const value = props.value || {};
  if (!value.src || value.busy || event.button) return;
  if (tool === "point") {
    const [x, y] = place(event);
    trigger("mark", { frame: value.frame, x, y });
    return;
  }
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  stroke = [place(event)];
  trace(stroke[0], stroke[0]);
});
canvas.addEventListener("pointermove", (event) => {
  if (!stroke) return;
  const to = place(event);
  trace(stroke[stroke.length - 1], to);
  stroke.push(to);
});
for (const name of ["pointerup", "pointercancel"])
  canvas.addEventListener(name, () => {
    if (!stroke) return;
    trigger("stroke", { frame: props.value.frame, points: stroke, radius: radius(), erase: tool === "erase" });
    stroke = null;
  });

for (const button of element.querySelectorAll("[data-tool]"))
  button.addEventListener("click", () => choose(button.dataset.tool));
element.querySelector("[data-do=undo]").addEventListener("click", () => trigger("undo_step", { frame: (props.value || {}).frame }));
element.querySelector("[data-do=forget]").addEventListener("click", () => trigger("forget", { frame: (props.value || {}).frame }));
choose("point");
watch("value", show);
show();
