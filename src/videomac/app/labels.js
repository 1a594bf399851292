// The list of labels: choose, name, remove.
const list = element.querySelector(".vm-labels");
let rows = {};

function make(name, attributes, parent) {
  const node = document.createElement(name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  parent.appendChild(node);
  return node;
}

function makeRow(number) {
  const row = make("li", {}, list);
  const dot = make("button", { type: "button", class: "vm-dot" }, row);
  const name = make("input", { type: "text", maxlength: 80, "aria-label": "Name of label " + number, spellcheck: "false" }, row);
  const remove = make("button", { type: "button", class: "vm-remove" }, row);
  remove.textContent = "\u00d7";
  dot.addEventListener("click", () => trigger("choose_label", { number }));
  name.addEventListener("focus", () => row.className || trigger("choose_label", { number }));
  name.addEventListener("change", () => trigger("rename_label", { number, name: name.value }));
  name.addEventListener("keydown", (event) => event.key === "Enter" && name.blur());
  remove.addEventListener("click", () => trigger("remove_label", { number }));
  return { row, dot, name, remove };
}

function show() {
  const labels = (props.value || {}).labels || [];
  if (labels.map((label) => label.number).join() !== Object.keys(rows).join()) {
    list.replaceChildren();
    rows = {};
    for (const label of labels) rows[label.number] = makeRow(label.number);
  }
  for (const label of labels) {
    const { row, dot, name, remove } = rows[label.number];
    row.className = label.active ? "vm-active" : "";
    dot.style.background = label.colour;
    dot.setAttribute("aria-pressed", label.active);
    dot.setAttribute("aria-label", "Draw " + label.name);
    remove.setAttribute("aria-label", "Remove " + label.name);
    if (name !== document.activeElement) name.value = label.name;
  }
}

element.querySelector("[data-do=add]").addEventListener("click", () => trigger("add_label", {}));
watch("value", show);
show();
