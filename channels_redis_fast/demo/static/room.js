import { Chart, milliseconds } from "./chart.js";

const PING_EVERY = 50;
const PINGS_UNDER_WAY = 20; // more would measure our own queue
const WINDOW = 10_000; // p50 and p99 are of the pings of the last ten seconds
const LOG_LENGTH = 200;
const RETRY_AFTER = 1000;
const UNPLUGGED_FOR = 5000;
const CROWD_SILENT = 4000; // each process tells its simulated members every second

const ADJECTIVES = ["Amber", "Brisk", "Calm", "Dapper", "Early", "Fond", "Gentle", "Hazel", "Keen", "Lucky", "Mellow", "Quick"];
const ANIMALS = ["Badger", "Crane", "Dormouse", "Egret", "Finch", "Hare", "Ibex", "Lynx", "Marten", "Otter", "Puffin", "Wren"];

const byId = (id) => document.getElementById(id);
const pick = (list) => list[Math.floor(Math.random() * list.length)];
const { room, process: here } = document.body.dataset;
const chart = new Chart(byId("chart"));

let socket = null;
let pause = RETRY_AFTER; // before the next connection
let since = null; // the position up to which this page has all that was said
let me = null;
const mine = new Set(); // who this page was, too, before it connected again
let members = new Map(); // id -> {name, process}: all that said who they are
let present = null; // the ids that the layer counts; null where it doesn't tell
let crowds = new Map(); // process -> {size, rate, at}
let pings = new Map(); // number -> when it was sent
let samples = []; // {at, ms}
let pingNumber = 0;
let sliderMoved = -Infinity;
let sliderWaiting = false;

const send = (type, content) => socket.send(JSON.stringify({ type, ...content }));

// Names.

function storedName() {
  let name = sessionStorage.getItem("name");
  if (!name) {
    name = `${pick(ADJECTIVES)} ${pick(ANIMALS)}`;
    sessionStorage.setItem("name", name);
  }
  return name;
}

byId("name").value = storedName();
byId("name").addEventListener("change", ({ target }) => {
  const name = target.value.trim();
  if (!name) {
    target.value = storedName();
    return;
  }
  sessionStorage.setItem("name", name);
  if (me) send("name", { name });
});

// The log.

function tag(process) {
  const node = document.createElement("span");
  node.className = "tag";
  node.dataset.process = process;
  node.textContent = process;
  node.title = `on process ${process}`;
  return node;
}

