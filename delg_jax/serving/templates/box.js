// The query box: drawn on the picture by mouse or finger, or entered as numbers.

const SMALLEST = 4; // pixels on the screen; a shorter stroke is a tap, which takes the box away

export class Box {
  /**
   * @param {HTMLElement} area around the picture
   * @param {HTMLImageElement} picture
   * @param {HTMLElement} frame what shows the box
   * @param {HTMLInputElement[]} sides left, top, right, bottom
   */
  constructor(area, picture, frame, sides) {
    Object.assign(this, { area, picture, frame, sides, start: null });
    area.addEventListener("pointerdown", (event) => this.begin(event));
    area.addEventListener("pointermove", (event) => this.stretch(event));
    area.addEventListener("pointerup", () => { this.start = null; });
    area.addEventListener("pointercancel", () => { this.start = null; });
    for (const side of sides) side.addEventListener("input", () => this.show());
    new ResizeObserver(() => this.show()).observe(picture);
  }

  /** The box as the server takes it, "" for the whole picture; throws if it is none. */
  text() {
    const values = this.sides.map((side) => side.value.trim());
    if (values.every((value) => value === "")) return "";
    const [x1, y1, x2, y2] = values.map(Number);
    if (values.includes("") || !(x1 < x2 && y1 < y2)) {
      throw new Error("A box needs four numbers, left before right and top above bottom.");
    }
    return values.join(",");
  }

  clear() {
    this.set(["", "", "", ""]);
  }

  set(values) {
    this.sides.forEach((side, index) => { side.value = values[index]; });
    this.show();
  }

  begin(event) {
    if (!this.picture.naturalWidth) return;
    event.preventDefault();
    this.area.setPointerCapture(event.pointerId);
    this.start = this.place(event);
    this.clear();
  }

  stretch(event) {
    if (!this.start) return;
    const scale = this.scale();
    const ends = [this.start, this.place(event)];
    const [xs, ys] = [0, 1].map((axis) => ends.map((end) => end[axis]).sort((a, b) => a - b));
    if (Math.max(xs[1] - xs[0], ys[1] - ys[0]) / scale < SMALLEST) return;
    const whole = [xs[0], ys[0], xs[1], ys[1]].map(Math.round);
    if (whole[0] < whole[2] && whole[1] < whole[3]) this.set(whole);
  }

  /** A pointer's place in pixels of the picture. */
  place(event) {
    const { left, top } = this.picture.getBoundingClientRect();
    const scale = this.scale();
    const limits = [this.picture.naturalWidth, this.picture.naturalHeight];
    return [event.clientX - left, event.clientY - top].map((at, axis) =>
      Math.min(Math.max(at * scale, 0), limits[axis]));
  }

  /** Pixels of the picture by pixels on the screen. */
  scale() {
    return this.picture.naturalWidth / (this.picture.clientWidth || 1);
  }

  show() {
    let box = "";
    try {
      box = this.text();
    } catch {
      // Half of the numbers are not entered yet
    }
    this.frame.hidden = !box || !this.picture.naturalWidth;
    if (this.frame.hidden) return;
    const [x1, y1, x2, y2] = box.split(",").map((side) => Number(side) / this.scale());
    const limits = [this.picture.clientWidth, this.picture.clientHeight];
    const [right, bottom] = [Math.min(x2, limits[0]), Math.min(y2, limits[1])];
    Object.assign(this.frame.style, {
      left: `${x1}px`,
      top: `${y1}px`,
      width: `${Math.max(right - x1, 0)}px`,
      height: `${Math.max(bottom - y1, 0)}px`,
    });
  }
}
