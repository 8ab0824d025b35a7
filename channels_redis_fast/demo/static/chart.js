// The round trip over the last minute: two lines, and the number of simulated
// members as an area behind them.

const WIDTH = 360;
const HEIGHT = 170;
const LEFT = 44;
const RIGHT = 330;
const TOP = 12;
const BOTTOM = 146;
const SPAN = 60_000;
const LEAST = 1; // the scale never shows less than a millisecond

function element(name, attributes, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

// The next of 1, 2, 5, 10, 20, 50, ... so that the scale changes seldom.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

export function milliseconds(value) {
  if (value >= 100) return `${value.toFixed(0)} ms`;
  return `${value.toFixed(value >= 10 ? 1 : 2)} ms`;
}

export class Chart {
  constructor(svg) {
    this.svg = svg;
    this.points = [];
  }

  add(point) {
    this.points.push(point);
    const oldest = point.at - SPAN - 2000;
    this.points = this.points.filter(({ at }) => at >= oldest);
    this.draw(point.at);
  }

  draw(now) {
    const top = roundUp(Math.max(LEAST, ...this.points.map(({ p99 }) => p99)));
    const most = roundUp(Math.max(10, ...this.points.map(({ members }) => members)));
    const x = (at) => RIGHT - ((now - at) / SPAN) * (RIGHT - LEFT);
    const y = (value, scale) => BOTTOM - (value / scale) * (BOTTOM - TOP);
    const visible = this.points.filter(({ at }) => at >= now - SPAN);
    const line = (key) =>
      visible
        .map((point, i) => `${i ? "L" : "M"}${x(point.at).toFixed(1)} ${y(point[key], top).toFixed(1)}`)
        .join("");

    const nodes = [];
    if (visible.some(({ members }) => members > 0)) {
      const edge = visible.map(
        (point) => `L${x(point.at).toFixed(1)} ${y(point.members, most).toFixed(1)}`,
      );
      const [first, last] = [visible[0].at, visible.at(-1).at];
      const area = `M${x(first).toFixed(1)} ${BOTTOM}${edge.join("")}L${x(last).toFixed(1)} ${BOTTOM}Z`;
      nodes.push(element("path", { class: "members", d: area }));
      nodes.push(element("text", { x: RIGHT + 4, y: TOP + 4 }, most));
      nodes.push(element("text", { x: WIDTH, y: HEIGHT - 8, "text-anchor": "end" }, "members"));
    }
    for (const part of [0, 0.5, 1]) {
      const height = y(part, 1);
      nodes.push(element("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: height, y2: height }));
      const label = part ? `${+(top * part).toPrecision(3)} ms` : "0";
      nodes.push(element("text", { x: LEFT - 6, y: height + 3, "text-anchor": "end" }, label));
    }
    nodes.push(element("text", { x: LEFT, y: HEIGHT - 8 }, "1 min ago"));
    nodes.push(element("path", { class: "line p99", d: line("p99") }));
    nodes.push(element("path", { class: "line p50", d: line("p50") }));
    this.svg.replaceChildren(...nodes);

    const { p50, p99, members } = this.points.at(-1);
    this.svg.setAttribute(
      "aria-label",
      `Round trip over the last minute, now p50 ${milliseconds(p50)} and p99 ` +
        `${milliseconds(p99)} with ${members} simulated members`,
    );
  }
}
