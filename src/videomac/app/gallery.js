// Pictures side by side; a click says where, as shares of the width and height.
const gallery = element.querySelector(".vm-gallery"), note = element.querySelector(".vm-words");

function show() {
  const value = props.value || { pictures: [], note: "", columns: 3 };
  note.textContent = value.note;
  gallery.style.setProperty("--columns", value.columns);
  gallery.replaceChildren();
  for (const picture of value.pictures) {
    const figure = document.createElement("figure"), image = document.createElement("img");
    const caption = document.createElement("figcaption");
    image.src = picture.src;
    image.alt = caption.textContent = picture.caption;
    image.addEventListener("click", (event) => {
      const box = image.getBoundingClientRect();
      trigger("pick", { u: (event.clientX - box.left) / box.width, v: (event.clientY - box.top) / box.height });
    });
    figure.append(image, caption);
    gallery.append(figure);
  }
}

watch("value", show);
show();
