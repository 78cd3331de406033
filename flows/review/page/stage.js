// The stage: one image with outlines, magnified and moved, and what is drawn on it. It knows of no server.

const SVG = "http://www.w3.org/2000/svg";
const LEAST_DRAG = 5; // screen pixels; less is a click

export function element(name, attributes = {}, parent = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

/** A part of an image, `bounds` [left, top, right, bottom], with an outline in coordinates of the whole image. */
export function picture(url, bounds, path, color) {
  const [left, top, right, bottom] = bounds;
  const svg = element("svg", { class: "picture", viewBox: `${left} ${top} ${right - left} ${bottom - top}` });
  element("image", { href: url, x: left, y: top, width: right - left, height: bottom - top, preserveAspectRatio: "none" }, svg);
  element("path", { class: "halo", d: path }, svg);
  element("path", { d: path, stroke: color }, svg);
  return svg;
}

export class Stage extends EventTarget {
  constructor(svg) {
    super();
    this.svg = svg;
    this.size = [1, 1];
    this.isDrawing = false;
    this.layers = Object.fromEntries(["image", "focus", "others", "draft"].map((name) => [name, element("g", {}, svg)]));
    svg.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    svg.addEventListener("pointerdown", (event) => this.#down(event));
    new ResizeObserver(() => this.#show(this.shown ?? this.#all())).observe(svg);
  }

  /** Shows an image; the view stays where the image is the same. */
  open(url, size) {
    if (this.url === url) return;
    [this.url, this.size] = [url, size];
    this.layers.image.replaceChildren(
      element("image", { href: url, x: 0, y: 0, width: size[0], height: size[1], preserveAspectRatio: "none" }),
    );
    this.fit();
  }

  /** Draws instances: `focus` bright on a shaded ground, `others` as outlines. Each: {id, path, box, color, classes}. */
  draw(focus, others) {
    const scale = this.scale();
    this.layers.others.replaceChildren(...others.flatMap((one) => this.#other(one, scale)));
    this.layers.focus.replaceChildren();
    if (!focus?.path) return;
    const around = `M0 0h${this.size[0]}v${this.size[1]}h${-this.size[0]}z`;
    element("path", { class: "shade", d: around + focus.path }, this.layers.focus);
    element("path", { class: "halo", d: focus.path }, this.layers.focus);
    element("path", { class: "focus", d: focus.path, stroke: focus.color }, this.layers.focus);
  }

  #other(one, scale) {
    const path = element("path", { class: `other ${one.classes}`, d: one.path, stroke: one.color, fill: one.color });
    path.addEventListener("click", () => this.dispatchEvent(new CustomEvent("chosen", { detail: one.id })));
    if (!one.text) return [path];
    const [left, top, right, bottom] = one.box;
    const text = element("text", { x: (left + right) / 2, y: (top + bottom) / 2, "font-size": 15 * scale });
    text.textContent = one.text;
    return [path, text];
  }

  /** Draws what is being drawn: a mask, points and a box, each if there is one. */
  draft({ path = "", points = [], box = null } = {}) {
    const radius = 4.5 * this.scale();
    this.layers.draft.replaceChildren(element("path", { class: "draft", d: path }));
    if (box) {
      const [left, top, right, bottom] = box;
      element("rect", { class: "box", x: left, y: top, width: right - left, height: bottom - top }, this.layers.draft);
    }
    for (const [x, y] of points) element("circle", { class: "point", cx: x, cy: y, r: radius }, this.layers.draft);
  }

  /** Pixels of the image in one of the screen. */
  scale() {
    const [, , width, height] = this.shown ?? this.#all();
    const { clientWidth, clientHeight } = this.svg;
    return Math.max(width / Math.max(1, clientWidth), height / Math.max(1, clientHeight));
  }

  fit() { this.#show(this.#all()); }

  /** Magnifies so that a box fills a third of the view or so. */
  magnify([left, top, right, bottom]) {
    const side = Math.max(right - left, bottom - top, 24) * 2.6;
    this.#show([(left + right - side) / 2, (top + bottom - side) / 2, side, side]);
  }

  #all() { return [0, 0, this.size[0], this.size[1]]; }

  #show(box) {
    this.shown = box;
    this.svg.setAttribute("viewBox", box.map((value) => value.toFixed(2)).join(" "));
  }

  /** The place of a pointer in pixels of the image, within it. */
  #place(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    return [Math.min(Math.max(point.x, 0), this.size[0] - 1), Math.min(Math.max(point.y, 0), this.size[1] - 1)];
  }

  #wheel(event) {
    event.preventDefault();
    const [x, y] = this.#place(event);
    const [left, top, width, height] = this.shown;
    const factor = Math.min(Math.max(Math.exp(event.deltaY / 500), 0.5), 2);
    if (width * factor < 8 || width * factor > this.size[0] * 6) return;
    this.#show([x - (x - left) * factor, y - (y - top) * factor, width * factor, height * factor]);
  }

  #down(event) {
    if (event.button !== 0) return;
    const [begun, at, shown] = [this.#place(event), [event.clientX, event.clientY], this.shown];
    const scale = this.scale();
    let isDrag = false;
    const move = (moved) => {
      const [dx, dy] = [moved.clientX - at[0], moved.clientY - at[1]];
      isDrag ||= Math.hypot(dx, dy) >= LEAST_DRAG;
      if (!isDrag) return;
      if (this.isDrawing) this.draft({ box: sorted(begun, this.#place(moved)) });
      else {
        this.svg.classList.add("moving");
        this.#show([shown[0] - dx * scale, shown[1] - dy * scale, shown[2], shown[3]]);
      }
    };
    const up = (ended) => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", up);
      this.svg.classList.remove("moving");
      if (!this.isDrawing) return;
      const detail = isDrag ? { box: sorted(begun, this.#place(ended)) } : { point: this.#place(ended) };
      this.dispatchEvent(new CustomEvent("drawn", { detail }));
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", up);
  }
}

function sorted([x1, y1], [x2, y2]) {
  return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
}