function append(item) {
  const log = byId("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  byId("empty")?.remove();
  log.append(item);
  while (log.children.length > LOG_LENGTH) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function note(text) {
  const item = document.createElement("li");
  item.className = "notice";
  item.textContent = text;
  append(item);
}

function showSaid({ id, name, process, text }) {
  const item = document.createElement("li");
  const line = document.createElement("div");
  const who = document.createElement("b");
  const words = document.createElement("p");
  item.className = mine.has(id) ? "said own" : "said";
  line.className = "quiet";
  who.textContent = name;
  words.textContent = text;
  const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  line.append(tag(process), who, time);
  item.append(line, words);
  append(item);
}

// What was missed.

const messages = (count) => (count === 1 ? "1 message" : `${count} messages`);

function showRecovery({ position, recovered, replayed }) {
  if (since && recovered) note(`${messages(replayed)} replayed`);
  else if (since) showGap({ position });
  since ??= position;
}

function showGap({ position }) {
  note("Messages are missing here: the layer doesn't keep them any more");
  since = position;
}

function showRestored({ cuts, said, recovered }) {
  const missing = recovered ? "none is missing" : "more than the layer keeps";
  note(`Process ${here} was cut off from Redis ${cuts} times: ${messages(said)} said meanwhile, ${missing}`);
}

byId("unplug")?.addEventListener("click", () => {
  note(`Unplugged for ${UNPLUGGED_FOR / 1000} s`);
  pause = UNPLUGGED_FOR;
  socket.close();
});

byId("cut")?.addEventListener("click", () => send("cut"));

// Who is here.

const isPresent = (id) => !present || present.has(id);

function showMembers() {
  const shown = [...members].filter(([id]) => isPresent(id));
  const items = shown.map(([id, { name, process }]) => {
    const item = document.createElement("li");
    const label = document.createElement("span");
    label.textContent = id === me ? `${name} (you)` : name;
    item.append(tag(process), label);
    return item;
  });
  byId("here").replaceChildren(...items);
  byId("count").textContent = shown.length || "";
}

function showHere({ id, name, process, arrived }) {
  if (!members.has(id) && arrived && id !== me) note(`${name} came in on process ${process}`);
  members.set(id, { name, process });
  showMembers();
}

function showPresent({ ids }) {
  const now = new Set(ids);
  for (const [id, { name }] of members) if (present?.has(id) && !now.has(id)) note(`${name} is gone`);
  present = now;
  showMembers();
}

for (const button of document.querySelectorAll("button.kill")) {
  button.addEventListener("click", () => {
    const { process } = button.dataset;
    send("kill", { process });
    note(`Process ${process} was killed: nobody said goodbye for its members`);
  });
}

// Where the layer doesn't tell who is present, they say that they leave.
function showLeft({ id, name }) {
  if (members.delete(id)) note(`${name} left`);
  showMembers();
}

// Simulated members.

const crowdSize = () => [...crowds.values()].reduce((sum, { size }) => sum + size, 0);

function showCrowd({ process, size, total, rate }) {
  const at = performance.now();
  crowds.set(process, { size, rate, at });
  for (const [name, each] of crowds) if (at - each.at > CROWD_SILENT) crowds.delete(name);
  const rates = [...crowds.values()].reduce((sum, each) => sum + each.rate, 0);
  byId("rate").textContent = rates.toLocaleString("en");
  const parts = [...crowds].sort().map(([name, each]) => `${each.size} on ${name}`);
  byId("crowd-note").hidden = crowdSize() === 0;
  byId("crowd-note").textContent = `${crowdSize()} simulated members: ${parts.join(", ")}`;
  // Another page may have moved its slider; follow it unless ours just moved.
  if (performance.now() - sliderMoved > 3000) {
    byId("crowd").value = total;
    byId("crowd-size").textContent = total;
  }
}

byId("crowd").addEventListener("input", ({ target }) => {
  sliderMoved = performance.now();
  byId("crowd-size").textContent = target.value;
  if (sliderWaiting) return;
  sliderWaiting = true;
  setTimeout(() => {
    sliderWaiting = false;
    if (me) send("crowd", { size: target.valueAsNumber });
  }, 100);
});

// Round trips.

const quantile = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

setInterval(() => {
  if (!me || pings.size >= PINGS_UNDER_WAY) return;
  pingNumber += 1;
  pings.set(pingNumber, performance.now());
  send("ping", { number: pingNumber });
}, PING_EVERY);

function showPong({ number, ms }) {
  pings.delete(number);
  samples.push({ at: performance.now(), ms });
}

setInterval(() => {
  const now = performance.now();
  for (const [number, sent] of pings) if (now - sent > WINDOW) pings.delete(number);
  samples = samples.filter(({ at }) => now - at < WINDOW);
  if (!samples.length) return;
  const sorted = samples.map(({ ms }) => ms).sort((a, b) => a - b);
  const point = { at: now, p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), members: crowdSize() };
  byId("p50").textContent = milliseconds(point.p50);
  byId("p99").textContent = milliseconds(point.p99);
  chart.add(point);
}, 500);

// The connection.

const actions = {
  welcome: (message) => {
    me = message.id;
    mine.add(me);
    showRecovery(message);
    showState("connected");
  },
  here: showHere,
  present: showPresent,
  left: showLeft,
  said: (message) => {
    since = message.position ?? since;
    showSaid(message);
  },
  gap: showGap,
  restored: showRestored,
  pong: showPong,
  crowd: showCrowd,
  error: ({ detail }) => note(`Refused: ${detail}`),
};

function showState(state) {
  const off = state !== "connected";
  byId("status").dataset.state = state;
  byId("status").textContent = state;
  for (const id of ["text", "send", "crowd"]) byId(id).disabled = off;
  for (const button of document.querySelectorAll("button.fault")) button.disabled = off;
}

function connect() {
  const query = new URLSearchParams({ name: storedName() });
  if (since) query.set("since", since);
  socket = new WebSocket(`ws://${location.host}/ws/room/${room}/?${query}`);
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    actions[message.type]?.(message);
  };
  socket.onclose = () => {
    me = null;
    members = new Map();
    present = null;
    crowds = new Map();
    pings = new Map();
    showMembers();
    showState("disconnected");
    setTimeout(connect, pause);
    pause = RETRY_AFTER;
  };
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  if (!text || !me) return;
  send("say", { text });
  byId("text").value = "";
});

for (const link of document.querySelectorAll("a.process")) {
  link.href = `//${location.hostname}:${link.dataset.port}${location.pathname}`;
}

connect();
